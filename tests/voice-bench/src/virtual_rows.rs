//! The rows that need no call: the jitter buffer over made-up networks in virtual time, clocks that drift, and the echo canceller in made-up rooms.

use crate::score::{self, Question};
use crate::signal::{self, JUDGED_HZ};
use crate::speech::Voice;
use crate::table::Row;
use ahoy_apm::testing::{Hint, Scene};
use ahoy_apm::{Apm, ApmSettings, NoiseLevel};
use ahoy_voice::testing::{Playout, Trace, Weather, play, play_neteq};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Each kind of network with the greatest price, and the greatest share of what NetEq's rule pays.
const PRICES: [(Weather, f64, f64); 3] = [(Weather::Lan, 8.0, 0.6), (Weather::WifiSpikes, 75.0, 0.6), (Weather::LteLike, 110.0, 0.75)];
/// A trace, and its packets.
const TRACE_SECONDS: u32 = 300;
const PACKET_MS: u32 = 20;
const SEEDS: [u64; 6] = [1, 2, 3, 4, 5, 6];
const QUICK_SEEDS: usize = 2;
/// How often a small device asks for sound.
const PULL_MS: f64 = 5.0;
/// Clocks that drift so much, for so long.
const DRIFT_PPM: [f64; 2] = [-200.0, 200.0];
const DRIFT_SECONDS: u32 = 3_600;
const DRIFT_QUICK_SECONDS: u32 = 600;
/// What the level of the buffer may differ from its mean by.
const LEVEL_MS_MAX: f64 = 10.0;
/// How long a buffer learns before its level counts.
const LEARNING_MS: f64 = 30_000.0;
/// A network without any jitter, so that drift is all there is.
const STILL_MS: f64 = 10.0;
/// Rooms by their reverberation, and the least echo return loss enhancement in them.
const ROOMS: [(f64, f64); 3] = [(0.2, 30.0), (0.3, 30.0), (0.4, 26.0)];
/// From the loudspeaker's queue to the microphone's.
const DELAYS_MS: [f64; 3] = [60.0, 120.0, 200.0];
/// How long the far end talks, and from when on the canceller is to have learned the room.
const ROOM_SECONDS: f64 = 20.0;
const LEARNED_S: f64 = 3.0;
const AECMOS_MIN: f64 = 4.4;

/// All of them.
pub(crate) fn rows(is_quick: bool, root: &Path, voices: &[Voice; 2]) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = PRICES.into_iter().map(|(weather, most, share)| price_row(is_quick, weather, most, share)).collect();
    rows.push(drift_row(is_quick));
    rows.extend(echo_rows(is_quick, root, voices)?);
    Ok(rows)
}

fn price_row(is_quick: bool, weather: Weather, most: f64, share: f64) -> Row {
    let seeds = &SEEDS[..if is_quick { QUICK_SEEDS } else { SEEDS.len() }];
    // The phase between packets and pulls matters on quiet networks, and all are met evenly.
    let phases = (0..seeds.len()).map(|i| PULL_MS * (i as f64 + 0.5) / seeds.len() as f64);
    let prices: Vec<_> = seeds
        .iter()
        .zip(phases)
        .map(|(seed, phase_ms)| {
            let trace = Trace::new(weather, *seed, TRACE_SECONDS, PACKET_MS);
            (play(Instant::now(), &trace, Playout { pull_ms: PULL_MS, ..Playout::at_phase(phase_ms) }, |_, _, _| {}).0, play_neteq(&trace))
        })
        .collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / prices.len() as f64;
    let ours = mean(&mut prices.iter().map(|(ours, _)| ours.j()));
    let late = mean(&mut prices.iter().map(|(ours, _)| ours.late_percent));
    let rival = mean(&mut prices.iter().map(|(_, rival)| rival.j()));
    Row::measured(
        format!("price of the jitter buffer, {}: J", weather.name()),
        format!("{ours:.1} ({late:.2} % late; {:.0} % of the rival's)", 100.0 * ours / rival),
        format!("≤ {most}, ≤ {:.0} %", 100.0 * share),
        ours <= most && ours <= share * rival,
    )
    .with_rivals(format!("NetEq's rule {rival:.1}"))
}

