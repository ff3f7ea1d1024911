//! Mail: what crosses to and from mailboxes, and what a device finds in an envelope.

use crate::Target;
use crate::samples::{NOW, samples};
use crate::wire::{blob, encoded, reads_back};
use ahoy_protocol::ids::{ConversationId, EntryHash, EnvelopeId, FileHash, MailboxSecret, PassId, PassTag, RatchetKey, VaultKey};
use ahoy_protocol::letter::{ContactRequest, Letter, RatchetIdentity, Sender};
use ahoy_protocol::mail::{
    Envelope, Given, MailForward, MailPage, MailRequest, MailResponse, MailboxTerms, Pass, Permit, Posted, Posting, Prekey, PrekeyKind,
    VaultPage,
};
use ahoy_protocol::message::{Body, ContactNews, Entry, EntryRef, FileOffer, Gap, Item, Parcel, Receipt, Status};
use ahoy_protocol::vault::VaultItem;
use ahoy_protocol::{List, Prose, Text};
use ahoy_ratchet::{Ratchets, open_envelope, seal_letter};
use std::cell::RefCell;

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "wire_envelope", run: reads_back::<Envelope>, seeds: || encoded(&[envelope()]) },
        Target { name: "wire_mailbox_terms", run: reads_back::<MailboxTerms>, seeds: || encoded(&[terms()]) },
        Target { name: "wire_prekey", run: reads_back::<Prekey>, seeds: || encoded(&[prekey()]) },
        Target { name: "wire_mail_request", run: reads_back::<MailRequest>, seeds: || encoded(&mail_requests()) },
        Target { name: "wire_mail_response", run: reads_back::<MailResponse>, seeds: || encoded(&mail_responses()) },
        Target { name: "wire_mail_forward", run: reads_back::<MailForward>, seeds: || encoded(&forwards()) },
        Target { name: "wire_letter", run: reads_back::<Letter>, seeds: || encoded(&letters()) },
        Target { name: "wire_ratchet_identity", run: reads_back::<RatchetIdentity>, seeds: || encoded(&[identity()]) },
        Target { name: "wire_contact_request", run: reads_back::<ContactRequest>, seeds: || encoded(&[contact_request()]) },
        Target { name: "wire_parcel", run: reads_back::<Parcel>, seeds: || encoded(&[parcel()]) },
        Target { name: "wire_entry", run: reads_back::<Entry>, seeds: || encoded(&entries()) },
        Target { name: "mail_envelope", run: opens, seeds: || vec![sealed().sealed.to_vec()] },
        Target { name: "mail_ratchet", run: reads, seeds: || vec![blob::<1024>(200).into_vec()] },
    ]
}

/// Whatever a mailbox hands out as an envelope.
fn opens(bytes: &[u8]) {
    if let Some(sealed) = ahoy_protocol::Blob::new(bytes.to_vec()) {
        let _ = open_envelope(&samples().seal, &Envelope { sealed, ..envelope() });
    }
}

/// Whatever a device with which there is a ratchet, or is none, sends as a message of one.
fn reads(bytes: &[u8]) {
    thread_local!(static RATCHETS: RefCell<Ratchets> = RefCell::new(begun()));
    RATCHETS.with_borrow_mut(|ratchets| {
        let device = samples().device.device_key();
        assert!(ratchets.read(&device, bytes).is_err(), "nobody wrote this");
        let own = RatchetIdentity { device, identity: RatchetKey([9; 32]) };
        assert!(ratchets.read_opening(&device, &samples().signed_by_device(&own), bytes).is_err(), "nobody wrote this");
        assert!(ratchets.take_changes().is_empty(), "what is no message changes nothing");
    });
}

/// Ratchets, with one begun.
fn begun() -> Ratchets {
    let (mut ratchets, mut others) = (Ratchets::new(), Ratchets::new());
    let keys = others.one_time_keys(NOW, &samples().device, 1);
    ratchets.begin(&samples().device.device_key(), &keys[0]).expect("the device signed it");
    ratchets.take_changes();
    ratchets
}

fn envelope() -> Envelope {
    Envelope { to: samples().device.device_key(), id: EnvelopeId([4; 16]), not_after: NOW, sealed: blob(256) }
}

/// One that opens.
fn sealed() -> Envelope {
    let Envelope { to, id, not_after, .. } = envelope();
    seal_letter(id, to, &samples().seal.public(), not_after, &letters()[0]).expect("samples fit their limits")
}

fn pass() -> Pass {
    Pass { id: PassId([5; 16]), tag: PassTag([6; 16]) }
}

fn terms() -> MailboxTerms {
    MailboxTerms {
        user: samples().user.user_key(),
        device: samples().device.device_key(),
        version: NOW.0,
        secret: MailboxSecret([7; 32]),
        revoked: List::first_of([PassId([8; 16])]),
        strangers: true,
        mailboxes: List::first_of([samples().node.node_key()]),
    }
}

fn prekey() -> Prekey {
    let (identity, key) = (RatchetKey([1; 32]), RatchetKey([2; 32]));
    Prekey { device: samples().device.device_key(), identity, key, kind: PrekeyKind::Fallback, issued: NOW }
}

fn posting(permit: Permit) -> Posting {
    Posting { permit, mailboxes: List::first_of([samples().node.node_key()]), envelope: envelope() }
}

fn item() -> VaultItem {
    VaultItem { key: VaultKey([3; 16]), version: NOW.0, sealed: blob(60) }
}

