//! Sound devices and WAV files.
