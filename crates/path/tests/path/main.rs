//! Two path agents in a simulated network, in virtual time.
//!
//! `router` and `network` are the world: routers that translate and filter, links that delay and lose. `device` is one side of a call, with
//! voice packets at 50 a second. `call` puts two of them together and runs the clock. The rest are the tests.

#![allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]

mod bounds;
mod call;
mod device;
mod discovery;
mod hard;
mod hostile;
mod legs;
mod network;
mod router;
mod stories;
