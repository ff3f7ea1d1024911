//! Line charts as SVG, so plain that they read well in a document, dark or light.

use std::fmt::Write as _;

/// A chart of points joined by lines.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) y_range: (f64, f64),
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 48.0;
/// Told apart by people who see few colours, too.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666"];
/// Marks on the axes, about so many.
const TICKS: f64 = 5.0;

impl Chart {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let xs = || self.lines.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x));
        let (x_min, x_max) = (xs().fold(f64::MAX, f64::min), xs().fold(f64::MIN, f64::max));
        let (y_min, y_max) = self.y_range;
        let x = |value: f64| LEFT + (value - x_min) / (x_max - x_min).max(f64::EPSILON) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - (value.clamp(y_min, y_max) - y_min) / (y_max - y_min) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            escape(&self.title)
        );
        for value in ticks(y_min, y_max) {
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#dddddd\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{value}</text>",
                y(value),
                WIDTH - RIGHT,
                LEFT - 6.0,
                y(value) + 4.0
            );
        }
        for value in ticks(x_min, x_max) {
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>", x(value), HEIGHT - BOTTOM + 18.0);
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n<text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 10.0,
            escape(&self.x_label),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escape(&self.y_label)
        );
        for (number, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let path: Vec<String> = points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
            let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" "));
            // Many points are a curve; few are measurements, each of which is to be seen.
            if points.len() <= 12 {
                for (px, py) in points {
                    let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>", x(*px), y(*py));
                }
            }
            let (legend_x, legend_y) = (WIDTH - RIGHT + 16.0, TOP + 10.0 + 20.0 * number as f64);
            let _ = writeln!(
                svg,
                "<path d=\"M{legend_x} {0}h16\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{1}\" y=\"{2}\">{3}</text>",
                legend_y - 4.0,
                legend_x + 22.0,
                legend_y,
                escape(name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Round numbers between two.
fn ticks(min: f64, max: f64) -> Vec<f64> {
    let rough = ((max - min) / TICKS).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(rough);
    let first = (min / step).ceil() as i64;
    let last = (max / step).floor() as i64;
    (first..=last).map(|i| (i as f64 * step * 1e6).round() / 1e6).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers_within_the_axis() {
        assert_eq!(ticks(1.0, 4.5), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(0.0, 50.0), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
    }

    #[test]
    fn every_line_is_drawn_and_named() {
        let lines = vec![("a < b".to_owned(), vec![(0.0, 1.0), (1.0, 2.0)]), ("c".to_owned(), vec![(0.0, 2.0)])];
        let chart = Chart { title: "t".into(), x_label: "x".into(), y_label: "y".into(), y_range: (1.0, 4.5), lines };
        let svg = chart.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a &lt; b"));
    }
}
