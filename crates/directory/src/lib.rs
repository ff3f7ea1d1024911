//! What makes a record in the directory valid, and which of two wins.
//!
//! Supernodes and clients decide alike: a store lets in what the [`Gate`] lets through, a reader believes what the same gate
//! lets through, and both keep the record that [`merge()`] says. Beside that are the other decisions of the directory that
//! need no I/O: at which supernodes a device is at home ([`homes_for`]) and a user's mail is kept ([`mailboxes_for`]), what the
//! answers of several supernodes come to ([`Tally`]), what a store keeps and for how long ([`RecordStore`]), and who has asked
//! too often ([`TokenBucket`], [`Buckets`]).
//!
//! Nothing here reads a clock or a socket: `now` and the roster are arguments.

mod gate;
mod homes;
mod limit;
mod mailboxes;
mod merge;
mod reader;
mod store;
mod tally;

pub use gate::{Gate, RecordError, Verified, VerifiedPresence, VerifiedRecord, VerifiedUser, claims_of};
pub use homes::homes_for;
pub use limit::{Buckets, Rate, TokenBucket};
pub use mailboxes::mailboxes_for;
pub use merge::{Merge, Version, merge};
pub use reader::{choose_presence, choose_user};
pub use store::{PutError, RecordStore, Stored};
pub use tally::Tally;

#[cfg(test)]
mod testing;
