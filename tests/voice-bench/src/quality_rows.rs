//! The rows of sound against loss: a call for each kind of loss, share and seed, both voices at once, one each way; and what rivals make of the very same
//! losses.

use crate::call::{CallOutcome, CallPlan, Direction, delay_only, lossy};
use crate::loss::Kind;
use crate::plot::Chart;
use crate::rival::{self, Rival};
use crate::rival_programs::{self, Heard};
use crate::score::{Recording, Score};
use crate::speech::Voice;
use crate::table::Row;
use ahoy_netlab::link::ShapeSettings;
use std::collections::BTreeMap;
use std::path::Path;

/// Shares of loss, and the least scores: PESQ-WB and PLCMOS.
const LIMITS: [(Kind, u32, f64, f64); 8] = [
    (Kind::Random, 10, 3.8, 4.35),
    (Kind::Random, 20, 3.65, 4.3),
    (Kind::Random, 30, 3.2, 4.2),
    (Kind::Random, 50, 1.9, 3.8),
    (Kind::Bursty, 10, 3.15, 4.3),
    (Kind::Bursty, 20, 2.7, 4.2),
    (Kind::Bursty, 30, 2.35, 3.85),
    (Kind::Bursty, 50, 1.8, 3.6),
];
/// What a call may send over the wire, IP headers counted.
const WIRE_KBPS_MAX: f64 = 60.0;
/// Where loss is so heavy that a call may have more: the limits for it.
const HEAVY: (u32, f64, f64, f64) = (50, 72.0, 2.4, 4.0);
/// The call without loss.
const CLEAN_ID: &str = "clean";
/// Without loss: payload, and the least scores.
const CLEAN: (f64, f64, f64) = (32.0, 4.25, 4.35);
/// A bottleneck that leaves no room beyond the wire's limit, so that a sender who could use more does not.
const BOTTLENECK_KBPS: f64 = 62.0;
/// Loss so heavy that a sender would use more than [`WIRE_KBPS_MAX`] where there is room.
const HEAVY_PERCENT: u32 = 50;
/// How long a call settles before anything counts: the seconds of speech that are not judged.
pub(crate) const SETTLE_US: f64 = 6e6;
/// Headers of a packet of voice: IP, UDP, QUIC with its tag, and ours.
const HEADERS_BYTES: f64 = 60.0;

/// Loss of one kind, share and seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    kind: Kind,
    percent: u32,
    seed: usize,
    /// Whether the call may send more than usual.
    has_room: bool,
}

impl Case {
    fn id(self) -> String {
        format!("{}-{}{}-{}", self.kind.word(), self.percent, if self.has_room { "-room" } else { "" }, self.seed)
    }

    /// Each direction has its own seed.
    fn pattern(self, direction: usize) -> String {
        self.kind.pattern(self.percent, self.seed + 3 * direction)
    }

    fn shapes(self) -> [ShapeSettings; 2] {
        [0, 1].map(|direction| {
            let is_narrow = self.percent >= HEAVY_PERCENT && !self.has_room;
            let rate_kbps = is_narrow.then_some(BOTTLENECK_KBPS);
            ShapeSettings { rate_kbps, queue_ms_max: crate::call::QUEUE_MS_MAX, ..lossy(self.pattern(direction)) }
        })
    }
}

fn cases(is_quick: bool) -> Vec<Case> {
    let seeds = |kind, percent| match (is_quick, kind, percent) {
        (true, _, _) => 1,
        (false, Kind::Bursty, 30) => 6,
        (false, _, _) => 3,
    };
    let of = |kind, percent, has_room| (0..seeds(kind, percent)).map(move |seed| Case { kind, percent, seed, has_room });
    let usual = LIMITS.into_iter().flat_map(|(kind, percent, ..)| of(kind, percent, false));
    usual.chain(of(Kind::Random, HEAVY.0, true)).collect()
}

