//! The archive as its owner uses it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kill;
mod logs;
mod messages;
mod scene;
mod search;
mod transfer;
