//! What was measured, by row, and the tables made of it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The values of each row.
pub(crate) type Figures = BTreeMap<&'static str, Vec<f64>>;

/// Prints a table with a column for each of `columns` that was measured.
pub(crate) fn print(rows: &[&'static str], columns: &[(String, Option<Figures>)]) {
    let measured: Vec<_> = columns.iter().filter_map(|(name, figures)| Some((name, figures.as_ref()?))).collect();
    let names: Vec<_> = measured.iter().map(|(name, _)| name.as_str()).collect();
    println!("| figure | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for row in rows {
        let cells: Vec<_> = measured.iter().map(|(_, figures)| cell(figures, row)).collect();
        println!("| {row} | {} |", cells.join(" | "));
    }
}

/// Median, and the value that one in twenty is worse than.
fn cell(figures: &Figures, row: &str) -> String {
    let Some(mut values) = figures.get(row).cloned() else { return String::new() };
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    if row.contains("PESQ") {
        return format!("{:.2} (p5 {:.2}, n {})", at(0.5), at(0.05), values.len());
    }
    format!("{:.0} ms (p95 {:.0}, n {})", at(0.5), at(0.95), values.len())
}

/// Prints a table with the median and the greatest value of each row.
pub(crate) fn print_extremes(rows: &[&'static str], figures: &Figures, unit: &str) {
    println!("| figure | median | greatest | n |\n|---|---|---|---|");
    for row in rows {
        let mut values = figures.get(row).cloned().unwrap_or_default();
        values.sort_by(f64::total_cmp);
        let Some(greatest) = values.last() else { continue };
        println!("| {row} | {:.0} {unit} | {greatest:.0} {unit} | {} |", values[values.len() / 2], values.len());
    }
}

pub(crate) fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs_f64() * 1_000.0
}
