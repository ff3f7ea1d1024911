//! Conversations between people who each have several devices, without I/O.
//!
//! A [`Chat`] is one device's side. Each device writes a log of its own in each conversation; the entries of a log are linked by their hashes and
//! shown in their order. What happens goes in as commands (`write`, `mark_read`, `accept` …) and `handle_…`, each with `now`; what is to be
//! done comes out of [`Chat::poll_effect`]; when to call [`Chat::handle_timeout`] next, out of [`Chat::poll_timeout`].
//!
//! ```text
//! write ──► Append, Save, Send to each device of both people ─ ─ ─► Append, Save ──► Send (receipt) ─ ─ ─► delivered ─ ─ ─► read
//!             └ no receipt: NeedEntries, Send again, ever more rarely   └ a gap: Send (want) to the author, then to whoever may have it
//! ```
//! **One transaction for one input.** All effects up to the `None` of `poll_effect` belong together: either all of them are durable or none is.
//! Only then is an envelope deleted at its mailbox, an envelope posted, and an event shown. After a crash, [`Chat::restore`] goes on from what was
//! saved, and nothing is lost: what was not committed is fetched or sent again, and an entry that comes twice counts once.
//!
//! What an entry needs to count: it came from its author's own device; or a later one that did names it by its hash; or another device of
//! one's own user handed it on. An entry that contradicts the hashes is refused, and told.
//!
//! What this crate does not do: encrypt, check certificates (what goes in was checked), keep the bodies of entries, or count what is unread.

mod chance;
mod chat;
mod conversation;
mod delivery;
mod effect;
mod log;
mod outbox;
mod people;
mod presence;
mod ranges;
mod thread;
pub mod vault;

pub use chat::{Author, Chat, ContactError, Me, REGISTERS, RestoreError, WriteError};
pub use conversation::{conversation_id, entry_hash};
pub use effect::{Appended, Carried, Change, ChatEvent, DeliveryState, Effect, Need, Outgoing, Purpose, Seen, Side};
pub use vault::{Contact, ContactState};

use std::time::Duration;

/// Most conversations. Further ones are refused; a person has a few hundred.
pub const CONVERSATIONS_MAX: usize = 4096;
/// Most logs of one conversation: all devices that two people have, and as many again that they had.
pub const LOGS_MAX: usize = 64;
/// Most entries on the way to a device that has acknowledged none of them. Less than what a mailbox keeps for one contact; beyond it, entries wait
/// here until a receipt comes.
pub const IN_FLIGHT_MAX: u64 = 1000;
/// Most entries asked of the archive, or of another device, at a time.
pub const ENTRIES_NEEDED_MAX: u64 = 64;
/// Most pieces of a log that hold entries beyond a gap. An entry that would make one more is dropped, and comes again.
pub const SPANS_MAX: usize = 32;
/// Most edits, deletions and reactions of a conversation that wait for what they are about. Those beyond show when the message is read again.
pub const CHANGES_WAITING_MAX: usize = 256;
/// Most items kept in memory of somebody whose device is unknown until his devices were looked up. What is dropped comes again.
pub const ITEMS_HELD_MAX: usize = 64;

/// How long receipts wait for others that can go with them. Well below what a person notices.
pub const RECEIPT_WAIT: Duration = Duration::from_millis(200);
/// How long entries without a receipt wait until they are sent again, the first time. Each further time twice as long.
pub const RESEND_FIRST: Duration = Duration::from_secs(30);
/// As [`RESEND_FIRST`], where the mailboxes said that they keep them: what has to be made good then is the loss of mailboxes.
pub const RESEND_KEPT: Duration = Duration::from_secs(3600);
/// Longest time between two attempts to send, or to ask. Four times a day for a month still fits into a mailbox.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(6 * 3600);
/// How long after sending entries the coming online of their device makes them be sent again: they are not on their way any more.
pub const ON_THE_WAY: Duration = Duration::from_secs(5);
/// How long a gap may close by itself before it is asked for: three mailboxes deliver in no order.
pub const GAP_WAIT: Duration = Duration::from_secs(2);
/// How long entries behind a gap are held back before they are shown with a mark. Their author may be on a journey.
pub const GAP_SHOWN: Duration = Duration::from_secs(15 * 60);
/// How long other devices of the user may take to hand on history before the next is asked. Each further time twice as long.
pub const HISTORY_WAIT: Duration = Duration::from_secs(10);
/// How often history is asked for in vain before it counts as lost.
pub const HISTORY_TRIES_MAX: u32 = 20;
/// When another device of the user is told what logs there are: when it was added, and after these times again, since envelopes get lost.
pub const ANNOUNCEMENTS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(3600), Duration::from_secs(24 * 3600)];
/// When news for a contact are told again, until anything comes from him.
pub const NEWS_AGAIN: [Duration; 5] = [
    Duration::from_secs(600),
    Duration::from_secs(3600),
    Duration::from_secs(6 * 3600),
    Duration::from_secs(24 * 3600),
    Duration::from_secs(72 * 3600),
];
/// Most wants of one device of somebody else that are answered at once, and how long until there is one more. A gap is rarely longer than one answer.
pub const WANTS_ANSWERED_MAX: u32 = 32;
/// See [`WANTS_ANSWERED_MAX`].
pub const WANT_AGAIN: Duration = Duration::from_secs(1);
/// How often the devices of somebody are asked for at most.
pub const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);
/// Most strangers whose requests wait for an answer.
pub const ASKING_MAX: usize = 64;
/// How long changes of read marks wait for others before they go into the vault.
pub const READ_MARKS_WAIT: Duration = Duration::from_secs(30);
/// Most devices of contacts that are known to be online.
pub const ONLINE_MAX: usize = 512;
/// How often those who are online are told that this device is.
pub const PRESENCE_EVERY: Duration = Duration::from_secs(5 * 60);
/// How long after its last word a device counts as gone: two words may be lost.
pub const PRESENCE_LIFE: Duration = Duration::from_secs(16 * 60);
/// How often "is typing" is said while somebody types, and how long it holds.
pub const TYPING_EVERY: Duration = Duration::from_secs(4);
/// See [`TYPING_EVERY`].
pub const TYPING_LIFE: Duration = Duration::from_secs(9);
