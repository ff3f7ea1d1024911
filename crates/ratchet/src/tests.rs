//! What the ratchets promise, on two devices that write to each other.

use super::*;
use ahoy_identity::SealSecret;
use ahoy_protocol::certificate::{DeviceCertificate, UserCertificate};
use ahoy_protocol::ids::EnvelopeId;
use ahoy_protocol::message::Item;
use ahoy_protocol::{List, Signature, UnixMillis};
use std::time::Duration;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

struct Device {
    ratchets: Ratchets,
    signing: SigningKey,
    seal: SealSecret,
}

fn device(seed: u8) -> Device {
    Device { ratchets: Ratchets::new(), signing: SigningKey::from_seed([seed; 32]), seal: SealSecret::from_bytes([seed; 32]) }
}

/// Certificates are the caller's to check; here they are empty.
fn sender() -> Sender {
    Sender {
        user: Signed::<UserCertificate>::from_parts(Vec::new(), Signature([0; 64])),
        device: Signed::<DeviceCertificate>::from_parts(Vec::new(), Signature([0; 64])),
    }
}

fn parcel(on: bool) -> Parcel {
    Parcel(List::first_of([Item::Typing { conversation: ahoy_protocol::ids::ConversationId([7; 16]), on }]))
}

impl Device {
    fn key(&self) -> DeviceKey {
        self.signing.device_key()
    }

    fn write(&mut self, to: &Device, parcel: &Parcel) -> Letter {
        self.ratchets.write(&to.key(), &self.signing, &sender(), parcel).expect("a ratchet was begun")
    }

    fn read(&mut self, from: &Device, letter: &Letter) -> Result<Parcel, RatchetError> {
        match letter {
            Letter::Opening { identity, message, .. } => self.ratchets.read_opening(&from.key(), identity, message),
            Letter::Sealed { from, message } => self.ratchets.read(from, message),
            Letter::Request { .. } => Err(RatchetError::Malformed),
        }
    }

    /// What remains if the process dies after it stored what changed.
    fn restart(&mut self, stored: &mut (Vec<u8>, BTreeMap<DeviceKey, Vec<u8>>)) {
        for change in self.ratchets.take_changes() {
            match change {
                Change::Account(bytes) => stored.0 = bytes.to_vec(),
                Change::Device(device, Some(bytes)) => drop(stored.1.insert(device, bytes.to_vec())),
                Change::Device(device, None) => drop(stored.1.remove(&device)),
            }
        }
        let devices = stored.1.iter().map(|(device, bytes)| (*device, &bytes[..]));
        self.ratchets = Ratchets::restore(&stored.0, devices).expect("it was stored");
    }
}

/// Alice and Bob, Alice having a key of Bob's.
fn pair() -> (Device, Device) {
    let (mut alice, mut bob) = (device(1), device(2));
    let keys = bob.ratchets.one_time_keys(NOW, &bob.signing, 1);
    alice.ratchets.begin(&bob.key(), &keys[0]).expect("signed by Bob");
    (alice, bob)
}

fn is_opening(letter: &Letter) -> bool {
    matches!(letter, Letter::Opening { .. })
}

#[test]
fn letters_open_a_ratchet_until_one_comes_back() {
    let (mut alice, mut bob) = pair();
    for on in [true, false] {
        let letter = alice.write(&bob, &parcel(on));
        assert!(is_opening(&letter));
        assert_eq!(bob.read(&alice, &letter), Ok(parcel(on)));
    }
    let answer = bob.write(&alice, &parcel(true));
    assert!(!is_opening(&answer));
    assert_eq!(alice.read(&bob, &answer), Ok(parcel(true)));
    assert!(!is_opening(&alice.write(&bob, &parcel(true))));
}

#[test]
fn a_letter_is_read_once() {
    let (mut alice, mut bob) = pair();
    let letter = alice.write(&bob, &parcel(true));
    assert!(bob.read(&alice, &letter).is_ok());
    assert_eq!(bob.read(&alice, &letter), Err(RatchetError::Undecryptable));
    let answer = bob.write(&alice, &parcel(true));
    assert!(alice.read(&bob, &answer).is_ok());
    assert_eq!(alice.read(&bob, &answer), Err(RatchetError::Undecryptable));
}

