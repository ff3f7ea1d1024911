//! How good recordings are: PESQ here, PLCMOS and STOI by `scripts/voice-bench/score.py`.
//!
//! Each utterance is judged by itself, at 16 kHz, with a little of the silence around it, and counts by its length. Where it lies in the recording is
//! known from the times at which the first samples were sent and played, and found to the sample by cross-correlation: first for the recording as a
//! whole, then for the utterance, since the jitter buffer changes its delay. Delay itself does not count.

use crate::signal::{self, JUDGED_HZ};
use crate::speech::Voice;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Silence on either side of an utterance that is judged with it.
const MARGIN_SECONDS: f64 = 0.2;
/// Between what is spoken and what is heard.
const DELAY_SECONDS_MAX: f64 = 2.0;
/// How far an utterance may lie from where the recording as a whole says.
const WANDER_SECONDS: f64 = 0.3;
/// A recording is told from noise by a peak that stands out so far.
const PEAK_MIN: f32 = 8.0;
/// The cores of the smallest machine that the bench runs on.
const THREADS: usize = 2;

/// A recording to be judged.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    /// Names it among all.
    pub(crate) id: String,
    /// Which voice was sent.
    pub(crate) voice: usize,
    pub(crate) file: PathBuf,
    /// From the first sample sent to the first of the file, in seconds.
    pub(crate) starts_after: f64,
}

/// What came out.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Score {
    pub(crate) pesq: f64,
    pub(crate) plcmos: f64,
    pub(crate) stoi: f64,
    /// Mouth to ear, in milliseconds, as the cross-correlation says.
    pub(crate) delay_ms: f64,
}

/// An utterance cut out.
struct Piece {
    recording: String,
    weight: f64,
    pesq: f64,
    delay_ms: f64,
    reference: PathBuf,
    degraded: PathBuf,
}

/// What a model is asked.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Question {
    /// How plausible repaired speech sounds.
    Plcmos { degraded: PathBuf },
    /// How well it is understood.
    Stoi { reference: PathBuf, degraded: PathBuf },
    /// How much echo is left, while only the far end talks (`st`) or both do (`dt`).
    Aecmos { far: PathBuf, near: PathBuf, out: PathBuf, talk: &'static str },
}

#[derive(Serialize)]
struct Task<'a> {
    id: &'a str,
    #[serde(flatten)]
    question: &'a Question,
}

/// Judges all recordings. One that cannot be judged, because nothing is in it, has the scores of silence.
pub(crate) fn judge(root: &Path, voices: &[Voice; 2], recordings: &[Recording]) -> Result<BTreeMap<String, Score>, String> {
    let folder = root.join("pieces");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let pieces = cut_all(&folder, voices, recordings);
    let scores = score_pieces(root, &pieces)?;
    let mut judged: BTreeMap<String, Score> = recordings.iter().map(|recording| (recording.id.clone(), Score::silence())).collect();
    for recording in recordings {
        let of_it: Vec<(usize, &Piece)> = pieces.iter().enumerate().filter(|(_, piece)| piece.recording == recording.id).collect();
        let weight: f64 = of_it.iter().map(|(_, piece)| piece.weight).sum();
        if of_it.is_empty() || weight <= 0.0 {
            continue;
        }
        let mean =
            |value: &dyn Fn(usize, &Piece) -> f64| of_it.iter().map(|(i, piece)| piece.weight * value(*i, piece)).sum::<f64>() / weight;
        let by = |kind: &str, i: usize| scores.get(&format!("{kind}-{i}")).copied().unwrap_or(f64::NAN);
        let score = Score {
            pesq: mean(&|_, piece| piece.pesq),
            plcmos: mean(&|i, _| by("plcmos", i)),
            stoi: mean(&|i, _| by("stoi", i)),
            delay_ms: mean(&|_, piece| piece.delay_ms),
        };
        judged.insert(recording.id.clone(), score);
    }
    Ok(judged)
}

impl Score {
    /// What a recording without speech gets.
    fn silence() -> Self {
        Self { pesq: 1.0, plcmos: 1.0, stoi: 0.0, delay_ms: f64::NAN }
    }
}

