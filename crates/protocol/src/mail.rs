//! Mailboxes: what supernodes keep for devices that are away, and who may put something there.
//!
//! A user has up to three mailboxes. Senders write an [`Envelope`] for each device to at least two of them, devices fetch from all and delete
//! what they have. Where the device is online at the supernode, the envelope is pushed to it at once and kept until it is deleted.
//!
//! Who may write is told by a [`Permit`]: contacts hold a [`Pass`] that the owner gave them end to end, a user's own devices need none, and a
//! stranger may leave one short request.

use crate::certificate::DeviceCertificate;
use crate::ids::{DeviceKey, EnvelopeId, MailboxSecret, NodeKey, PassId, PassTag, RatchetKey, UserKey};
use crate::record::MAILBOXES_MAX;
use crate::signed::{SIGNED_OVERHEAD_BYTES, Signable, Signed};
use crate::time::UnixMillis;
use crate::vault::{VAULT_ITEMS_SENT_MAX, VaultItem};
use crate::wire::{Blob, List, Wire};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest sealed content of an envelope, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// Longest sealed content of a stranger's envelope, in bytes: who it is, and a few lines.
pub const STRANGER_BYTES_MAX: usize = 2 * 1024;
/// Least size that sealed content is padded to; beyond it, to the next power of two. Sizes then say little.
pub const PADDED_BYTES_MIN: usize = 256;
/// How long an envelope is kept at most.
pub const ENVELOPE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most envelopes in one request or answer.
pub const ENVELOPES_SENT_MAX: usize = 64;
/// Most bytes of sealed content in one request or answer, so that a few large envelopes do not make it too long.
pub const ENVELOPES_SENT_BYTES_MAX: usize = 192 * 1024;
/// Most envelopes named in one request.
pub const ENVELOPES_NAMED_MAX: usize = 512;
/// Most passes that a user has revoked and that could still be used.
pub const PASSES_REVOKED_MAX: usize = 256;
/// Most one-time keys that a device has at one mailbox.
pub const ONE_TIME_KEYS_MAX: usize = 50;

/// Something for one device, which alone can open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The device.
    pub to: DeviceKey,
    /// Its number.
    pub id: EnvelopeId,
    /// Kept until then at most, and [`ENVELOPE_LIFE`] at most.
    pub not_after: UnixMillis,
    /// A [`Letter`](crate::letter::Letter), sealed to the device and padded.
    pub sealed: Blob<ENVELOPE_BYTES_MAX>,
}

/// A contact's right to write to a user's mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pass {
    /// Its number, by which it is counted and revoked.
    pub id: PassId,
    /// What makes it genuine.
    pub tag: PassTag,
}

/// Why an envelope should be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permit {
    /// The owner of the mailbox gave this pass.
    Pass(Pass),
    /// It is from another device of the same user.
    Own,
    /// A stranger asks for something: [`STRANGER_BYTES_MAX`] at most, and one at a time.
    Stranger,
}

/// An envelope on its way to the mailboxes of its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    /// Why it should be taken.
    pub permit: Permit,
    /// The supernodes that are to keep it.
    pub mailboxes: List<NodeKey, MAILBOXES_MAX>,
    /// What is to be kept.
    pub envelope: Envelope,
}

/// What a user says of his mailboxes. Signed by one of his devices; the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxTerms {
    /// The user.
    pub user: UserKey,
    /// The device that signs, and for which a mailbox is opened by this.
    pub device: DeviceKey,
    /// Counts up with every change by any device of the user: Unix milliseconds, or one more than the last.
    pub version: u64,
    /// Makes and checks passes.
    pub secret: MailboxSecret,
    /// Passes that count no more.
    pub revoked: List<PassId, PASSES_REVOKED_MAX>,
    /// Whether strangers may leave requests.
    pub strangers: bool,
    /// The supernodes that keep the user's mail, as in his record.
    pub mailboxes: List<NodeKey, MAILBOXES_MAX>,
}