#[test]
fn letters_are_read_in_any_order() {
    let (mut alice, mut bob) = pair();
    let letters: Vec<_> = (0..UNREAD_KEYS_MAX).map(|nth| alice.write(&bob, &parcel(nth % 2 == 0))).collect();
    for (nth, letter) in letters.iter().enumerate().rev() {
        assert_eq!(bob.read(&alice, letter), Ok(parcel(nth % 2 == 0)), "letter {nth}");
    }
}

#[test]
fn two_who_begin_at_once_come_to_the_same_ratchet() {
    let (mut alice, mut bob) = pair();
    let key = alice.ratchets.one_time_keys(NOW, &alice.signing, 1);
    bob.ratchets.begin(&alice.key(), &key[0]).expect("signed by Alice");
    let (to_bob, to_alice) = (alice.write(&bob, &parcel(true)), bob.write(&alice, &parcel(false)));
    assert_eq!(bob.read(&alice, &to_bob), Ok(parcel(true)));
    assert_eq!(alice.read(&bob, &to_alice), Ok(parcel(false)));
    for on in [true, false, true] {
        let letter = alice.write(&bob, &parcel(on));
        assert_eq!(bob.read(&alice, &letter), Ok(parcel(on)));
        let letter = bob.write(&alice, &parcel(on));
        assert_eq!(alice.read(&bob, &letter), Ok(parcel(on)));
    }
    assert!(!is_opening(&alice.write(&bob, &parcel(true))));
}

#[test]
fn a_fallback_key_serves_many_and_is_replaced() {
    let mut bob = device(2);
    let fallback = bob.ratchets.fallback_key(NOW, &bob.signing).expect("made");
    assert_eq!(bob.ratchets.fallback_key(NOW.plus(Duration::from_secs(60)), &bob.signing), Some(fallback.clone()));
    let later = NOW.plus(FALLBACK_LIFE);
    assert_ne!(bob.ratchets.fallback_key(later, &bob.signing), Some(fallback.clone()));
    for seed in 3..6 {
        let mut other = device(seed);
        other.ratchets.begin(&bob.key(), &fallback).expect("signed by Bob");
        let letter = other.write(&bob, &parcel(true));
        assert_eq!(bob.read(&other, &letter), Ok(parcel(true)), "the fallback key before is still read");
    }
}

#[test]
fn what_was_stored_goes_on_where_it_was() {
    let (mut alice, mut bob) = pair();
    let (mut alice_stored, mut bob_stored) = Default::default();
    for round in 0..5 {
        let letter = alice.write(&bob, &parcel(round % 2 == 0));
        alice.restart(&mut alice_stored);
        assert_eq!(bob.read(&alice, &letter), Ok(parcel(round % 2 == 0)));
        bob.restart(&mut bob_stored);
        assert_eq!(bob.read(&alice, &letter), Err(RatchetError::Undecryptable), "read before it was stored");
        let answer = bob.write(&alice, &parcel(true));
        bob.restart(&mut bob_stored);
        assert_eq!(alice.read(&bob, &answer), Ok(parcel(true)));
        alice.restart(&mut alice_stored);
    }
}

#[test]
fn a_device_that_lost_everything_is_understood_again_after_a_new_beginning() {
    let (mut alice, mut bob) = pair();
    let letter = alice.write(&bob, &parcel(true));
    assert!(bob.read(&alice, &letter).is_ok());
    let answer = bob.write(&alice, &parcel(true));
    assert!(alice.read(&bob, &answer).is_ok());
    bob.ratchets = Ratchets::new();
    let lost = alice.write(&bob, &parcel(true));
    assert_eq!(bob.read(&alice, &lost), Err(RatchetError::NotBegun));
    let key = alice.ratchets.one_time_keys(NOW, &alice.signing, 1);
    bob.ratchets.begin(&alice.key(), &key[0]).expect("signed by Alice");
    let letter = bob.write(&alice, &parcel(false));
    assert_eq!(alice.read(&bob, &letter), Ok(parcel(false)));
    let answer = alice.write(&bob, &parcel(true));
    assert_eq!(bob.read(&alice, &answer), Ok(parcel(true)));
}

