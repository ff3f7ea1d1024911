//! The rows of calls with devices: a sound server's null sinks, speech in at one and out at another.

use crate::call::{cpu_time, delay_only};
use crate::score::{self, Recording};
use crate::signal::{self, RATE_HZ};
use crate::sound_server::{EAR, MOUTH, SECOND_EAR, SoundServer, device};
use crate::speech::Voice;
use crate::stage::{Pair, Stage};
use crate::table::Row;
use ahoy_lab::{Person, Process};
use ahoy_netlab::link::ShapeSettings;
use std::f32::consts::TAU;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
/// What the client may add to the way from one null sink to another.
const MOUTH_TO_EAR_MS_MAX: f64 = 45.0;
/// The name of that row.
pub(crate) const MOUTH_TO_EAR: &str = "mouth to ear through null sinks, less their own";
/// With all processing, which is not there to leave speech as it is, and without.
const PESQ_MIN: [f64; 2] = [3.5, 4.0];
const SILENCE_MS_MAX: f64 = 500.0;
const CPU_PERCENT_MAX: f64 = 6.0;
/// A call settles on its path and its rung before anybody speaks.
const SETTLE: Duration = Duration::from_secs(4);
/// Longest way that is looked for.
const LAG_SECONDS_MAX: f64 = 1.0;
/// How much of the speech tells what the devices take by themselves.
const PASS_THROUGH_SECONDS: f64 = 14.0;
/// When the microphone goes and comes, and when the speaker changes, in seconds of the buzz.
const UNPLUG_S: f64 = 5.0;
const PLUG_IN_S: f64 = 8.0;
const OTHER_SPEAKER_S: f64 = 14.0;
const BUZZ_SECONDS: f64 = 19.0;
/// Silence before the microphone is plugged in again.
const GONE_SECONDS: f64 = 1.5;
/// How well the recording's length tells the time.
const CLOCK_SECONDS: f64 = 0.05;
/// Louder than this, a channel sounds.
const SOUNDING: f32 = 0.01;
/// Frames in which that is looked at.
const FRAME: usize = RATE_HZ / 100;

/// All of them, with the callee's and the caller's programs on one sound server.
pub(crate) fn rows(stage: &Stage, root: &Path, voices: &[Voice; 2]) -> Result<Vec<Row>, String> {
    let folder = root.join("devices");
    let mut server = SoundServer::start(&folder)?;
    let pair = stage.pairs.first().ok_or("nobody is there")?;
    for end in [&pair.caller, &pair.callee] {
        stage.shape(end, &ShapeSettings::default());
    }
    let pair = with_sound(pair, &server);
    let mut rows = spoken_rows(&server, &pair, root, &voices[0])?;
    rows.extend(changed_rows(&mut server, &pair, &folder)?);
    for end in [&pair.caller, &pair.callee] {
        stage.shape(end, &delay_only());
    }
    Ok(rows)
}

/// The same people, who find the sound server.
fn with_sound(pair: &Pair, server: &SoundServer) -> Pair {
    let mut pair = pair.clone();
    for end in [&mut pair.caller, &mut pair.callee] {
        end.person.spot.environment.push(server.environment());
    }
    pair
}

/// Both sides of a call with devices; dropping it ends them.
struct Talk {
    call: Process,
    online: Process,
}

impl Talk {
    fn begin(pair: &Pair) -> Self {
        let devices =
            |microphone: &str, speaker: &str| ["--microphone".to_owned(), device(microphone), "--speaker".to_owned(), device(speaker)];
        let answering = devices("quiet.monitor", "ear");
        let calling = devices("microphone", "quiet");
        let callee = &pair.callee.person;
        let online = callee.online(&[&["--auto-answer"], &answering.each_ref().map(String::as_str)[..]].concat());
        let call = pair.caller.person.call(&callee.name, &calling.each_ref().map(String::as_str));
        for side in [&call, &online] {
            let _ = side.wait_for("media", LONG);
        }
        sleep(SETTLE);
        Self { call, online }
    }

