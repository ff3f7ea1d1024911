//! The echo canceller: WebRTC's AEC3 in a three-band filter bank, with a change of cancellers that does not click.
//!
//! AEC3 aligns the loudspeaker's signal with the microphone's, subtracts a linear estimate of the echo, and suppresses what is left
//! in the spectrum. It works on the band under 8 kHz; the two bands above get one gain each.

use crate::apm::{S16_SCALE, crossfade};
use crate::filter_bank::{Analysis, BAND_SAMPLES, BANDS, Bands, FILTER_BANK_DELAY, Synthesis};
use crate::reframe::{Cutter, Joiner, REFRAMING_DELAY};
use crate::{Block, SAMPLE_RATE};
use sonora_aec3::block::Block as Piece;
use sonora_aec3::block_processor::BlockProcessor;
use sonora_aec3::common::BLOCK_SIZE;
use sonora_aec3::config::{EchoCanceller3Config, TransparentModeType};

/// Samples by which the canceller delays: the filter bank, the reframing, and the overlap of the suppressor's windows.
pub(crate) const ECHO_DELAY: usize = FILTER_BANK_DELAY + (REFRAMING_DELAY + BLOCK_SIZE) * BANDS;

/// The level, in the scale of 16-bit samples, from which the microphone is taken to clip.
const CLIPPING: f32 = 32_700.0;

/// A canceller for one loudspeaker and one microphone.
struct Canceller {
    processor: BlockProcessor,
    render: Side,
    capture: Side,
    joiner: Joiner,
    synthesis: Synthesis,
    piece: Piece,
    bands: Bands,
}

/// A signal on its way into pieces.
struct Side {
    analysis: Analysis,
    cutter: Cutter,
}

impl Side {
    fn new() -> Self {
        Self { analysis: Analysis::new(), cutter: Cutter::new() }
    }

    fn push(&mut self, scaled: &Block, bands: &mut Bands) {
        self.analysis.split(scaled, bands);
        self.cutter.push(bands);
    }
}

impl Canceller {
    fn new() -> Self {
        let processor = BlockProcessor::new(&config(), SAMPLE_RATE as usize, 1, 1);
        let mut canceller = Self {
            processor,
            render: Side::new(),
            capture: Side::new(),
            joiner: Joiner::new(),
            synthesis: Synthesis::new(),
            piece: Piece::new(BANDS, 1),
            bands: [[0.0; BAND_SAMPLES]; BANDS],
        };
        // Before it has seen a loudspeaker's signal, the processor lets everything pass undelayed; and the delay must not change later.
        canceller.processor.buffer_render(&canceller.piece);
        canceller
    }

    fn render(&mut self, scaled: &Block) {
        self.render.push(scaled, &mut self.bands);
        while self.render.cutter.pop(&mut self.piece) {
            self.processor.buffer_render(&self.piece);
        }
    }

    fn process(&mut self, scaled: &mut Block, delay_ms: u32) {
        self.processor.set_audio_buffer_delay(i32::try_from(delay_ms).unwrap_or(i32::MAX).min(DELAY_HINT_MAX_MS));
        let is_clipping = scaled.iter().any(|sample| sample.abs() >= CLIPPING);
        self.capture.push(scaled, &mut self.bands);
        while self.capture.cutter.pop(&mut self.piece) {
            self.processor.process_capture(false, is_clipping, None, &mut self.piece);
            self.joiner.push(&self.piece);
        }
        self.joiner.pop(&mut self.bands);
        self.synthesis.merge(&self.bands, scaled);
    }
}