#[test]
fn a_key_that_the_device_did_not_sign_begins_nothing() {
    let (mut alice, mut bob, mut eve) = (device(1), device(2), device(3));
    let of_eve = eve.ratchets.one_time_keys(NOW, &eve.signing, 1);
    assert_eq!(alice.ratchets.begin(&bob.key(), &of_eve[0]), Err(RatchetError::NotSigned));
    // Eve signs what claims to be Bob's.
    let of_bob = bob.ratchets.one_time_keys(NOW, &bob.signing, 1)[0].claims().expect("a prekey");
    let forged = eve.signing.sign(&of_bob).expect("short");
    assert_eq!(alice.ratchets.begin(&eve.key(), &forged), Err(RatchetError::NotSigned));
}

#[test]
fn an_opening_under_anothers_identity_is_refused() {
    let (mut alice, mut bob) = pair();
    let eve = device(3);
    let Letter::Opening { message, .. } = alice.write(&bob, &parcel(true)) else { panic!("an opening") };
    let identity = eve.signing.sign(&RatchetIdentity { device: eve.key(), identity: eve.ratchets.identity() }).expect("short");
    assert_eq!(bob.ratchets.read_opening(&eve.key(), &identity, &message), Err(RatchetError::Undecryptable));
    let identity = eve.signing.sign(&RatchetIdentity { device: alice.key(), identity: alice.ratchets.identity() }).expect("short");
    assert_eq!(bob.ratchets.read_opening(&alice.key(), &identity, &message), Err(RatchetError::NotSigned));
}

#[test]
fn no_device_takes_the_place_of_all_others() {
    let (mut alice, bob) = (device(1), device(2));
    let mut bob = bob;
    for _ in 0..2 * SESSIONS_MAX {
        let keys = bob.ratchets.one_time_keys(NOW, &bob.signing, 1);
        alice.ratchets.begin(&bob.key(), &keys[0]).expect("signed by Bob");
        let letter = alice.write(&bob, &parcel(true));
        assert_eq!(bob.read(&alice, &letter), Ok(parcel(true)), "the newest ratchet is used");
    }
}

#[test]
fn an_envelope_opens_for_its_device_under_its_number_alone() {
    let (mut alice, bob) = pair();
    let letter = alice.write(&bob, &parcel(true));
    let id = EnvelopeId([9; 16]);
    let envelope = seal_letter(id, bob.key(), &bob.seal.public(), NOW, &letter).expect("fits");
    assert!(envelope.sealed.len().is_power_of_two());
    assert_eq!(open_envelope(&bob.seal, &envelope), Ok(letter.clone()));
    assert_eq!(open_envelope(&alice.seal, &envelope), Err(EnvelopeError::Sealed));
    let renumbered = ahoy_protocol::mail::Envelope { id: EnvelopeId([8; 16]), ..envelope.clone() };
    assert_eq!(open_envelope(&bob.seal, &renumbered), Err(EnvelopeError::Sealed));
    let redirected = ahoy_protocol::mail::Envelope { to: alice.key(), ..envelope };
    assert_eq!(open_envelope(&bob.seal, &redirected), Err(EnvelopeError::Sealed));
}

#[test]
fn bytes_that_are_no_message_change_nothing() {
    let (mut alice, mut bob) = pair();
    let letter = alice.write(&bob, &parcel(true));
    assert!(bob.read(&alice, &letter).is_ok());
    bob.ratchets.take_changes();
    for bytes in [&[][..], &[0; 3], &[0xff; 200]] {
        assert!(bob.ratchets.read(&alice.key(), bytes).is_err());
    }
    assert_eq!(bob.ratchets.take_changes(), []);
}
