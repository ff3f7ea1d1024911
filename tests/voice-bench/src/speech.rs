//! What is said in the calls: two voices, made by `scripts/voice-bench/prepare.py`.

use crate::signal;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A voice, and where its utterances lie.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Voice {
    /// `male` or `female`.
    pub(crate) name: String,
    /// How long it speaks, the beginning that is not judged included.
    pub(crate) seconds: f64,
    /// The beginning and the end of each utterance that is judged, in seconds.
    pub(crate) utterances: Vec<(f64, f64)>,
    #[serde(skip)]
    folder: PathBuf,
    /// The speech at 16 kHz.
    #[serde(skip)]
    pub(crate) judged: Vec<f32>,
}

impl Voice {
    /// The file to be played, 48 kHz.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.wav", self.name))
    }

    /// The same without the utterances that begin after so many seconds.
    fn shortened(mut self, seconds: f64) -> Self {
        self.utterances.retain(|(_, end)| *end <= seconds);
        self.seconds = self.seconds.min(seconds + 0.5);
        self
    }
}

/// Both voices; in a quick run only their first utterances.
pub(crate) fn load(folder: &Path, seconds_most: f64) -> Result<[Voice; 2], String> {
    let folder = folder.join("speech");
    let index = folder.join("index.json");
    let text = std::fs::read_to_string(&index).map_err(|error| format!("{}: {error}; make bench-voice makes it", index.display()))?;
    let voices: [Voice; 2] = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", index.display()))?;
    let [male, female] = voices.map(|voice| {
        let judged = signal::read(&folder.join(format!("{}-16k.wav", voice.name)))?;
        Ok::<_, String>(Voice { folder: folder.clone(), judged, ..voice }.shortened(seconds_most))
    });
    Ok([male?, female?])
}