/// The calls to be made.
pub(crate) fn plans(is_quick: bool) -> Vec<CallPlan> {
    let clean = CallPlan::steady(CLEAN_ID.to_owned(), [delay_only(), delay_only()]);
    let lossy = cases(is_quick).into_iter().map(|case| CallPlan::steady(case.id(), case.shapes()));
    std::iter::once(clean).chain(lossy).collect()
}

/// What is to be judged of a call.
pub(crate) fn recordings(outcome: &CallOutcome) -> Vec<Recording> {
    let of = |direction: &Direction| Recording {
        id: format!("{}-{}", outcome.plan.id, direction.voice),
        voice: direction.voice,
        file: direction.recording.clone(),
        starts_after: direction.recording_starts_us / 1e6,
    };
    outcome.directions.iter().map(of).collect()
}

/// What a rival is to be heard with.
struct Hearing {
    rival: Rival,
    recording: Recording,
    pattern: String,
    first: i64,
    percent: u32,
}

/// Has the rivals meet the losses of the calls, and tells what is to be judged of it.
pub(crate) fn rivals(is_quick: bool, outcomes: &[CallOutcome], voices: &[Voice; 2], folder: &Path) -> Result<Vec<Recording>, String> {
    let hearings: Vec<Hearing> = Rival::ALL
        .into_iter()
        .flat_map(|rival| outcomes.iter().flat_map(move |outcome| [0, 1].map(|voice| (rival, outcome, voice))))
        .filter_map(|(rival, outcome, voice)| {
            let case = cases(is_quick).into_iter().find(|case| case.id() == outcome.plan.id && !case.has_room);
            let (pattern, percent) = match case {
                Some(case) => (case.pattern(voice), case.percent),
                None if outcome.plan.id == CLEAN_ID => (String::new(), 0),
                None => return None,
            };
            let id = format!("{}-{}-{voice}", rival.word(), outcome.plan.id);
            let recording = Recording { file: folder.join(format!("{id}.wav")), id, voice, starts_after: 0.0 };
            // The pattern began so many packets of 20 ms before the speech.
            let first = ((outcome.directions[voice].play_started_us - outcome.changed_us.first()?) / 20_000.0).round() as i64;
            Some(Hearing { rival, recording, pattern, first, percent })
        })
        .collect();
    let halves = hearings.chunks(hearings.len().div_ceil(2).max(1));
    let hear = |half: &[Hearing]| -> Result<(), String> {
        half.iter().try_for_each(|Hearing { rival, recording, pattern, first, percent }| {
            let voice = &voices[recording.voice];
            rival::hear(*rival, &voice.file(), voice.seconds, pattern, *first, *percent, &recording.file)
        })
    };
    std::thread::scope(|scope| {
        let hear = &hear;
        let threads: Vec<_> = halves.map(|half| scope.spawn(move || hear(half))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no rival panics"))
    })?;
    Ok(hearings.into_iter().map(|hearing| hearing.recording).collect())
}

/// The means over seeds and voices of what was judged.
struct Means {
    pesq: f64,
    plcmos: f64,
}

fn means<'a>(scores: &BTreeMap<String, Score>, ids: impl Iterator<Item = &'a str>) -> Means {
    let found: Vec<&Score> = ids.flat_map(|id| [format!("{id}-0"), format!("{id}-1")]).filter_map(|id| scores.get(&id)).collect();
    let mean = |value: fn(&Score) -> f64| found.iter().map(|score| value(score)).sum::<f64>() / found.len().max(1) as f64;
    Means { pesq: mean(|score| score.pesq), plcmos: mean(|score| score.plcmos) }
}

/// The least PESQ and PLCMOS, and the most kilobits a second.
type Limits = (f64, f64, f64);
/// Makes a row of calls, by what it is called, their names, and what is asked.
type MakeRow<'a> = &'a dyn Fn(String, &[String], Limits) -> Row;

