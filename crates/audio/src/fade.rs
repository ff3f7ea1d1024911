//! A device that begins in the middle of sound would click.

use crate::{BLOCK_SAMPLES, Block};

/// Fades the next block in.
#[derive(Debug, Default)]
pub(crate) struct FadeIn {
    is_due: bool,
}

impl FadeIn {
    pub(crate) fn begin(&mut self) {
        self.is_due = true;
    }

    pub(crate) fn apply(&mut self, block: &mut Block) {
        if std::mem::take(&mut self.is_due) {
            for (index, sample) in block.iter_mut().enumerate() {
                *sample *= index as f32 / BLOCK_SAMPLES as f32;
            }
        }
    }
}
