//! The rows of mouth to ear: calls over a link that takes no time, between devices that are none but have the periods, the buffers and the callbacks of quick
//! ones; and what those callbacks cost.

use crate::call::{CallOutcome, CallPlan, Devices, Direction};
use crate::quality_rows::SETTLE_US;
use crate::signal::{self, RATE_HZ};
use crate::speech::Voice;
use crate::table::Row;
use ahoy_lab::Event;
use ahoy_netlab::link::ShapeSettings;

/// What the calls' names begin with.
pub(crate) const NAME: &str = "loopback";
/// Frames of 10 ms are for round trips below 10 ms, those of 20 ms for longer ones: what such a link takes, one way, is taken off again.
const FRAMES: [(u32, f64); 2] = [(10, 0.0), (20, 10.0)];
/// With all processing, and without: the limits for frames of 10 ms and of 20.
const LIMITS_MS: [(bool, [f64; 2]); 2] = [(true, [50.0, 62.0]), (false, [40.0, 55.0])];
/// Places in the speech that are compared: so long, so far apart.
const PLACE_SECONDS: f64 = 0.4;
const APART_SECONDS: f64 = 0.1;
/// Fewer tell nothing.
const PLACES_MIN: usize = 60;
/// Longest way that is looked for.
const LAG_SECONDS_MAX: f64 = 0.3;
const CALLBACK_US_MAX: f64 = 1_000.0;

/// The calls to be made.
pub(crate) fn plans() -> Vec<CallPlan> {
    let cases = LIMITS_MS.into_iter().flat_map(|(is_processed, _)| FRAMES.map(|frames| (is_processed, frames)));
    cases
        .map(|(is_processed, (frame_ms, delay_ms))| {
            let link = ShapeSettings { delay_ms, ..ShapeSettings::default() };
            let both = [link.clone(), link.clone()];
            CallPlan { devices: Devices::Virtual { is_processed }, before: link, ..CallPlan::steady(id(is_processed, frame_ms), both) }
        })
        .collect()
}

fn id(is_processed: bool, frame_ms: u32) -> String {
    format!("{NAME}-{}-{frame_ms}", if is_processed { "processed" } else { "plain" })
}

/// The rows.
pub(crate) fn rows(outcomes: &[CallOutcome], voices: &[Voice; 2]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (is_processed, limits) in LIMITS_MS {
        let mut medians = Vec::new();
        let mut told = Vec::new();
        for (frame_ms, delay_ms) in FRAMES {
            let Some(call) = outcomes.iter().find(|outcome| outcome.plan.id == id(is_processed, frame_ms)) else { continue };
            let mut lags = Vec::new();
            for direction in &call.directions {
                lags.extend(lags_ms(direction, &voices[direction.voice])?);
            }
            lags.sort_by(f64::total_cmp);
            let median = lags.get(lags.len() / 2).filter(|_| lags.len() >= PLACES_MIN).map_or(f64::NAN, |median| median - delay_ms);
            let is_framed = call.directions.iter().all(|direction| frame_of(direction) == f64::from(frame_ms));
            medians.push(if is_framed { median } else { f64::NAN });
            told.push(format!("{median:.0} ms"));
            if !is_framed {
                told.push(format!("with frames of {:.0} ms", frame_of(&call.directions[0])));
            }
        }
        let processing = outcomes.iter().filter(|outcome| outcome.plan.id.starts_with(&id(is_processed, 10)));
        let own_ms = processing.flat_map(|call| &call.directions).map(processing_ms).fold(0.0, f64::max);
        let what = if is_processed {
            told.push(format!("of it the canceller and what follows {own_ms:.1} ms"));
            "mouth to ear, virtual devices of 5 ms, all processing (the default): frames of 10 ms (the default there), of 20"
        } else {
            "the same, no processing"
        };
        let limit = limits.map(|limit| format!("≤ {limit} ms")).join(", ");
        let holds = medians.len() == limits.len() && medians.iter().zip(limits).all(|(median, limit)| *median <= limit);
        rows.push(Row::measured(what, told.join(", "), limit, holds));
    }
    rows.push(callback_row(outcomes));
    Ok(rows)
}

/// What the last statistics of a sender say.
fn frame_of(direction: &Direction) -> f64 {
    last_stats(&direction.sender).map_or(f64::NAN, |stats| stats.number("frame_ms"))
}

fn processing_ms(direction: &Direction) -> f64 {
    last_stats(&direction.sender).map_or(f64::NAN, |stats| stats.number("processing_ms"))
}

fn last_stats(events: &[Event]) -> Option<&Event> {
    events.iter().rfind(|event| event.is("stats"))
}

/// How late each place of the speech is heard, from mouth to ear.
fn lags_ms(direction: &Direction, voice: &Voice) -> Result<Vec<f64>, String> {
    let spoken = signal::read(&voice.file())?;
    let heard = signal::read(&direction.recording)?;
    // Where the first sample sent would lie in the recording, if it took no time.
    let sent_at = -(direction.recording_starts_us / 1e6 * RATE_HZ as f64).round() as i64;
    let samples = |seconds: f64| (seconds * RATE_HZ as f64) as usize;
    let places = (samples(SETTLE_US / 1e6)..samples(voice.seconds - PLACE_SECONDS)).step_by(samples(APART_SECONDS));
    Ok(places.filter_map(|from| signal::delay_ms(&spoken, from, samples(PLACE_SECONDS), &heard, sent_at, LAG_SECONDS_MAX)).collect())
}

/// How long the devices' callbacks take, of one in a thousand.
fn callback_row(outcomes: &[CallOutcome]) -> Row {
    let what = "callbacks of the devices: allocations, p99.9";
    let limit = format!("none, ≤ {} ms", CALLBACK_US_MAX / 1_000.0);
    let stats = outcomes.iter().filter(|outcome| outcome.plan.id.starts_with(NAME)).flat_map(|outcome| &outcome.directions);
    let callbacks: Vec<_> = stats.filter_map(|direction| last_stats(&direction.sender)?.0.get("callbacks").cloned()).collect();
    let of = |field: &str| -> Vec<f64> {
        let ends = callbacks.iter().flat_map(|both| ["capture", "playback"].map(|end| both.get(end)?.get(field)?.as_f64()));
        ends.flatten().collect()
    };
    let (counts, slow) = (of("count"), of("p999_us"));
    if counts.iter().sum::<f64>() <= 0.0 {
        return Row::missing(what, limit, "the client tells no times of callbacks");
    }
    let worst = slow.into_iter().fold(0.0, f64::max);
    let longest = of("max_us").into_iter().fold(0.0, f64::max);
    // That they allocate nothing is a matter of the code, not of chance: a test of the devices ends the program at the first allocation.
    let told =
        format!("none (asserted in the tests of ahoy-audio), {worst:.0} µs (longest {longest:.0} µs of {:.0})", counts.iter().sum::<f64>());
    Row::measured(what, told, limit, worst <= CALLBACK_US_MAX)
}