    fn end(self) {
        self.call.interrupt();
        let _ = self.call.finish(LONG);
        let _ = self.online.stop();
    }
}

/// What a call adds to the sinks' own delay, how it sounds, and what it costs.
fn spoken_rows(server: &SoundServer, pair: &Pair, root: &Path, voice: &Voice) -> Result<Vec<Row>, String> {
    let speech = signal::read(&voice.file())?;
    let shortened = |seconds: f64| {
        let file = root.join("devices/speech.wav");
        let samples = ((seconds * RATE_HZ as f64) as usize).min(speech.len());
        signal::write(&file, &speech[..samples], RATE_HZ).map(|()| file)
    };
    let own_ms = {
        let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
        let (name, value) = server.environment();
        command.args(["--pass-through", "microphone", "ear"]).env(name, value);
        let _passing = Process::start("pass-through", command);
        sleep(SETTLE);
        let [mouth, ear, _] = speak(server, "pass-through", &shortened(PASS_THROUGH_SECONDS)?, PASS_THROUGH_SECONDS)?;
        median_lag_ms(&mouth, &ear)
    };
    let speech_file = shortened(voice.seconds)?;
    let processed = Spoken::over(server, pair, &speech_file, voice.seconds)?;
    let _ = process(pair, ["off"; 3]);
    let plain = Spoken::over(server, pair, &speech_file, voice.seconds)?;
    let _ = process(pair, ["on", "moderate", "on"]);
    let (all_ms, cpu) = (median_lag_ms(&processed.mouth, &processed.ear), processed.cpu_percent);
    let added_ms = all_ms - own_ms;
    let pesq = judge(root, voice, &speech, [&processed, &plain])?;
    Ok(vec![
        Row::measured(
            MOUTH_TO_EAR,
            format!("{added_ms:.0} ms ({all_ms:.0} less {own_ms:.0})"),
            format!("≤ {MOUTH_TO_EAR_MS_MAX} ms"),
            added_ms <= MOUTH_TO_EAR_MS_MAX,
        ),
        Row::measured(
            "the same call, PESQ-WB: all processing on, off",
            format!("{:.2}, {:.2}", pesq[0], pesq[1]),
            format!("≥ {}, ≥ {}", PESQ_MIN[0], PESQ_MIN[1]),
            pesq.iter().zip(PESQ_MIN).all(|(pesq, least)| *pesq >= least),
        ),
        Row::measured(
            "processor time of it, all processing on, of one core",
            format!("{cpu:.1} %"),
            format!("≤ {CPU_PERCENT_MAX} %"),
            cpu <= CPU_PERCENT_MAX,
        ),
    ])
}

/// What was said and heard in a call.
struct Spoken {
    mouth: Vec<f32>,
    ear: Vec<f32>,
    /// Of the end that took more.
    cpu_percent: f64,
}

impl Spoken {
    fn over(server: &SoundServer, pair: &Pair, speech: &Path, seconds: f64) -> Result<Self, String> {
        let talk = Talk::begin(pair);
        let pids = [talk.call.pid(), talk.online.pid()];
        let (began, before) = (Instant::now(), pids.map(cpu_time));
        let [mouth, ear, _] = speak(server, "call", speech, seconds)?;
        let lasted = began.elapsed().as_secs_f64();
        let cpu_percent = pids.iter().zip(before).map(|(pid, before)| 100.0 * (cpu_time(*pid) - before) / lasted).fold(0.0, f64::max);
        talk.end();
        Ok(Self { mouth, ear, cpu_percent })
    }
}

