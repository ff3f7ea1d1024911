//! Whatever a contact's device sends, in whatever order: nothing panics, what is kept is bounded, and time goes on.

use ahoy_chat::{Author, Chat, Effect, Me, conversation_id, entry_hash};
use ahoy_protocol::ids::{ConversationId, EntryHash, PassId, PassTag};
use ahoy_protocol::mail::Pass;
use ahoy_protocol::message::{Body, ContactNews, Entry, EntryRef, Gap, Item, Parcel, Receipt, Status};
use ahoy_protocol::{DeviceKey, List, Name, NetworkId, Prose, Text, UnixMillis, UserKey};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const NETWORK: NetworkId = NetworkId([1; 20]);
const BOB: UserKey = UserKey([3; 32]);

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn me() -> Me {
    Me { network: NETWORK, name: name("alice"), user: UserKey([2; 32]), device: DeviceKey([0; 32]) }
}

fn pass() -> Pass {
    Pass { id: PassId([1; 16]), tag: PassTag([1; 16]) }
}

/// Small numbers, and those at which things overflow.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![5 => 0..9_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2), 1 => any::<u64>()]
}

fn device() -> impl Strategy<Value = DeviceKey> {
    (0..5_u8).prop_map(|number| DeviceKey([number; 32]))
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    prop_oneof![4 => Just(conversation_id(&NETWORK, &name("alice"), &name("bob"))), 1 => Just(ConversationId([9; 16]))]
}

fn entry() -> impl Strategy<Value = Entry> {
    let body = prop_oneof![
        Just(Body::Text { text: Prose::default(), reply_to: None }),
        (device(), number()).prop_map(|(author, seq)| Body::Delete { of: EntryRef { author, seq } }),
        (device(), number()).prop_map(|(author, seq)| Body::Reaction { to: EntryRef { author, seq }, emoji: Text::default(), on: true }),
    ];
    let prev = prop_oneof![Just(EntryHash([0; 32])), Just(EntryHash([1; 32]))];
    (conversation(), number(), prev, number(), body).prop_map(|(conversation, seq, prev, written, body)| Entry {
        conversation,
        seq,
        prev,
        written: UnixMillis(written),
        body,
    })
}

fn item() -> impl Strategy<Value = Item> {
    let receipt = (conversation(), device(), number(), prop::collection::vec((number(), number()), 0..4), number());
    let receipt = receipt.prop_map(|(conversation, author, have, beyond, read)| {
        Item::Receipts(List::first_of([Receipt { conversation, author, have, beyond: List::first_of(beyond), read }]))
    });
    let gap = (conversation(), device(), number(), number());
    prop_oneof![
        (number(), entry()).prop_map(|(first, entry)| Item::Entry { first, entry }),
        (device(), prop_oneof![Just("alice"), Just("bob"), Just("carol")], prop::collection::vec(entry(), 0..4))
            .prop_map(|(author, user, entries)| Item::HandedOn { author, user: name(user), entries: List::first_of(entries) }),
        receipt,
        gap.prop_map(|(conversation, author, first, last)| Item::Want(Gap { conversation, author, first, last })),
        (conversation(), any::<bool>()).prop_map(|(conversation, on)| Item::Typing { conversation, on }),
        any::<bool>().prop_map(|answer| Item::Presence { status: Status::Away, answer }),
        Just(Item::Conversation(name("carol"))),
        Just(Item::Contact(ContactNews::Pass(pass()))),
        Just(Item::Farewell),
    ]
}

/// The same cases in each run; many more of them where there is time.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("AHOY_FULL").is_some() { 20_000 } else { 200 };
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

fn drain(chat: &mut Chat) -> Vec<Effect> {
    std::iter::from_fn(|| chat.poll_effect()).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_a_device_sends_nothing_panics_and_registers_can_be_read(
        parcels in prop::collection::vec((1..5_u8, prop::collection::vec(item(), 1..6), 0..100_000_u64), 1..40),
    ) {
        let mut now = UnixMillis(1_000_000);
        let mut chat = Chat::new(me(), 1);
        chat.set_devices(now, &name("alice"), UserKey([2; 32]), &[DeviceKey([0; 32]), DeviceKey([1; 32])]);
        chat.add(now, &name("bob"), BOB, pass(), Prose::default()).unwrap();
        chat.set_devices(now, &name("bob"), BOB, &[DeviceKey([2; 32]), DeviceKey([3; 32])]);
        let bob = Author { name: name("bob"), user: BOB, device: DeviceKey([2; 32]) };
        chat.handle_contact_request(now, &bob, Prose::default(), pass());
        chat.write(now, &name("bob"), Body::Text { text: Prose::default(), reply_to: None }).unwrap();
        let mut registers = std::collections::BTreeMap::new();
        for (number, items, pause) in parcels {
            now = UnixMillis(now.0 + pause);
            let device = DeviceKey([number; 32]);
            let from = if number == 1 { Author { name: name("alice"), user: UserKey([2; 32]), device } } else { Author { device, ..bob.clone() } };
            chat.handle_parcel(now, &from, Parcel(List::first_of(items)));
            chat.mark_all_read(now, &name("bob"));
            chat.handle_timeout(now);
            for effect in drain(&mut chat) {
                match effect {
                    Effect::Append(appended) => prop_assert_eq!(entry_hash(&appended.author, &appended.entry), Ok(appended.hash)),
                    Effect::Save { key, bytes } => {
                        prop_assert!(bytes.len() < 16 * 1024, "{} has {} bytes", key, bytes.len());
                        registers.insert(key, bytes);
                    }
                    Effect::NeedEntries(need) => {
                        prop_assert!(need.first <= need.last && need.last - need.first < ahoy_chat::ENTRIES_NEEDED_MAX);
                        chat.handle_entries(now, &need, Vec::new());
                    }
                    _ => {}
                }
            }
            prop_assert!(chat.poll_timeout().is_none_or(|at| at > now));
        }
        prop_assert!(Chat::restore(now, me(), 2, registers).is_ok());
    }
}

#[test]
fn registers_that_are_damaged_are_named() {
    for (key, bytes) in [
        ("chat/thread/00", vec![1]),
        ("chat/person/bob", vec![9, 9]),
        ("chat/nothing", vec![1]),
        ("chat/vault/x", Vec::new()),
        ("x", vec![1]),
    ] {
        let error = Chat::restore(UnixMillis(0), me(), 1, [(key.to_owned(), bytes)]).expect_err("is damaged");
        assert_eq!(error.key, key);
    }
}