fn cut_all(folder: &Path, voices: &[Voice; 2], recordings: &[Recording]) -> Vec<Piece> {
    let queue = Mutex::new(recordings.iter());
    let pieces = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some(recording) = queue.lock().expect("nobody panics with the queue in hand").next() else { return };
                    match cut(folder, &voices[recording.voice], recording) {
                        Ok(cut) => pieces.lock().expect("nobody panics with the pieces in hand").extend(cut),
                        Err(error) => eprintln!("  {}: {error}", recording.id),
                    }
                }
            });
        }
    });
    pieces.into_inner().expect("nobody panicked")
}

fn cut(folder: &Path, voice: &Voice, recording: &Recording) -> Result<Vec<Piece>, String> {
    let heard = signal::decimate(&signal::read(&recording.file)?);
    let samples = |seconds: f64| (seconds * JUDGED_HZ as f64).round() as i64;
    // Where the first sample sent would lie in the recording, if it took no time.
    let sent_at = samples(-recording.starts_after);
    let spoken = &voice.judged[..(samples(voice.seconds) as usize).min(voice.judged.len())];
    let (whole, peak) =
        signal::lag(spoken, &heard, sent_at - samples(0.05), sent_at + samples(DELAY_SECONDS_MAX)).ok_or("there is nothing in it")?;
    if peak < PEAK_MIN {
        return Err(format!("the speech is not in it (peak {peak:.1})"));
    }
    let mut pieces = Vec::new();
    for (number, (begin, end)) in voice.utterances.iter().enumerate() {
        let (from, to) = (samples(begin - MARGIN_SECONDS).max(0), samples(end + MARGIN_SECONDS));
        let length = (to - from) as usize;
        let reference = signal::window(&voice.judged, from, length);
        let wander = samples(WANDER_SECONDS);
        let around = signal::window(&heard, from + whole - wander, length + 2 * wander as usize);
        let (lag, _) = signal::lag(&reference, &around, 0, 2 * wander).ok_or("there is nothing in it")?;
        let degraded = signal::window(&around, lag, length);
        let pesq = pesq::pesq_wb(&signal::as_i16(&reference), &signal::as_i16(&degraded)).map_or(1.0, f64::from);
        let name = |what: &str| folder.join(format!("{}-{number}-{what}.wav", recording.id));
        let piece = Piece {
            recording: recording.id.clone(),
            weight: end - begin,
            pesq,
            delay_ms: (whole + lag - wander - sent_at) as f64 * 1_000.0 / JUDGED_HZ as f64,
            reference: name("sent"),
            degraded: name("heard"),
        };
        signal::write(&piece.reference, &reference, JUDGED_HZ)?;
        signal::write(&piece.degraded, &degraded, JUDGED_HZ)?;
        pieces.push(piece);
    }
    Ok(pieces)
}

fn score_pieces(root: &Path, pieces: &[Piece]) -> Result<BTreeMap<String, f64>, String> {
    let questions = pieces.iter().enumerate().flat_map(|(i, Piece { reference, degraded, .. })| {
        let stoi = Question::Stoi { reference: reference.clone(), degraded: degraded.clone() };
        [(format!("plcmos-{i}"), Question::Plcmos { degraded: degraded.clone() }), (format!("stoi-{i}"), stoi)]
    });
    ask(root, &questions.collect())
}

/// Asks the models, and returns what each question was answered.
pub(crate) fn ask(root: &Path, questions: &BTreeMap<String, Question>) -> Result<BTreeMap<String, f64>, String> {
    let tasks: Vec<Task<'_>> = questions.iter().map(|(id, question)| Task { id, question }).collect();
    let (asked, answered) = (root.join("tasks.json"), root.join("scores.json"));
    let wrong = |error: std::io::Error| format!("{}: {error}", asked.display());
    std::fs::write(&asked, serde_json::to_string(&tasks).map_err(|error| error.to_string())?).map_err(wrong)?;
    let mut python = Command::new(root.join("venv/bin/python"));
    python.arg("scripts/voice-bench/score.py").arg(&asked).arg(&answered);
    let status = python.status().map_err(|error| format!("{python:?}: {error}; make bench-voice makes it"))?;
    if !status.success() {
        return Err(format!("{python:?} failed"));
    }
    let text = std::fs::read_to_string(&answered).map_err(|error| format!("{}: {error}", answered.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", answered.display()))
}