/// How AEC3 is set up: its defaults, but for what simulated rooms showed. With the defaults a room of 0.4 s of reverberation, or clocks that are 100
/// millionths apart, leave 22 dB of echo return loss enhancement; with these, over 26 dB. More than this costs the near end in double talk.
fn config() -> EchoCanceller3Config {
    let mut config = EchoCanceller3Config::default();
    // Finds a headset in seconds; the older mode keeps suppressing for half a minute.
    config.echo_removal_control.transparent_mode = TransparentModeType::Hmm;
    // The delay is sought at an eighth of the band's rate, from 1 to 2 kHz, where speech is strong: to half a millisecond, which the filter's
    // headroom covers, in a quarter of the time that a fourth of the rate takes, and less misled by a clock's drift.
    config.delay.down_sampling_factor = 8;
    // Two candidates of a kind are a delay, while none is known. It begins to cancel sooner, and with a headset, where there is no right
    // delay, it learns in a second and not in four that there is nothing to suppress.
    config.delay.delay_selection_thresholds.initial = 2;
    // Half a piece more room in front of the direct sound: the estimate of the delay is off by that much at first.
    config.delay.delay_headroom_samples = 64;
    // The echo's tail loses a tenth of its power in 4 ms, which is a room of half a second; while the near end talks, less is assumed.
    config.ep_strength.default_len = 0.9;
    // What the linear filter is trusted to take away, as ratios of power: a filter that lags behind a clock's drift takes less.
    config.erle.max_l = 2.8;
    config.erle.max_h = 1.3;
    // How far the residual echo must lie under the microphone's signal for it to be the near end: 7 dB.
    config.suppressor.dominant_nearend_detection.enr_threshold = 0.2;
    config
}

/// The longest delay that is believed: that of the longest queue of a sound server.
const DELAY_HINT_MAX_MS: i32 = 500;

/// Blocks for which a canceller is shown the loudspeaker's signal only: the echo that comes in is of what was played so long ago, and
/// a canceller that never saw it would adapt to nonsense.
const LISTEN_BLOCKS: u32 = 20;

/// Blocks for which a canceller runs before it is heard, so that its own delay is filled.
const WARM_UP_BLOCKS: u32 = 2;

/// The canceller in the chain: one, none, or on the way from one to another.
pub(crate) struct EchoStage {
    current: Option<Box<Canceller>>,
    next: Option<Next>,
    scaled: Block,
    faded: Block,
}

/// What takes the place of the current canceller.
struct Next {
    canceller: Option<Box<Canceller>>,
    listen_blocks: u32,
    warm_up_blocks: u32,
}

impl EchoStage {
    pub(crate) fn new(is_on: bool) -> Self {
        let current = is_on.then(|| Box::new(Canceller::new()));
        Self { current, next: None, scaled: [0.0; crate::BLOCK_SAMPLES], faded: [0.0; crate::BLOCK_SAMPLES] }
    }

    /// Turns the canceller on, which is a fresh one then, or off.
    pub(crate) fn set(&mut self, is_on: bool) {
        let canceller = is_on.then(|| Box::new(Canceller::new()));
        let listen_blocks = if is_on { LISTEN_BLOCKS } else { 0 };
        self.next = Some(Next { canceller, listen_blocks, warm_up_blocks: WARM_UP_BLOCKS });
    }

    pub(crate) fn is_on(&self) -> bool {
        self.next.as_ref().map_or(self.current.is_some(), |next| next.canceller.is_some())
    }

    pub(crate) fn render(&mut self, block: &Block) {
        if self.current.is_none() && self.next.is_none() {
            return;
        }
        scale(block, &mut self.scaled, S16_SCALE);
        if let Some(canceller) = &mut self.current {
            canceller.render(&self.scaled);
        }
        if let Some(canceller) = self.next.as_mut().and_then(|next| next.canceller.as_mut()) {
            canceller.render(&self.scaled);
        }
    }

    pub(crate) fn process(&mut self, block: &mut Block, delay_ms: u32) {
        let Some(mut next) = self.next.take() else {
            run(self.current.as_deref_mut(), block, &mut self.scaled, delay_ms);
            return;
        };
        if next.listen_blocks > 0 {
            next.listen_blocks -= 1;
            self.next = Some(next);
            run(self.current.as_deref_mut(), block, &mut self.scaled, delay_ms);
            return;
        }
        self.faded = *block;
        run(self.current.as_deref_mut(), block, &mut self.scaled, delay_ms);
        run(next.canceller.as_deref_mut(), &mut self.faded, &mut self.scaled, delay_ms);
        if next.warm_up_blocks > 0 {
            next.warm_up_blocks -= 1;
            self.next = Some(next);
        } else {
            crossfade(block, &self.faded);
            self.current = next.canceller;
        }
    }
}

fn run(canceller: Option<&mut Canceller>, block: &mut Block, scaled: &mut Block, delay_ms: u32) {
    if let Some(canceller) = canceller {
        scale(block, scaled, S16_SCALE);
        canceller.process(scaled, delay_ms);
        scale(scaled, block, 1.0 / S16_SCALE);
    }
}

fn scale(from: &Block, to: &mut Block, factor: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
}
