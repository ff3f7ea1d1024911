//! The rows of links that are thin, that change, or that are long: what the sender makes of them.

use crate::call::{CallOutcome, CallPlan, Devices, Direction, QUEUE_MS_MAX, delay_only, lossy};
use crate::loss::Kind;
use crate::plot::Chart;
use crate::quality_rows::SETTLE_US;
use crate::score::Score;
use crate::table::Row;
use ahoy_lab::Event;
use ahoy_netlab::link::ShapeSettings;
use std::collections::BTreeMap;

/// A link so thin that only the lowest rung fits.
const THIN_KBPS: f64 = 16.0;
/// On it: lost voice in percent, queue of one packet in twenty, and what is understood (STOI).
const THIN_LIMITS: (f64, f64, f64) = (1.0, 100.0, 0.84);
/// A link that is suddenly worse, and when.
const DROP_KBPS: (f64, f64) = (100.0, 30.0);
const DROP_AFTER_S: f64 = 14.0;
const DROP_SECONDS: f64 = 28.0;
/// By when the queue is to be short again, how short, and the longest gap.
const DROP_LIMITS: (f64, f64, f64) = (2.0, 100.0, 200.0);
/// A step of loss, and when it begins and ends.
const STEP_PERCENT: u32 = 20;
const STEP_S: (f64, f64) = (14.0, 28.0);
const STEP_SECONDS: f64 = 46.0;
/// By when the right rung is to be had, and by when the one before.
const STEP_LIMITS_S: (f64, f64) = (2.0, 15.0);
/// A long way that loses much: what each packet takes, one way, and the loss.
const LONG_MS: f64 = 150.0;
const LONG_PERCENT: u32 = 30;
/// On it, what the sender's stack may add, of one packet in a hundred.
const LONG_LIMIT_MS: f64 = 10.0;
/// Of one core.
const CPU_PERCENT_MAX: f64 = 6.0;
/// A call whose processor time is counted.
const CPU_SECONDS: (f64, f64) = (60.0, 20.0);

/// The calls to be made.
pub(crate) fn plans(is_quick: bool) -> Vec<CallPlan> {
    let both = |shape: ShapeSettings| [shape.clone(), shape];
    let narrow = |kbps| ShapeSettings { rate_kbps: Some(kbps), queue_ms_max: QUEUE_MS_MAX, ..delay_only() };
    let step = |seed: usize| [0usize, 1].map(|direction| lossy(Kind::Random.pattern(STEP_PERCENT, seed + 3 * direction)));
    let long = ShapeSettings { delay_ms: LONG_MS, ..delay_only() };
    let far = |direction| ShapeSettings { delay_ms: LONG_MS, ..lossy(Kind::Random.pattern(LONG_PERCENT, direction)) };
    let (cpu_seconds, cpu_quick_seconds) = CPU_SECONDS;
    vec![
        CallPlan {
            id: "step".to_owned(),
            before: delay_only(),
            changes: vec![(STEP_S.0, step(0)), (STEP_S.1, both(delay_only()))],
            seconds: Some(STEP_SECONDS),
            devices: Devices::Files,
        },
        CallPlan::steady("thin".to_owned(), both(narrow(THIN_KBPS))),
        CallPlan {
            id: "drop".to_owned(),
            before: narrow(DROP_KBPS.0),
            changes: vec![(DROP_AFTER_S, both(narrow(DROP_KBPS.1)))],
            seconds: Some(DROP_SECONDS),
            devices: Devices::Files,
        },
        CallPlan { id: "long".to_owned(), before: long, changes: vec![(0.0, [far(0), far(1)])], seconds: None, devices: Devices::Files },
        CallPlan {
            id: "cpu".to_owned(),
            before: delay_only(),
            changes: Vec::new(),
            seconds: Some(if is_quick { cpu_quick_seconds } else { cpu_seconds }),
            devices: Devices::Files,
        },
    ]
}

/// The rows of those calls that were planned.
pub(crate) fn rows(planned: &[String], outcomes: &[CallOutcome], scores: &BTreeMap<String, Score>) -> Vec<Row> {
    let row = |outcome: &CallOutcome| match outcome.plan.id.as_str() {
        "step" => Some(step_row(outcome)),
        "long" => Some(long_row(outcome)),
        "thin" => Some(thin_row(outcome, scores)),
        "drop" => Some(drop_row(outcome)),
        "cpu" => Some(cpu_row(outcome)),
        _ => None,
    };
    let not_made = plans(false).into_iter().map(|plan| plan.id).filter(|id| planned.contains(id));
    let not_made = not_made.filter(|id| !outcomes.iter().any(|outcome| outcome.plan.id == *id));
    let missing = not_made.map(|id| Row::missing(format!("the call \"{id}\""), "", "it could not be made"));
    outcomes.iter().filter_map(row).chain(missing).collect()
}

