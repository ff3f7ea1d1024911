//! A call in virtual time: a sender, a network made of rules, and a receiver whose audio clock may stumble.

use std::collections::BinaryHeap;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use ahoy_voice::testing::Random;
use ahoy_voice::{Application, BLOCK_SAMPLES, ReceiverStats, SenderSettings, VoiceReceiver, VoiceSender};

/// How long the sender is silent after its speech, in blocks.
const SILENT_BLOCKS: usize = 50;

/// What the network does with the packet of a number, sent at a time: when it arrives, once, never or several times.
pub(crate) type Network<'a> = dyn FnMut(usize, f64) -> Vec<f64> + 'a;

/// A call.
pub(crate) struct Call<'a> {
    pub(crate) settings: SenderSettings,
    pub(crate) network: Box<Network<'a>>,
    /// By how much the pull of a number is late, in milliseconds.
    pub(crate) pull_late_ms: Box<dyn FnMut(usize) -> f64 + 'a>,
}

/// What came of it.
pub(crate) struct Heard {
    pub(crate) sound: Vec<f32>,
    pub(crate) stats: ReceiverStats,
    /// The receiver's statistics at each second.
    pub(crate) each_second: Vec<ReceiverStats>,
}

impl<'a> Call<'a> {
    pub(crate) fn over(network: impl FnMut(usize, f64) -> Vec<f64> + 'a) -> Self {
        Self { settings: SenderSettings::default(), network: Box::new(network), pull_late_ms: Box::new(|_| 0.0) }
    }

    #[allow(dead_code, reason = "an example uses it, and not every test")]
    pub(crate) fn with(mut self, settings: SenderSettings) -> Self {
        self.settings = settings;
        self
    }

    pub(crate) fn with_copies(mut self, copies: usize) -> Self {
        self.settings.copies = copies;
        self
    }

    /// With a codec that costs little time, where nobody judges the sound.
    pub(crate) fn cheaply(mut self) -> Self {
        self.settings = SenderSettings { application: Application::LowDelay, bitrate: 64_000, complexity: 0, ..self.settings };
        self
    }

    /// Speaks `speech` to the end, and is silent until all of it is heard.
    pub(crate) fn speak(mut self, speech: &[f32]) -> Heard {
        let mut sender = VoiceSender::new(self.settings).expect("settings are valid");
        let mut receiver = VoiceReceiver::new().expect("a decoder can be made");
        let epoch = Instant::now();
        let at = |ms: f64| epoch + Duration::from_secs_f64(ms.max(0.0) / 1000.0);
        let mut underway: BinaryHeap<Datagram> = BinaryHeap::new();
        let (mut sound, mut each_second) = (Vec::new(), Vec::new());
        let (mut sent, mut order, mut pulls) = (0, 0, 0);
        let mut block = [0.0; BLOCK_SAMPLES];
        let silence = [0.0; SILENT_BLOCKS * BLOCK_SAMPLES];
        for (index, spoken) in speech.chunks_exact(BLOCK_SAMPLES).chain(silence.chunks_exact(BLOCK_SAMPLES)).enumerate() {
            // A block is there when its last sample is.
            let captured_ms = (index + 1) as f64 * 10.0;
            if let Some(bytes) = sender.push(spoken.try_into().expect("chunks are blocks")) {
                for arrival_ms in (self.network)(sent, captured_ms) {
                    underway.push(Datagram { arrival_ms, order, bytes: bytes.clone() });
                    order += 1;
                }
                sent += 1;
            }
            let until_ms = captured_ms + 10.0;
            loop {
                let due_ms = 13.0 + pulls as f64 * 10.0;
                let pull_ms = due_ms + (self.pull_late_ms)(pulls);
                let next_arrival_ms = underway.peek().map_or(f64::INFINITY, |datagram| datagram.arrival_ms);
                if next_arrival_ms.min(pull_ms) >= until_ms {
                    break;
                }
                if next_arrival_ms <= pull_ms {
                    let datagram = underway.pop().expect("it was just seen");
                    receiver.handle_datagram(at(datagram.arrival_ms), &datagram.bytes).expect("it is a voice packet");
                } else {
                    receiver.pull(at(pull_ms), &mut block);
                    sound.extend_from_slice(&block);
                    pulls += 1;
                    if pulls % 100 == 0 {
                        each_second.push(receiver.stats());
                        assert!(receiver.stats().buffered_ms < 4_000, "the buffer is bounded");
                    }
                }
            }
        }
        Heard { sound, stats: receiver.stats(), each_second }
    }
}

struct Datagram {
    arrival_ms: f64,
    order: usize,
    bytes: Vec<u8>,
}

impl Ord for Datagram {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.arrival_ms.total_cmp(&self.arrival_ms).then(other.order.cmp(&self.order))
    }
}
impl PartialOrd for Datagram {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Datagram {}

/// A sample speech of the project.
pub(crate) fn speech(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/speech").join(name).with_extension("wav");
    let mut reader = hound::WavReader::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (48_000, 1));
    reader.samples::<i16>().map(|sample| f32::from(sample.expect("the file is whole")) / 32_768.0).collect()
}

/// Harmonics of a voice that never pauses, for as many seconds.
pub(crate) fn hum(seconds: usize) -> Vec<f32> {
    let wave = |index: usize| {
        let phase = index as f32 % 400.0 / 400.0 * std::f32::consts::TAU;
        (1..=6).map(|harmonic| (phase * harmonic as f32).sin() * 0.15 / harmonic as f32).sum()
    };
    (0..seconds * 48_000).map(wave).collect()
}

/// The quality of what was heard: PESQ-WB, from 1 to 4.64.
pub(crate) fn quality(spoken: &[f32], heard: &[f32]) -> f32 {
    pesq::pesq_wb(&to_16_khz(spoken), &to_16_khz(heard)).expect("both are long enough")
}

/// Every third sample, after a low-pass at 7.6 kHz.
fn to_16_khz(sound: &[f32]) -> Vec<i16> {
    const REACH: isize = 48;
    let filter: Vec<f32> = (-REACH..=REACH)
        .map(|tap| {
            let x = tap as f32 * 2.0 * 7_600.0 / 48_000.0 * std::f32::consts::PI;
            let sinc = if tap == 0 { 1.0 } else { x.sin() / x };
            let window = 0.54 + 0.46 * (std::f32::consts::PI * tap as f32 / REACH as f32).cos();
            sinc * window
        })
        .collect();
    let sum: f32 = filter.iter().sum();
    (0..sound.len() as isize)
        .step_by(3)
        .map(|at| {
            let value: f32 =
                filter.iter().zip(at - REACH..).filter_map(|(weight, from)| Some(weight * sound.get(usize::try_from(from).ok()?)?)).sum();
            (value / sum * 32_767.0).clamp(-32_768.0, 32_767.0) as i16
        })
        .collect()
}

/// The bit of each packet in one of the recorded loss patterns: true is lost.
pub(crate) fn loss_pattern(name: &str) -> Vec<bool> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let text = std::fs::read_to_string(path).expect("the pattern is part of the project");
    text.bytes().filter(|byte| matches!(byte, b'0' | b'1')).map(|byte| byte == b'1').collect()
}
