//! Between the 160 samples that 10 ms of a band are and the 64 samples the echo canceller works on.
//!
//! 160 is two and a half times 64, so every other block leaves half a piece over. Half a piece of silence in front of the output
//! (2 ms) makes that up, which is the least that does: WebRTC cuts blocks of 10 ms in two first and needs a whole piece.

use crate::filter_bank::{BAND_SAMPLES, BANDS, Bands};
use sonora_aec3::block::Block as Piece;
use sonora_aec3::common::BLOCK_SIZE;

/// Samples of a band by which [`Joiner`] delays.
pub(crate) const REFRAMING_DELAY: usize = BLOCK_SIZE / 2;

/// The most that waits: a rest shorter than a piece, and a block.
const WAITING_MAX: usize = BLOCK_SIZE + BAND_SAMPLES;

/// Cuts blocks into pieces.
pub(crate) struct Cutter {
    waiting: [[f32; WAITING_MAX]; BANDS],
    count: usize,
}

impl Cutter {
    pub(crate) fn new() -> Self {
        Self { waiting: [[0.0; WAITING_MAX]; BANDS], count: 0 }
    }

    /// Adds a block; what came before it must have been taken out.
    pub(crate) fn push(&mut self, bands: &Bands) {
        debug_assert!(self.count < BLOCK_SIZE);
        for (waiting, band) in self.waiting.iter_mut().zip(bands) {
            waiting[self.count..self.count + BAND_SAMPLES].copy_from_slice(band);
        }
        self.count += BAND_SAMPLES;
    }

    /// Fills the next piece, if there is a whole one.
    pub(crate) fn pop(&mut self, piece: &mut Piece) -> bool {
        if self.count < BLOCK_SIZE {
            return false;
        }
        for (band, waiting) in self.waiting.iter_mut().enumerate() {
            piece.view_mut(band, 0).copy_from_slice(&waiting[..BLOCK_SIZE]);
            waiting.copy_within(BLOCK_SIZE..self.count, 0);
        }
        self.count -= BLOCK_SIZE;
        true
    }
}

/// Joins pieces to blocks.
pub(crate) struct Joiner {
    waiting: [[f32; WAITING_MAX]; BANDS],
    count: usize,
}

impl Joiner {
    pub(crate) fn new() -> Self {
        Self { waiting: [[0.0; WAITING_MAX]; BANDS], count: REFRAMING_DELAY }
    }

    pub(crate) fn push(&mut self, piece: &Piece) {
        for (band, waiting) in self.waiting.iter_mut().enumerate() {
            waiting[self.count..self.count + BLOCK_SIZE].copy_from_slice(piece.view(band, 0));
        }
        self.count += BLOCK_SIZE;
    }

    /// Takes a block out; as many pieces must have been pushed as a [`Cutter`] made of the blocks so far.
    pub(crate) fn pop(&mut self, bands: &mut Bands) {
        debug_assert!(self.count >= BAND_SAMPLES);
        for (waiting, band) in self.waiting.iter_mut().zip(bands) {
            band.copy_from_slice(&waiting[..BAND_SAMPLES]);
            waiting.copy_within(BAND_SAMPLES..self.count, 0);
        }
        self.count -= BAND_SAMPLES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_and_joined_is_the_same_two_milliseconds_later() {
        let (mut cutter, mut joiner, mut piece) = (Cutter::new(), Joiner::new(), Piece::new(BANDS, 1));
        let mut next = 0.0;
        let mut out = Vec::new();
        for _ in 0..20 {
            let mut bands = [[0.0; BAND_SAMPLES]; BANDS];
            for i in 0..BAND_SAMPLES {
                next += 1.0;
                bands.iter_mut().for_each(|band| band[i] = next);
            }
            cutter.push(&bands);
            while cutter.pop(&mut piece) {
                joiner.push(&piece);
            }
            joiner.pop(&mut bands);
            assert_eq!(bands[0], bands[2]);
            out.extend_from_slice(&bands[0]);
        }
        assert!(out[..REFRAMING_DELAY].iter().all(|&sample| sample == 0.0));
        assert!(out[REFRAMING_DELAY..].iter().enumerate().all(|(i, &sample)| sample == (i + 1) as f32));
    }
}