fn drift_row(is_quick: bool) -> Row {
    let seconds = if is_quick { DRIFT_QUICK_SECONDS } else { DRIFT_SECONDS };
    let trace = Trace { interval_ms: PACKET_MS, delays_ms: vec![STILL_MS; (seconds * 1_000 / PACKET_MS) as usize] };
    let (mut underruns, mut worst_ms) = (0, 0.0f64);
    for drift_ppm in DRIFT_PPM {
        let mut levels = Vec::new();
        let (_, stats) = play(Instant::now(), &trace, Playout { drift_ppm, ..Playout::at_phase(5.0) }, |now_ms, _, receiver| {
            if now_ms > LEARNING_MS {
                levels.push(receiver.jitter().delay_ms);
            }
        });
        let mean = levels.iter().sum::<f64>() / levels.len().max(1) as f64;
        worst_ms = levels.iter().map(|level| (level - mean).abs()).fold(worst_ms, f64::max);
        underruns += stats.late + stats.concealed_ms / u64::from(PACKET_MS);
    }
    Row::measured(
        format!("drift of ±200 ppm, {} min of virtual time: underruns, level", seconds / 60),
        format!("{underruns}, ±{worst_ms:.1} ms"),
        format!("0, ±{LEVEL_MS_MAX} ms"),
        underruns == 0 && worst_ms <= LEVEL_MS_MAX,
    )
}

fn echo_rows(is_quick: bool, root: &Path, voices: &[Voice; 2]) -> Result<Vec<Row>, String> {
    let folder = root.join("rooms");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let voices: &[Voice] = if is_quick { &voices[..1] } else { voices };
    let mut questions = BTreeMap::new();
    let mut erles = BTreeMap::new();
    for (room, (t60_s, _)) in ROOMS.into_iter().enumerate() {
        for delay_ms in DELAYS_MS {
            for voice in voices {
                let id = format!("{room}-{delay_ms}-{}", voice.name);
                let (erle_db, question) = echo(&folder.join(&id), voice, t60_s, delay_ms)?;
                erles.entry(room).or_insert_with(Vec::new).push(erle_db);
                questions.insert(id, question);
            }
        }
    }
    let scores = score::ask(root, &questions)?;
    let row = |(room, (t60_s, erle_min)): (usize, (f64, f64))| {
        let erle = erles.get(&room).into_iter().flatten().copied().fold(f64::INFINITY, f64::min);
        let of_it: Vec<f64> = scores.iter().filter(|(id, _)| id.starts_with(&format!("{room}-"))).map(|(_, score)| *score).collect();
        let aecmos = of_it.iter().sum::<f64>() / of_it.len().max(1) as f64;
        Row::measured(
            format!("echo, T60 {t60_s} s, 60 to 200 ms: least ERLE from second 3, mean AECMOS echo"),
            format!("{erle:.1} dB, {aecmos:.2}"),
            format!("≥ {erle_min} dB, ≥ {AECMOS_MIN}"),
            erle >= erle_min && aecmos >= AECMOS_MIN,
        )
    };
    Ok(ROOMS.into_iter().enumerate().map(row).collect())
}

/// Plays a voice in a room in which nobody else talks, and tells the echo return loss enhancement and what to ask the model.
fn echo(name: &Path, voice: &Voice, t60_s: f64, delay_ms: f64) -> Result<(f64, Question), String> {
    let samples = (ROOM_SECONDS * signal::RATE_HZ as f64) as usize;
    let speech = signal::read(&voice.file())?;
    let far: Vec<f32> = speech.into_iter().cycle().take(samples).collect();
    let scene = Scene { delay_ms, ..Scene::desk(t60_s, 1 + delay_ms as u64) };
    let recording = scene.record(&far, &[]);
    let mut apm = Apm::new(ApmSettings { echo: true, noise: NoiseLevel::Moderate, gain: false });
    let out = recording.process(&mut apm, Hint::Queues);
    let erle_db = recording.erle_db(&out, LEARNED_S, ROOM_SECONDS);
    let put = |what: &str, samples: &[f32]| {
        let path = name.with_extension(format!("{what}.wav"));
        signal::write(&path, &signal::decimate(samples), JUDGED_HZ).map(|()| path)
    };
    let (far, near, out) = (put("far", &recording.far)?, put("near", &recording.microphone)?, put("out", &out)?);
    Ok((erle_db, Question::Aecmos { far, near, out, talk: "st" }))
}