impl Wire for MailboxTerms {
    const NAME: &'static str = "mailbox terms";
    const BYTES_MAX: usize = 8 * 1024;
}

impl Signable for MailboxTerms {
    const CONTEXT: &'static str = "ahoy/mailbox-terms/1";
}

/// Whether a key may be used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PrekeyKind {
    /// It is given out once.
    OneTime,
    /// It is given out when there are no others.
    Fallback,
}

/// A key with which a double ratchet towards a device is begun while the device is away. Signed by the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prekey {
    /// The device.
    pub device: DeviceKey,
    /// Its identity key in ratchets.
    pub identity: RatchetKey,
    /// The key.
    pub key: RatchetKey,
    /// How often it is given out.
    pub kind: PrekeyKind,
    /// When it was made.
    pub issued: UnixMillis,
}

impl Wire for Prekey {
    const NAME: &'static str = "prekey";
    const BYTES_MAX: usize = 128;
}

impl Signable for Prekey {
    const CONTEXT: &'static str = "ahoy/prekey/1";
}

/// What a mailbox answers about one envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Posted {
    /// So many mailboxes keep it, of those that could be asked.
    Kept {
        /// Mailboxes that keep it.
        by: u8,
        /// Whether the device has it, too: it was pushed, and its end acknowledged it.
        pushed: bool,
    },
    /// No mailbox of this device is known where it was to go: it was never there, or will be in a moment.
    NoMailbox,
    /// There is no room: the sender's share or the mailbox is full.
    Full,
    /// The permit does not count.
    NotPermitted,
    /// Nobody could be asked.
    Unreachable,
}

/// What a device asks a supernode about mail. The asker's key is the one it showed in the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailRequest {
    /// Opens the asker's mailbox here, or changes its terms.
    Open(Signed<MailboxTerms>),
    /// Keeps envelopes, here and at the other mailboxes that each names. With `keep` false they are for a device that is online, or for nobody.
    Post {
        /// Whether they are kept.
        keep: bool,
        /// The envelopes.
        postings: List<Posting, ENVELOPES_SENT_MAX>,
    },
    /// Gives the envelopes for the asker, the oldest first, those up to this number left out.
    Fetch {
        /// [`MailPage::next`] of the last answer, 0 at first.
        after: u64,
    },
    /// The asker has these.
    Delete(List<EnvelopeId, ENVELOPES_NAMED_MAX>),
    /// Keys of the asker for others to take, in the place of those before if `renew`.
    OfferKeys {
        /// Whether the ones before count no more.
        renew: bool,
        /// The keys.
        keys: List<Signed<Prekey>, ONE_TIME_KEYS_MAX>,
    },
    /// Takes a key of a device. The permit is as for an envelope; strangers get none.
    TakeKey {
        /// Whose.
        device: DeviceKey,
        /// Why.
        permit: Permit,
        /// Where it may be had.
        mailboxes: List<NodeKey, MAILBOXES_MAX>,
    },
    /// Keeps items of the asker's user. Of two with the same key, the one of the higher version stays.
    PutVault(List<VaultItem, VAULT_ITEMS_SENT_MAX>),
    /// Gives the items of the asker's user that changed after this number.
    GetVault {
        /// [`VaultPage::next`] of the last answer, 0 at first.
        after: u64,
    },
}

/// Answer to a [`MailRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailResponse {
    /// Done.
    Done,
    /// What became of each posting, in their order.
    Posted(List<Posted, ENVELOPES_SENT_MAX>),
    /// Envelopes.
    Mail(MailPage),
    /// A key; `None`: there is none to be had.
    Key(Option<Signed<Prekey>>),
    /// Items.
    Vault(VaultPage),
    /// The mailbox is open; so many one-time keys are left.
    Open {
        /// One-time keys that are left here.
        one_time_keys: u8,
        /// The newest terms known, where they are not the asker's.
        newer: Option<Signed<MailboxTerms>>,
    },
    /// The asker, or the device that was meant, has no mailbox here: [`MailRequest::Open`] first.
    NotOpen,
    /// The answer to [`MailForward::Have`].
    Wanted {
        /// Those of the envelopes that were offered that are neither here nor were deleted here.
        envelopes: List<EnvelopeId, ENVELOPES_NAMED_MAX>,
        /// Whether the mailbox was not there before: then nothing else of it is either.
        opened: bool,
    },
}

