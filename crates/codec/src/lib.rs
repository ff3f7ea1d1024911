//! A safe wrapper of the Opus codec.
