//! The mail that a supernode keeps, and who may write to it.
//!
//! A [`MailStore`] is a file of SQLite with the mailboxes of devices: envelopes that wait, keys with which others begin ratchets, and the
//! vaults of the devices' users. What it takes is durable once the call, or the [batch](MailStore::together) that it is part of, has
//! returned. All that it holds is sealed by devices to devices, so the file itself is not encrypted.
//!
//! Here are the rules: whom a [`Permit`](ahoy_protocol::mail::Permit) lets in, how much room each writer, device and user has
//! ([`limits`]), what is dropped when, and what two supernodes that keep mail of the same device have to tell each other. `now` is an
//! argument everywhere. Who is asking has been found out by the caller, from the handshake; that terms are a device's own is shown by
//! [`VerifiedTerms`].
//!
//! What this crate does not do: it names no socket and no roster, and does not choose the supernodes that keep a user's mail.

mod agreement;
mod error;
mod keys;
pub mod limits;
mod mail;
mod mailbox;
mod schema;
mod store;
mod sweep;
mod terms;
mod vault;
mod writer;

pub use agreement::{Offer, VaultOffer};
pub use error::{MailError, OpenError};
pub use limits::Limits;
pub use mail::Verdict;
pub use mailbox::{Mailbox, Opened};
pub use store::{MailStore, Totals};
pub use sweep::Swept;
pub use terms::{TermsError, VerifiedTerms};
pub use vault::VaultPut;

#[cfg(test)]
mod testing;
