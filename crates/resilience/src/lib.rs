//! What keeps a network from drowning itself: back-off, as values without I/O.

mod backoff;

pub use backoff::{Backoff, share_of};
