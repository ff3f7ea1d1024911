//! Double ratchets between devices, and the envelopes around them. The one crate that names vodozemac.