/// How each call sounds.
fn judge(root: &Path, voice: &Voice, speech: &[f32], calls: [&Spoken; 2]) -> Result<[f64; 2], String> {
    let mut recordings = Vec::new();
    for (number, call) in calls.into_iter().enumerate() {
        let spoken_at = signal::lag(speech, &call.mouth, 0, call.mouth.len() as i64).map_or(0, |(lag, _)| lag);
        let file = root.join(format!("devices/ear-{number}.wav"));
        signal::write(&file, &call.ear, RATE_HZ)?;
        recordings.push(Recording { id: format!("devices-{number}"), voice: 0, file, starts_after: -(spoken_at as f64) / RATE_HZ as f64 });
    }
    let scores = score::judge(root, &[voice.clone(), voice.clone()], &recordings)?;
    Ok([0, 1].map(|number| scores.get(&format!("devices-{number}")).map_or(1.0, |score| score.pesq)))
}

/// Sets the echo canceller, the noise suppression and the gain control of both; false if that fails.
fn process(pair: &Pair, [echo, noise, gain]: [&str; 3]) -> bool {
    let set = |person: &Person, key: &str, value: &str| person.run(&["settings", "set", key, value]).status.success();
    [&pair.caller.person, &pair.callee.person]
        .into_iter()
        .all(|person| set(person, "echo-canceller", echo) && set(person, "noise-suppression", noise) && set(person, "gain-control", gain))
}

/// Plays a file at the mouth and returns what was heard meanwhile.
pub(crate) fn speak(server: &SoundServer, name: &str, file: &Path, seconds: f64) -> Result<[Vec<f32>; 3], String> {
    let recording = server.record(name);
    sleep(Duration::from_millis(500));
    let _speaking = server.speak(file);
    sleep(Duration::from_secs_f64(seconds + 1.0));
    recording.finish()
}