pub(crate) fn mail_requests() -> Vec<MailRequest> {
    let device = samples().device.device_key();
    let postings = [Permit::Pass(pass()), Permit::Own, Permit::Stranger].map(posting);
    vec![
        MailRequest::Open(samples().signed_by_device(&terms())),
        MailRequest::Post { keep: true, postings: List::first_of(postings) },
        MailRequest::Fetch { after: 7 },
        MailRequest::Delete(List::first_of([EnvelopeId([4; 16])])),
        MailRequest::OfferKeys { renew: false, keys: List::first_of([samples().signed_by_device(&prekey())]) },
        MailRequest::TakeKey { device, permit: Permit::Own, mailboxes: List::first_of([samples().node.node_key()]) },
        MailRequest::PutVault(List::first_of([item()])),
        MailRequest::GetVault { after: 0 },
    ]
}

pub(crate) fn mail_responses() -> Vec<MailResponse> {
    let posted = [Posted::Kept { by: 2, pushed: true }, Posted::NoMailbox, Posted::Full, Posted::NotPermitted, Posted::Unreachable];
    vec![
        MailResponse::Done,
        MailResponse::Posted(List::first_of(posted)),
        MailResponse::Mail(MailPage { envelopes: List::first_of([envelope()]), next: 8, has_more: true }),
        MailResponse::Key(Some(samples().signed_by_device(&prekey()))),
        MailResponse::Vault(VaultPage { items: List::first_of([item()]), next: 1, has_more: false }),
        MailResponse::Open { one_time_keys: 9, newer: Some(samples().signed_by_device(&terms())) },
        MailResponse::NotOpen,
        MailResponse::Wanted { envelopes: List::first_of([EnvelopeId([4; 16])]), opened: true },
    ]
}

pub(crate) fn forwards() -> Vec<MailForward> {
    let (device, from) = (samples().device.device_key(), samples().user.user_key());
    let have = MailForward::Have {
        device,
        terms: samples().signed_by_device(&terms()),
        certificate: samples().device_certificate(),
        kept: List::first_of([EnvelopeId([4; 16])]),
    };
    vec![
        MailForward::Post { keep: false, from, postings: List::first_of([posting(Permit::Own)]) },
        MailForward::TakeKey { device, from, permit: Permit::Pass(pass()) },
        have,
        MailForward::Give(List::first_of([Given { permit: Permit::Own, from, envelope: envelope() }])),
        MailForward::Vault { user: from, items: List::first_of([item()]) },
    ]
}

fn identity() -> RatchetIdentity {
    RatchetIdentity { device: samples().device.device_key(), identity: RatchetKey([1; 32]) }
}

fn contact_request() -> ContactRequest {
    ContactRequest {
        from: samples().device.device_key(),
        to: samples().name(),
        issued: NOW,
        mailboxes: List::first_of([samples().node.node_key()]),
        pass: pass(),
        text: Prose::new("It is me,\nfrom school.".to_owned()).expect("plain"),
    }
}

fn letters() -> Vec<Letter> {
    let sender = || Box::new(Sender { user: samples().user_certificate(), device: samples().device_certificate() });
    vec![
        Letter::Opening { sender: sender(), identity: samples().signed_by_device(&identity()), message: blob(200) },
        Letter::Sealed { from: samples().device.device_key(), message: blob(100) },
        Letter::Request { sender: sender(), request: samples().signed_by_device(&contact_request()) },
    ]
}

fn file() -> FileOffer {
    let name = Text::fitting("holiday.jpg");
    FileOffer { hash: FileHash([1; 32]), len: 1 << 30, name, media_type: Text::fitting("image/jpeg"), preview: blob(100) }
}

fn bodies() -> Vec<Body> {
    let of = EntryRef { author: samples().device.device_key(), seq: 3 };
    let text = || Prose::new("ahoy\tthere\n".to_owned()).expect("plain");
    vec![
        Body::Text { text: text(), reply_to: Some(of) },
        Body::Edit { of, text: text() },
        Body::Delete { of },
        Body::Reaction { to: of, emoji: Text::fitting("👍"), on: true },
        Body::File(file()),
        Body::Voice { file: file(), duration_ms: 9_000, waveform: blob(48), is_voicemail: true },
    ]
}

fn entries() -> Vec<Entry> {
    let entry = |(seq, body)| Entry { conversation: ConversationId([2; 16]), seq, prev: EntryHash([3; 32]), written: NOW, body };
    (1..).zip(bodies()).map(entry).collect()
}

fn parcel() -> Parcel {
    let (author, conversation) = (samples().device.device_key(), ConversationId([2; 16]));
    let items = [
        Item::Entry { first: 1, entry: entries()[0].clone() },
        Item::HandedOn { author, user: samples().name(), entries: List::first_of(entries()) },
        Item::Receipts(List::first_of([Receipt { conversation, author, have: 4, beyond: List::first_of([(6, 7)]), read: 3 }])),
        Item::Want(Gap { conversation, author, first: 5, last: 5 }),
        Item::Typing { conversation, on: true },
        Item::Presence { status: Status::Away, answer: true },
        Item::Conversation(samples().name()),
        Item::Contact(ContactNews::Accepted(pass())),
        Item::Contact(ContactNews::Removed),
        Item::Farewell,
    ];
    Parcel(List::first_of(items))
}