/// Some of the envelopes that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailPage {
    /// The envelopes, the oldest first.
    pub envelopes: List<Envelope, ENVELOPES_SENT_MAX>,
    /// Where the next page begins.
    pub next: u64,
    /// Whether there are more.
    pub has_more: bool,
}

/// Some of the items of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultPage {
    /// The items, in the order in which they changed.
    pub items: List<VaultItem, VAULT_ITEMS_SENT_MAX>,
    /// Where the next page begins.
    pub next: u64,
    /// Whether there are more.
    pub has_more: bool,
}

/// An envelope that one mailbox gives another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Why the giver took it.
    pub permit: Permit,
    /// The user of the device that wrote it, where it matters.
    pub from: UserKey,
    /// What is to be kept.
    pub envelope: Envelope,
}

/// What supernodes that keep mail of the same users say to one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailForward {
    /// Keeps envelopes that a device gave another supernode. The permit [`Permit::Own`] and that of a stranger are vouched for by it.
    Post {
        /// Whether they are kept.
        keep: bool,
        /// The user of the device that wrote them, where it matters.
        from: UserKey,
        /// The envelopes.
        postings: List<Posting, ENVELOPES_SENT_MAX>,
    },
    /// Takes a key for a device of this user.
    TakeKey {
        /// Of whom.
        device: DeviceKey,
        /// For whom.
        from: UserKey,
        /// Why.
        permit: Permit,
    },
    /// Opens a device's mailbox or changes its terms, and offers envelopes for it: the answer tells which of them are wanted.
    ///
    /// What the device deleted is not told: an evil supernode would say that of everything. The device deletes at each mailbox itself.
    Have {
        /// The device.
        device: DeviceKey,
        /// Its terms.
        terms: Signed<MailboxTerms>,
        /// By which they are checked.
        certificate: Signed<DeviceCertificate>,
        /// Envelopes that are kept.
        kept: List<EnvelopeId, ENVELOPES_NAMED_MAX>,
    },
    /// Envelopes that were wanted. They are taken as if they came from those who wrote them.
    Give(List<Given, ENVELOPES_SENT_MAX>),
    /// Items of a user's vault that changed.
    Vault {
        /// Whose.
        user: UserKey,
        /// The items.
        items: List<VaultItem, VAULT_ITEMS_SENT_MAX>,
    },
}

/// Longest of the messages above that carry envelopes or vault items.
pub const MAIL_BYTES_MAX: usize = ENVELOPES_SENT_BYTES_MAX + ENVELOPE_BYTES_MAX / 4;

impl Wire for MailRequest {
    const NAME: &'static str = "mail request";
    const BYTES_MAX: usize = MAIL_BYTES_MAX;
}

impl Wire for MailResponse {
    const NAME: &'static str = "mail response";
    const BYTES_MAX: usize = MAIL_BYTES_MAX;
}

impl Wire for MailForward {
    const NAME: &'static str = "forwarded mail";
    const BYTES_MAX: usize = MAIL_BYTES_MAX;
}

impl Wire for Envelope {
    const NAME: &'static str = "envelope";
    const BYTES_MAX: usize = ENVELOPE_BYTES_MAX + SIGNED_OVERHEAD_BYTES;
}

/// The size that `len` bytes of content are padded to: powers of two, [`PADDED_BYTES_MIN`] at least.
#[must_use]
pub fn padded_len(len: usize) -> usize {
    len.max(PADDED_BYTES_MIN).next_power_of_two()
}