/// The rows of those calls that were planned.
pub(crate) fn rows(is_quick: bool, planned: &[String], outcomes: &[CallOutcome], scores: &BTreeMap<String, Score>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what: String, ids: &[String], limits: Limits, row: MakeRow<'_>| {
        if ids.iter().any(|id| planned.contains(id)) {
            let is_made = |id: &String| outcomes.iter().any(|outcome| outcome.plan.id == *id);
            let row = if ids.iter().all(is_made) { row(what, ids, limits) } else { Row::missing(what, "", "a call could not be made") };
            rows.push(row);
        }
    };
    let clean = [CLEAN_ID.to_owned()];
    let (payload_max, pesq_min, plcmos_min) = CLEAN;
    let limits = (pesq_min, plcmos_min, payload_max);
    add("no loss: PESQ-WB, PLCMOS, kb/s of payload".to_owned(), &clean, limits, &|what, ids, limits| {
        score_row(what, ids, outcomes, scores, limits, payload_kbps)
    });
    add("the same call: mouth to ear, files for devices, less the link".to_owned(), &clean, limits, &|what, _, _| {
        let delays = [0, 1].map(|voice| scores.get(&format!("{CLEAN_ID}-{voice}")).map_or(f64::NAN, |score| score.delay_ms));
        let mouth_to_ear = (delays[0] + delays[1]) / 2.0 - crate::call::ONE_WAY_MS;
        Row::told(what, format!("{mouth_to_ear:.0} ms"))
    });
    let usual = LIMITS.map(|(kind, percent, pesq, plcmos)| {
        let what = format!("{} loss, {percent} %: PESQ-WB, PLCMOS, kb/s on the wire", kind.word());
        (what, ids(is_quick, kind, percent, false), (pesq, plcmos, WIRE_KBPS_MAX))
    });
    let (percent, wire_max, pesq, plcmos) = HEAVY;
    let what = format!("random loss, {percent} %, with room for more: PESQ-WB, PLCMOS, kb/s on the wire");
    let heavy = (what, ids(is_quick, Kind::Random, percent, true), (pesq, plcmos, wire_max));
    for (what, ids, limits) in usual.into_iter().chain([heavy]) {
        add(what, &ids, limits, &|what, ids, limits| score_row(what, ids, outcomes, scores, limits, settled_wire_kbps));
    }
    rows
}

/// How the programs of others sound with bursty loss, with ours beside them where the same losses were met.
pub(crate) fn programs_row(heard: &[Heard], scores: &BTreeMap<String, Score>) -> Option<Row> {
    let line = |id: &dyn Fn(u32) -> String| {
        let told =
            rival_programs::PERCENT.map(|percent| scores.get(&id(percent)).map_or("–".to_owned(), |score| format!("{:.2}", score.pesq)));
        told.join(" / ")
    };
    let ours = line(&|percent| if percent == 0 { format!("{CLEAN_ID}-1") } else { format!("bursty-{percent}-0-1") });
    let theirs = heard.iter().map(|heard| format!("{} {}", heard.program.name(), line(&|percent| heard.program.recording(percent))));
    let row = Row::told("no loss, and bursty loss of 10 / 20 / 30 / 50 %, one seed, the female voice alone: PESQ-WB", ours);
    (!heard.is_empty()).then(|| row.with_rivals(theirs.collect::<Vec<_>>().join("; ")))
}

fn ids(is_quick: bool, kind: Kind, percent: u32, has_room: bool) -> Vec<String> {
    let fits = |case: &Case| case.kind == kind && case.percent == percent && case.has_room == has_room;
    cases(is_quick).into_iter().filter(fits).map(Case::id).collect()
}