/// How long after each change of loss the rung was the one that stayed, in the worse direction.
fn step_row(outcome: &CallOutcome) -> Row {
    let what = format!("loss 0 → {STEP_PERCENT} % → 0: seconds until the rung is right, and back");
    let (up_max, back_max) = STEP_LIMITS_S;
    let limit = format!("≤ {up_max}, ≤ {back_max}");
    let [begins, ends] = outcome.changed_us[..] else { return Row::missing(what, limit, "the link did not change") };
    let mut worst = (0.0f64, 0.0f64);
    let mut told = Vec::new();
    for direction in &outcome.directions {
        let rung_at = |time_us: f64| {
            let mut stats = direction.sender.iter().filter(|event| event.is("stats") && event.t_ms() * 1_000.0 <= time_us);
            stats.next_back().map(|stats| stats.text("rung").to_owned()).unwrap_or_default()
        };
        let (before, during) = (rung_at(begins), rung_at(ends));
        if before.is_empty() {
            return Row::missing(what, limit, "the client tells no rung");
        }
        let last_us = direction.wire.rows.last().map_or(ends, |row| row.0 as f64);
        let after = rung_at(last_us);
        told.push(format!("{before} → {during} → {after}"));
        let packets = direction.voice_packets();
        let up = settled_after(&packets, begins, ends);
        let back = settled_after(&packets, ends, last_us);
        // Twenty percent of loss asks for copies, which a rung without loss has none of; and afterwards it is to be as before.
        let is_right = during != before && after == before;
        let (up, back) = if is_right { (up, back) } else { (f64::INFINITY, f64::INFINITY) };
        worst = (worst.0.max(up), worst.1.max(back));
    }
    let (up, back) = worst;
    told.dedup();
    Row::measured(what, format!("{up:.1}, {back:.1} ({})", told.join("; ")), limit, up <= up_max && back <= back_max)
}

