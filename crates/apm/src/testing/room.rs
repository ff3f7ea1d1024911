//! The impulse response from a loudspeaker to a microphone in a rectangular room, by the image-source method (Allen and Berkley,
//! 1979): each mirror image of the loudspeaker in the walls contributes one delayed, attenuated copy.

use super::scene::Noise;
use crate::SAMPLE_RATE;

/// Metres that sound travels in a second.
const SOUND_METRES_PER_SECOND: f64 = 343.0;

/// A room with furniture where a seed puts it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// Seconds in which sound dies away by 60 dB.
    pub t60_s: f64,
    /// What decides the room's size and where loudspeaker and microphone stand.
    pub seed: u64,
}

impl Room {
    /// The impulse response, with an energy of 1.
    #[must_use]
    pub fn impulse_response(&self) -> Vec<f32> {
        let mut noise = Noise::new(self.seed);
        let size = [4.0, 3.2, 2.5].map(|metres| metres * (1.0 + 0.2 * noise.uniform()));
        let microphone = [0.5, 0.45, 0.4].map(|share| share + 0.1 * noise.uniform());
        let microphone = std::array::from_fn(|i| microphone[i] * size[i]);
        // On a desk: a third of a metre to two thirds apart.
        let distance = 0.5 + 0.17 * noise.uniform();
        let loudspeaker: [f64; 3] = [microphone[0] + distance * 0.8, microphone[1] + distance * 0.6, microphone[2] + 0.05];
        let mut response = self.reflections(size, loudspeaker, microphone, &mut noise);
        let energy: f32 = response.iter().map(|tap| tap * tap).sum();
        response.iter_mut().for_each(|tap| *tap /= energy.sqrt());
        response
    }

    fn reflections(&self, size: [f64; 3], loudspeaker: [f64; 3], microphone: [f64; 3], noise: &mut Noise) -> Vec<f32> {
        let samples = (self.t60_s * f64::from(SAMPLE_RATE)) as usize;
        let reach = self.t60_s * SOUND_METRES_PER_SECOND;
        let reflection = self.reflection(size);
        let orders = size.map(|metres| (reach / (2.0 * metres)).ceil() as i32);
        let mut response = vec![0.0f32; samples];
        for x in axis(orders[0], size[0], loudspeaker[0], microphone[0]) {
            for y in axis(orders[1], size[1], loudspeaker[1], microphone[1]) {
                for z in axis(orders[2], size[2], loudspeaker[2], microphone[2]) {
                    let metres = (x.0 * x.0 + y.0 * y.0 + z.0 * z.0).sqrt();
                    let at = metres / SOUND_METRES_PER_SECOND * f64::from(SAMPLE_RATE);
                    let walls = x.1 + y.1 + z.1;
                    // Walls are not flat: late reflections come at odd times and with either sign, or the room would ring.
                    let at = at * (1.0 + 0.0005 * f64::from(walls) * noise.uniform());
                    let sign = if walls > 2 && noise.uniform() < 0.0 { -1.0 } else { 1.0 };
                    if let Some(tap) = response.get_mut(at as usize) {
                        *tap += (sign * reflection.powi(walls) / metres) as f32;
                    }
                }
            }
        }
        response
    }

    /// What a wall reflects, by Eyring's formula.
    fn reflection(&self, size: [f64; 3]) -> f64 {
        let volume = size.iter().product::<f64>();
        let surface = 2.0 * (size[0] * size[1] + size[1] * size[2] + size[0] * size[2]);
        let absorption = 1.0 - (-0.161 * volume / (surface * self.t60_s)).exp();
        (1.0 - absorption).sqrt()
    }
}

/// The images along one axis: how far from the microphone, and how many walls lie between.
fn axis(orders: i32, metres: f64, loudspeaker: f64, microphone: f64) -> Vec<(f64, i32)> {
    let mut images = Vec::new();
    for n in -orders..=orders {
        images.push((2.0 * f64::from(n) * metres + loudspeaker - microphone, 2 * n.abs()));
        images.push((2.0 * f64::from(n) * metres - loudspeaker - microphone, (2 * n - 1).abs()));
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_dies_away_in_the_time_asked_for() {
        for t60_s in [0.2, 0.4] {
            let response = Room { t60_s, seed: 1 }.impulse_response();
            // Schroeder's backward integration: from -5 to -25 dB, three times.
            let mut energy: Vec<f64> = response
                .iter()
                .rev()
                .scan(0.0, |sum, tap| {
                    *sum += f64::from(tap * tap);
                    Some(*sum)
                })
                .collect();
            energy.reverse();
            let at = |db: f64| energy.iter().position(|&left| left < energy[0] * 10f64.powf(db / 10.0)).unwrap() as f64;
            let measured = 3.0 * (at(-25.0) - at(-5.0)) / f64::from(SAMPLE_RATE);
            assert!((measured / t60_s - 1.0).abs() < 0.35, "{measured} for {t60_s}");
        }
    }
}