/// A row of the mean scores of calls, and of the mean of what both directions of each sent.
fn score_row(
    what: String,
    ids: &[String],
    outcomes: &[CallOutcome],
    scores: &BTreeMap<String, Score>,
    limits: Limits,
    sent_kbps: fn(&Direction) -> f64,
) -> Row {
    let (pesq_min, plcmos_min, kbps_max) = limits;
    let ours = means(scores, ids.iter().map(String::as_str));
    let directions = outcomes.iter().filter(|outcome| ids.contains(&outcome.plan.id)).flat_map(|outcome| &outcome.directions);
    let rates: Vec<f64> = directions.map(sent_kbps).collect();
    let kbps = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    let holds = ours.pesq >= pesq_min && ours.plcmos >= plcmos_min && kbps <= kbps_max;
    let rivals: Vec<String> = Rival::ALL
        .iter()
        .filter_map(|rival| {
            // A case with room has the losses of the one without.
            let theirs: Vec<String> = ids.iter().map(|id| format!("{}-{}", rival.word(), id.replace("-room", ""))).collect();
            let theirs = means(scores, theirs.iter().map(String::as_str));
            (theirs.pesq > 0.0).then(|| format!("{} {:.2}, {:.2}", rival.name(), theirs.pesq, theirs.plcmos))
        })
        .collect();
    let told = format!("{:.2}, {:.2}, {kbps:.0}", ours.pesq, ours.plcmos);
    let limit = format!("≥ {pesq_min}, ≥ {plcmos_min}, ≤ {kbps_max}");
    Row::measured(what, told, limit, holds).with_rivals(rivals.join("; "))
}

/// Kilobits a second of Opus: packets of voice without their headers.
fn payload_kbps(direction: &Direction) -> f64 {
    let packets = direction.voice_packets();
    let (Some(first), Some(last)) = (packets.first(), packets.last()) else { return f64::NAN };
    let (from, to) = (first.0 + SETTLE_US, last.0);
    let settled = packets.iter().filter(|(time, _)| (from..to).contains(time));
    settled.map(|(_, bytes)| bytes - HEADERS_BYTES).sum::<f64>() * 8_000.0 / (to - from)
}

/// Kilobits a second of all that was sent into the link, once the call had settled.
fn settled_wire_kbps(direction: &Direction) -> f64 {
    let (Some(first), Some(last)) = (direction.wire.rows.first(), direction.wire.rows.last()) else { return f64::NAN };
    direction.wire_kbps(first.0 as f64 + SETTLE_US, last.0 as f64)
}

/// Scores over the share of loss, ours and the rivals'.
pub(crate) fn charts(is_quick: bool, scores: &BTreeMap<String, Score>) -> Vec<(String, Chart)> {
    let mut charts = Vec::new();
    for kind in [Kind::Random, Kind::Bursty] {
        type Pick = fn(&Means) -> f64;
        let scales: [(&str, &str, Pick); 2] = [("pesq", "PESQ-WB", |means| means.pesq), ("plcmos", "PLCMOS", |means| means.plcmos)];
        for (word, label, pick) in scales {
            let line = |prefix: String| -> Vec<(f64, f64)> {
                let clean = std::iter::once((0, vec![format!("{prefix}{CLEAN_ID}")]));
                let shares = LIMITS.iter().filter(|(of, ..)| *of == kind).map(|(_, percent, ..)| {
                    (*percent, ids(is_quick, kind, *percent, false).into_iter().map(|id| format!("{prefix}{id}")).collect::<Vec<_>>())
                });
                clean
                    .chain(shares)
                    .map(|(percent, ids)| (f64::from(percent), pick(&means(scores, ids.iter().map(String::as_str)))))
                    .collect()
            };
            let limits = LIMITS.iter().filter(|(of, ..)| *of == kind);
            let limits =
                limits.map(|(_, percent, pesq, plcmos)| (f64::from(*percent), pick(&Means { pesq: *pesq, plcmos: *plcmos }))).collect();
            let rivals = Rival::ALL.into_iter().map(|rival| (rival.name().to_owned(), line(format!("{}-", rival.word()))));
            let chart = Chart {
                title: format!("{label} over {} loss", kind.word()),
                x_label: "packets lost, %".to_owned(),
                y_label: label.to_owned(),
                y_range: (1.0, 4.7),
                lines: std::iter::once(("Ahoy".to_owned(), line(String::new())))
                    .chain(rivals)
                    .chain([("limit".to_owned(), limits)])
                    .collect(),
            };
            charts.push((format!("voice-{}-{word}.svg", kind.word()), chart));
        }
    }
    charts
}