/// When packets of voice came to have the size that they have in the last quarter until `to`, in seconds after `from`: the sender's settings as the wire shows
/// them. A window of a few packets is compared, so that one odd packet is none; and a probe, which lasts a second, is no other rung.
fn settled_after(packets: &[(f64, f64)], from: f64, to: f64) -> f64 {
    const WINDOW: usize = 5;
    const TOLERANCE: f64 = 0.05;
    const PROBE_US: f64 = 1.5e6;
    let voice: Vec<(f64, f64)> = packets.iter().copied().filter(|(time, _)| (from..to).contains(time)).collect();
    let median = |values: &[(f64, f64)]| {
        let mut sizes: Vec<f64> = values.iter().map(|(_, bytes)| *bytes).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.get(sizes.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let settled = median(&voice[voice.len() * 3 / 4..]);
    let is_other: Vec<bool> = voice.windows(WINDOW).map(|window| (median(window) - settled).abs() > TOLERANCE * settled).collect();
    let mut settled_us = if is_other.is_empty() { f64::INFINITY } else { from };
    let mut begin = 0;
    for run in is_other.chunk_by(|one, next| one == next) {
        let end = begin + run.len();
        // The last packet of a window that is as it shall be.
        let until = voice.get(end - 1 + WINDOW).map_or(f64::INFINITY, |(time, _)| *time);
        if run[0] && (begin == 0 || until - voice[begin].0 > PROBE_US) {
            settled_us = until;
        }
        begin = end;
    }
    (settled_us - from) / 1e6
}

/// How late packets of voice left against the even pace of their frames, of one in a hundred.
fn long_row(outcome: &CallOutcome) -> Row {
    let what = format!("what the sender's stack adds at {:.0} ms round trip, {LONG_PERCENT} % loss: p50, p99", 2.0 * LONG_MS);
    let limit = format!("p99 ≤ {LONG_LIMIT_MS} ms");
    let from = outcome.changed_us.first().copied().unwrap_or(0.0) + SETTLE_US;
    let seconds: Vec<Option<Vec<f64>>> =
        outcome.directions.iter().flat_map(|direction| lateness_ms(&direction.voice_packets(), from)).collect();
    let judged = seconds.iter().flatten().count();
    let mut late: Vec<f64> = seconds.iter().flatten().flatten().copied().collect();
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late.get((late.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    let others = if judged < seconds.len() { "; in the others frames changed their length" } else { "" };
    let told = format!("{:.1}, {:.1} ms ({judged} of {} s{others})", at(0.5), at(0.99), seconds.len());
    Row::measured(what, told, limit, at(0.99) <= LONG_LIMIT_MS && 2 * judged >= seconds.len())
}

/// Lateness of each packet of voice since `from`, second by second, against a grid of the frames' length that touches the earliest of the second; a packet
/// that is missing is late for ever. `None` for a second in which, or beside which, the frames' length changed: nobody can tell the grid from outside.
fn lateness_ms(packets: &[(f64, f64)], from: f64) -> Vec<Option<Vec<f64>>> {
    const SECOND_US: f64 = 1e6;
    let end = packets.last().map_or(from, |(time, _)| *time);
    let seconds = ((end - from) / SECOND_US).max(0.0) as usize;
    let within = |second: usize| -> Vec<f64> {
        let begin = from + second as f64 * SECOND_US;
        packets.iter().map(|(time, _)| *time).filter(|time| (begin..begin + SECOND_US).contains(time)).collect()
    };
    let frames: Vec<f64> = (0..seconds).map(|second| frame_us(&within(second))).collect();
    (0..seconds)
        .map(|second| {
            let (times, frame) = (within(second), frames[second]);
            let beside = &frames[second.saturating_sub(1)..(second + 2).min(seconds)];
            if beside.iter().any(|other| *other != frame) {
                return None;
            }
            let places: Vec<f64> = times.iter().enumerate().map(|(i, time)| time - i as f64 * frame).collect();
            let first = places.iter().copied().fold(f64::MAX, f64::min);
            // One less may be due to where the second begins.
            let missing = ((SECOND_US / frame) as usize).saturating_sub(times.len() + 1);
            let late = places.into_iter().map(|place| (place - first) / 1_000.0);
            Some(late.chain(std::iter::repeat_n(f64::INFINITY, missing)).collect())
        })
        .collect()
}

/// The length of most frames, from the times at which their packets left: a multiple of 10 ms.
fn frame_us(times: &[f64]) -> f64 {
    const UNIT_US: f64 = 10_000.0;
    let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).map_or(0.0, |gap| (gap / UNIT_US).round().max(1.0) * UNIT_US)
}

fn thin_row(outcome: &CallOutcome, scores: &BTreeMap<String, Score>) -> Row {
    let (lost_max, queue_max, stoi_min) = THIN_LIMITS;
    let from = outcome.changed_us.first().copied().unwrap_or(0.0) + SETTLE_US;
    let lost = outcome.directions.iter().map(|direction| lost_percent(&direction.receiver, from)).fold(0.0, f64::max);
    let queue =
        outcome.directions.iter().map(|direction| percentile(&queues_ms(direction, from, f64::MAX, THIN_KBPS), 0.95)).fold(0.0, f64::max);
    let stoi = [0, 1].map(|voice| scores.get(&format!("thin-{voice}")).map_or(0.0, |score| score.stoi)).iter().sum::<f64>() / 2.0;
    let pesq = [0, 1].map(|voice| scores.get(&format!("thin-{voice}")).map_or(0.0, |score| score.pesq)).iter().sum::<f64>() / 2.0;
    let wire = outcome.directions.iter().map(|direction| direction.wire_kbps(from, from + 20e6)).fold(0.0, f64::max);
    Row::measured(
        format!("a link of {THIN_KBPS} kb/s each way: lost, queue p95, STOI"),
        format!("{lost:.1} %, {queue:.0} ms, {stoi:.2} (PESQ-WB {pesq:.2}, {wire:.1} kb/s sent)"),
        format!("< {lost_max} %, < {queue_max} ms, ≥ {stoi_min}"),
        lost < lost_max && queue < queue_max && stoi >= stoi_min,
    )
}

/// Voice that never came in time, of what was sent since a time, as the receiver tells.
fn lost_percent(receiver: &[Event], since_us: f64) -> f64 {
    let stats: Vec<&Event> = Direction::stats_since(receiver, since_us).collect();
    let (Some(first), Some(last)) = (stats.first(), stats.last()) else { return f64::NAN };
    let grown = |field: &str| last.number(field) - first.number(field);
    100.0 * grown("lost") / (grown("lost") + grown("received")).max(1.0)
}

/// How long packets waited for the bottleneck between two times; their own sending and the link's delay do not count.
fn queues_ms(direction: &Direction, from: f64, to: f64, kbps: f64) -> Vec<f64> {
    let rows = direction.wire.rows.iter().filter(|row| (from..to).contains(&(row.0 as f64)) && row.2 >= 0);
    rows.map(|row| (row.2 as f64 / 1_000.0 - crate::call::ONE_WAY_MS - f64::from(row.1) * 8.0 / kbps).max(0.0)).collect()
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(((values.len().max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

fn drop_row(outcome: &CallOutcome) -> Row {
    let (within_s, queue_max, gap_max) = DROP_LIMITS;
    let what = format!("from {} to {} kb/s: longest queue {within_s} s later and on, longest gap", DROP_KBPS.0, DROP_KBPS.1);
    let limit = format!("< {queue_max} ms, ≤ {gap_max} ms");
    let Some(dropped) = outcome.changed_us.first().copied() else { return Row::missing(what, limit, "the link did not change") };
    let worst = |value: &dyn Fn(&Direction) -> f64| outcome.directions.iter().map(value).fold(0.0, f64::max);
    let queue = worst(&|direction| percentile(&queues_ms(direction, dropped + within_s * 1e6, f64::MAX, DROP_KBPS.1), 1.0));
    let gap = worst(&|direction| {
        let until_ms = direction.wire.rows.last().map_or(f64::MAX, |row| row.0 as f64 / 1_000.0);
        let stats = Direction::stats_since(&direction.receiver, dropped).filter(|stats| stats.t_ms() <= until_ms);
        stats.map(|stats| stats.number("gap_ms")).fold(0.0, f64::max)
    });
    Row::measured(what, format!("{queue:.0} ms, {gap:.0} ms"), limit, queue < queue_max && gap <= gap_max)
}

fn cpu_row(outcome: &CallOutcome) -> Row {
    let most = 100.0 * outcome.directions.iter().map(|direction| direction.cpu_share).fold(0.0, f64::max);
    let seconds = outcome.plan.seconds.unwrap_or_default();
    let what = format!("processor time of a call of {seconds:.0} s, of one core");
    Row::measured(what, format!("{most:.1} %"), format!("≤ {CPU_PERCENT_MAX} %"), most <= CPU_PERCENT_MAX)
}

/// The queue before the bottleneck as the link gets worse.
pub(crate) fn charts(outcomes: &[CallOutcome]) -> Vec<(String, Chart)> {
    let Some(outcome) = outcomes.iter().find(|outcome| outcome.plan.id == "drop") else { return Vec::new() };
    let Some(dropped) = outcome.changed_us.first().copied() else { return Vec::new() };
    let line = |direction: &Direction| -> Vec<(f64, f64)> {
        let rows = direction.wire.rows.iter().filter(|row| row.2 >= 0 && (dropped - 3e6..dropped + 8e6).contains(&(row.0 as f64)));
        rows.map(|row| {
            let kbps = if (row.0 as f64) < dropped { DROP_KBPS.0 } else { DROP_KBPS.1 };
            ((row.0 as f64 - dropped) / 1e6, (row.2 as f64 / 1_000.0 - crate::call::ONE_WAY_MS - f64::from(row.1) * 8.0 / kbps).max(0.0))
        })
        .collect()
    };
    let [there, back] = &outcome.directions;
    let chart = Chart {
        title: format!("Queue as the link drops from {} to {} kb/s", DROP_KBPS.0, DROP_KBPS.1),
        x_label: "seconds after the drop".to_owned(),
        y_label: "ms".to_owned(),
        y_range: (0.0, 400.0),
        lines: vec![("to the callee".to_owned(), line(there)), ("to the caller".to_owned(), line(back))],
    };
    vec![("voice-drop.svg".to_owned(), chart)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_told_from_the_pace_and_a_change_of_frames_is_left_out() {
        let even = (0..200).map(|i| f64::from(i) * 20_000.0 + if i == 30 { 15_000.0 } else { 0.0 });
        let longer = (0..50).map(|i| 4e6 + f64::from(i) * 40_000.0);
        let packets: Vec<(f64, f64)> = even.filter(|time| !(1.1e6..1.2e6).contains(time)).chain(longer).map(|time| (time, 150.0)).collect();
        let worst = |second: &Option<Vec<f64>>| second.as_ref().map(|late| late.iter().copied().fold(0.0, f64::max));
        let worst: Vec<Option<f64>> = lateness_ms(&packets, 0.0).iter().map(worst).collect();
        // Late, missing, even, and a change.
        assert_eq!(worst[..4], [Some(15.0), Some(f64::INFINITY), Some(0.0), None]);
    }

    #[test]
    fn settings_have_settled_when_the_packets_have_their_last_size() {
        let packets: Vec<(f64, f64)> = (0..500).map(|i| (f64::from(i) * 20_000.0, if i < 75 { 120.0 } else { 180.0 })).collect();
        let settled = settled_after(&packets, 0.0, 1e7);
        assert!((settled - 1.5).abs() < 0.15, "{settled}");
        assert!(settled_after(&packets[100..], 2e6, 1e7) < 0.1);
    }

    #[test]
    fn a_probe_is_no_other_rung_and_a_longer_change_is() {
        let with = |other: std::ops::Range<u32>| -> Vec<(f64, f64)> {
            let bytes = |i: u32| if i < 50 || other.contains(&i) { 120.0 } else { 180.0 };
            (0..500).map(|i| (f64::from(i) * 20_000.0, bytes(i))).collect()
        };
        assert!((settled_after(&with(200..250), 0.0, 1e7) - 1.0).abs() < 0.15);
        assert!((settled_after(&with(200..300), 0.0, 1e7) - 6.0).abs() < 0.15);
    }
}