/// The median over seconds in which there is speech.
pub(crate) fn median_lag_ms(mouth: &[f32], ear: &[f32]) -> f64 {
    let seconds = (0..mouth.len()).step_by(RATE_HZ);
    let mut lags: Vec<f64> = seconds.filter_map(|from| signal::delay_ms(mouth, from, RATE_HZ, ear, 0, LAG_SECONDS_MAX)).collect();
    lags.sort_by(f64::total_cmp);
    lags.get(lags.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A microphone that is unplugged and plugged in again, and another speaker, in mid-call.
fn changed_rows(server: &mut SoundServer, pair: &Pair, folder: &Path) -> Result<Vec<Row>, String> {
    let buzz = folder.join("buzz.wav");
    signal::write(&buzz, &buzzing(BUZZ_SECONDS), RATE_HZ)?;
    // A buzz is a noise to a suppressor, which would take it away.
    let _ = process(pair, ["on", "off", "on"]);
    let talk = Talk::begin(pair);
    let recording = server.record("changes");
    let _buzzing = server.speak(&buzz);
    let began = Instant::now();
    let until = |seconds: f64| sleep((began + Duration::from_secs_f64(seconds)).saturating_duration_since(Instant::now()));
    until(UNPLUG_S);
    server.unplug()?;
    until(PLUG_IN_S);
    server.plug_in()?;
    let plugged_in = recording.seconds();
    until(OTHER_SPEAKER_S);
    let changed = recording.seconds();
    let turned = pair.callee.person.run(&["turn", "speaker", &device("ear2")]).status.success();
    until(BUZZ_SECONDS);
    let tracks = recording.finish()?;
    let Talk { mut call, online } = talk;
    let lives = call.is_running();
    Talk { call, online }.end();
    let _ = process(pair, ["on", "moderate", "on"]);
    debug_assert!(tracks[MOUTH].iter().any(|sample| sample.abs() > SOUNDING), "the buzz is heard");
    // With the microphone gone there is to be silence at first, or nothing would come back.
    let is_gone = first_sound(&tracks[EAR], plugged_in - GONE_SECONDS).is_some_and(|at| at > plugged_in - CLOCK_SECONDS);
    let back = first_sound(&tracks[EAR], plugged_in).filter(|_| is_gone).map_or(f64::INFINITY, |at| 1_000.0 * (at - plugged_in));
    // The other speaker sounds to the end, was silent before, and counts with the first: a click that is followed by silence is no success.
    let other = first_sound(&tracks[SECOND_EAR], 0.0).is_some_and(|at| at >= changed - CLOCK_SECONDS);
    let silence = if other { longest_silence_ms(&[&tracks[EAR], &tracks[SECOND_EAR]], changed - CLOCK_SECONDS) } else { f64::INFINITY };
    let limit = format!("≤ {SILENCE_MS_MAX} ms");
    Ok(vec![
        Row::measured(
            "microphone unplugged and plugged in again: until it is heard",
            format!("{back:.0} ms"),
            &limit,
            lives && back <= SILENCE_MS_MAX,
        ),
        Row::measured(
            "speaker changed in a call: silence",
            format!("{silence:.0} ms"),
            &limit,
            turned && lives && silence <= SILENCE_MS_MAX,
        ),
    ])
}

/// A voiced sound that goes on and on.
fn buzzing(seconds: f64) -> Vec<f32> {
    const PITCH_HZ: f32 = 150.0;
    let sample = |i: usize| -> f32 {
        let phase = TAU * PITCH_HZ * (i as f32 / RATE_HZ as f32).fract();
        (1..=12).map(|harmonic| 0.12 * (harmonic as f32 * phase).sin() / harmonic as f32).sum()
    };
    (0..(seconds * RATE_HZ as f64) as usize).map(sample).collect()
}

/// When a channel first sounds from some second on.
fn first_sound(channel: &[f32], from_s: f64) -> Option<f64> {
    sounding(channel, from_s).next()
}

/// The longest time from some second on, to the end of the buzz, in which no channel sounds.
fn longest_silence_ms(channels: &[&[f32]], from_s: f64) -> f64 {
    let mut sounds: Vec<f64> = channels.iter().flat_map(|channel| sounding(channel, from_s)).collect();
    sounds.extend([from_s, BUZZ_SECONDS]);
    sounds.sort_by(f64::total_cmp);
    let frame_s = FRAME as f64 / RATE_HZ as f64;
    sounds.windows(2).map(|pair| 1_000.0 * (pair[1] - pair[0] - frame_s)).fold(0.0, f64::max)
}

/// The times of frames that sound.
fn sounding(channel: &[f32], from_s: f64) -> impl Iterator<Item = f64> {
    let first = (from_s * (RATE_HZ / FRAME) as f64).max(0.0) as usize;
    let frames = channel.chunks_exact(FRAME).enumerate().skip(first);
    frames
        .filter(|(_, frame)| frame.iter().any(|sample| sample.abs() > SOUNDING))
        .map(|(number, _)| (number * FRAME) as f64 / RATE_HZ as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_from_mouth_to_ear_is_found_in_speech_that_is_late() {
        let mut state = 1u32;
        let noise = (0..4 * RATE_HZ).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        });
        let mouth: Vec<f32> = noise.collect();
        let ear = [vec![0.0; 4_800], mouth.clone()].concat();
        assert!((median_lag_ms(&mouth, &ear) - 100.0).abs() < 0.1);
    }

    #[test]
    fn sound_is_told_from_silence() {
        let channel = [vec![0.0; RATE_HZ], buzzing(1.0), vec![0.0; RATE_HZ]].concat();
        assert!((first_sound(&channel, 0.0).unwrap() - 1.0).abs() < 0.02);
        assert_eq!(first_sound(&channel, 2.1), None);
    }

    #[test]
    fn a_click_of_the_other_speaker_does_not_end_a_silence() {
        let first = [buzzing(1.0), vec![0.0; RATE_HZ * 18]].concat();
        let mut second = [vec![0.0; RATE_HZ * 2], buzzing(17.0)].concat();
        assert!((longest_silence_ms(&[&first, &second], 0.5) - 1_000.0).abs() < 30.0);
        second[RATE_HZ..RATE_HZ + FRAME].fill(0.5);
        assert!((longest_silence_ms(&[&first, &second], 0.5) - 990.0).abs() < 30.0);
    }
}
