//! What two people see of one another: contacts, receipts, typing, gaps, devices that come and go, and what an evil device can do.

mod world;

use ahoy_chat::vault::ContactState;
use ahoy_chat::{Author, Change, ChatEvent, DeliveryState, GAP_SHOWN, WriteError, conversation_id, entry_hash};
use ahoy_protocol::ids::{ConversationId, EntryHash};
use ahoy_protocol::mail::Permit;
use ahoy_protocol::message::{Body, ContactNews, Entry, EntryRef, Gap, Item, Receipt, Status};
use ahoy_protocol::{DeviceKey, List, Prose, Text, UserKey};
use std::time::Duration;
use world::{Faults, START, World, name, pass, text, user_key};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn contacts() -> World {
    let mut world = World::of_contacts(1, Faults::default());
    world.devices.iter_mut().for_each(|device| device.told.clear());
    world
}

fn author(world: &World, index: usize) -> Author {
    let me = &world.devices[index].me;
    Author { name: me.name.clone(), user: me.user, device: me.device }
}

fn told(world: &World, index: usize, wanted: impl Fn(&ChatEvent) -> bool) -> usize {
    world.devices[index].told.iter().filter(|event| wanted(event)).count()
}

fn with_bob(world: &World) -> ConversationId {
    conversation_id(&world.devices[0].me.network, &name("alice"), &name("bob"))
}

/// A chain of entries as a device would write them.
fn chain(conversation: ConversationId, author: DeviceKey, texts: &[&str]) -> Vec<Entry> {
    let mut prev = EntryHash([0; 32]);
    let mut entries = Vec::new();
    for (seq, line) in (1..).zip(texts) {
        let entry = Entry { conversation, seq, prev, written: START, body: text(line) };
        prev = entry_hash(&author, &entry).expect("is bounded");
        entries.push(entry);
    }
    entries
}

#[test]
fn a_request_that_is_accepted_makes_contacts_on_all_devices() {
    let world = World::of_contacts(1, Faults::default());
    for index in 0..4 {
        let other = if index < 2 { "bob" } else { "alice" };
        assert_eq!(world.chat(index).contact(&name(other)).unwrap().state(), ContactState::Contact, "device {index}");
    }
    assert_eq!(told(&world, 0, |event| matches!(event, ChatEvent::Accepted(who) if *who == name("bob"))), 1);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Request { .. })), 1);
}

#[test]
fn two_who_ask_each_other_are_contacts() {
    let mut world = World::new(1, Faults::default());
    let (alice, bob) = (world.add_device("alice"), world.add_device("bob"));
    world.cut(alice, 10_000);
    world.input(bob, |chat, now| chat.add(now, &name("alice"), user_key(&name("alice")), pass(3), Prose::default()).unwrap());
    world.run_for(MINUTE);
    world.input(alice, |chat, now| chat.add(now, &name("bob"), user_key(&name("bob")), pass(4), Prose::default()).unwrap());
    world.run_for(MINUTE);
    assert!(world.write(alice, "bob", text("hello")).is_some());
    assert!(world.write(bob, "alice", text("hello yourself")).is_some());
    world.run_for(MINUTE);
    assert_eq!(world.texts(alice), world.texts(bob));
    assert_eq!(world.texts(alice).len(), 2);
}

#[test]
fn nobody_writes_to_somebody_who_is_no_contact() {
    let mut world = World::new(1, Faults::default());
    let alice = world.add_device("alice");
    let mut refused = None;
    world.input(alice, |chat, now| refused = chat.write(now, &name("bob"), text("hello")).err());
    assert_eq!(refused, Some(WriteError::NotAContact));
}

#[test]
fn a_message_goes_through_its_four_states() {
    let mut world = contacts();
    world.cut(2, 60_000);
    world.cut(3, 60_000);
    let entry = world.write(0, "bob", text("hello")).unwrap();
    world.run_for(MINUTE / 2);
    assert_eq!(world.chat(0).state(&name("bob"), entry), DeliveryState::InNetwork);
    world.run_for(MINUTE);
    assert_eq!(world.chat(0).state(&name("bob"), entry), DeliveryState::Delivered);
    world.input(3, |chat, now| chat.mark_all_read(now, &name("alice")));
    world.run_for(SECOND);
    for index in 0..2 {
        assert_eq!(world.chat(index).state(&name("bob"), entry), DeliveryState::Read, "on device {index} of the author");
    }
    let state_of = |event: &ChatEvent| match event {
        ChatEvent::State { state, first: 1, last: 1, .. } => Some(*state),
        _ => None,
    };
    let states: Vec<_> = world.devices[0].told.iter().filter_map(state_of).collect();
    assert_eq!(states, [DeliveryState::Waiting, DeliveryState::InNetwork, DeliveryState::Delivered, DeliveryState::Read]);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Read { .. })), 1, "what was read on one device is read on the other");
}

#[test]
fn who_does_not_want_to_tell_what_he_read_does_not() {
    let mut world = contacts();
    world.input(2, |chat, now| chat.set_read_receipts(now, false));
    world.run_for(SECOND);
    let entry = world.write(0, "bob", text("hello")).unwrap();
    world.run_for(SECOND);
    world.input(3, |chat, now| chat.mark_all_read(now, &name("alice")));
    world.run_for(MINUTE);
    assert_eq!(world.chat(0).state(&name("bob"), entry), DeliveryState::Delivered);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Read { .. })), 1, "my own devices know");
}

#[test]
fn an_own_message_is_edited_and_deleted_and_anybody_s_reacted_to() {
    let mut world = contacts();
    let entry = world.write(0, "bob", text("helo")).unwrap();
    world.run_for(SECOND);
    let edit = Body::Edit { of: entry, text: Prose::new("hello".to_owned()).unwrap() };
    assert!(world.write(1, "bob", edit.clone()).is_some(), "by another device of the author");
    assert!(world.write(2, "alice", Body::Reaction { to: entry, emoji: Text::fitting("👋"), on: true }).is_some());
    let mut refused = None;
    world.input(2, |chat, now| refused = chat.write(now, &name("alice"), edit).err());
    assert_eq!(refused, Some(WriteError::NotYours));
    let nowhere = EntryRef { author: entry.author, seq: 9 };
    world.input(0, |chat, now| refused = chat.write(now, &name("bob"), Body::Delete { of: nowhere }).err());
    assert_eq!(refused, Some(WriteError::NoSuchMessage));
    world.run_for(SECOND);
    for index in 0..4 {
        for wanted in [Change::Edited, Change::Reacted] {
            let is_wanted =
                |event: &ChatEvent| matches!(event, ChatEvent::Changed { message, change, .. } if *message == entry && *change == wanted);
            assert_eq!(told(&world, index, is_wanted), 1, "{wanted:?} on device {index}");
        }
    }
}

#[test]
fn somebody_else_s_message_is_not_changed_by_a_forged_edit() {
    let mut world = contacts();
    let entry = world.write(2, "alice", text("I owe you nothing")).unwrap();
    world.run_for(SECOND);
    let (conversation, from) = (with_bob(&world), author(&world, 0));
    let body = Body::Edit { of: entry, text: Prose::new("I owe you a fortune".to_owned()).unwrap() };
    let forged = Entry { conversation, seq: 1, prev: EntryHash([0; 32]), written: START, body };
    world.forge(2, &from, vec![Item::Entry { first: 1, entry: forged }]);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Changed { .. })), 0);
}

#[test]
fn an_edit_waits_for_its_message() {
    let mut world = contacts();
    let entry = EntryRef { author: world.devices[0].me.device, seq: 1 };
    let (conversation, one, other) = (with_bob(&world), author(&world, 0), author(&world, 1));
    let body = Body::Edit { of: entry, text: Prose::new("hello".to_owned()).unwrap() };
    let edit = Entry { conversation, seq: 1, prev: EntryHash([0; 32]), written: START, body };
    world.forge(2, &other, vec![Item::Entry { first: 1, entry: edit }]);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Changed { .. })), 0);
    let message = chain(conversation, one.device, &["helo"]).remove(0);
    world.forge(2, &one, vec![Item::Entry { first: 1, entry: message }]);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Changed { .. })), 1);
}

#[test]
fn typing_is_seen_and_passes() {
    let mut world = contacts();
    let is = |wanted: bool| move |event: &ChatEvent| matches!(event, ChatEvent::Typing { on, .. } if *on == wanted);
    for _ in 0..20 {
        world.input(0, |chat, now| chat.set_typing(now, &name("bob"), true));
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!((told(&world, 2, is(true)), told(&world, 2, is(false))), (1, 0));
    world.run_for(MINUTE);
    assert_eq!((told(&world, 2, is(true)), told(&world, 2, is(false))), (1, 1));
    assert_eq!(world.tally["typing"], 2, "once to each device");
}

#[test]
fn presence_is_seen_within_two_seconds_and_only_by_those_who_may() {
    let mut world = contacts();
    world.input(0, |chat, now| chat.set_status(now, Status::Busy));
    world.run_for(2 * SECOND);
    assert_eq!(world.chat(2).status_of(&name("alice")), Status::Busy);
    world.cut(2, 60_000);
    assert_eq!(world.chat(2).status_of(&name("alice")), Status::Offline);
    world.run_for(MINUTE + 2 * SECOND);
    assert_eq!(world.chat(2).status_of(&name("alice")), Status::Busy, "who comes online is answered");
    world.input(0, |chat, now| chat.set_status(now, Status::Offline));
    world.input(1, |chat, now| chat.set_status(now, Status::Offline));
    world.run_for(2 * SECOND);
    assert_eq!(world.chat(2).status_of(&name("alice")), Status::Offline);
    world.cut(3, 1000);
    world.run_for(MINUTE);
    assert_eq!(world.chat(3).status_of(&name("alice")), Status::Offline, "who is invisible does not answer");
}

#[test]
fn somebody_who_vanishes_counts_as_gone_in_the_end() {
    let mut world = contacts();
    for index in 0..2 {
        world.devices[index].is_linked = false;
    }
    world.run_for(HOUR);
    assert_eq!(world.chat(2).status_of(&name("alice")), Status::Offline);
}

#[test]
fn a_new_device_has_the_contacts_and_gets_the_history_from_another() {
    let mut world = contacts();
    for number in 0..150 {
        let _ = world.write(number % 4, if number % 4 < 2 { "bob" } else { "alice" }, text(&number.to_string()));
        world.run_for(SECOND);
    }
    let late = world.add_device("bob");
    world.run_for(MINUTE);
    let _ = world.write(0, "bob", text("welcome"));
    world.run_for(10 * MINUTE);
    assert_eq!(world.chat(late).contact(&name("alice")).unwrap().state(), ContactState::Contact);
    assert_eq!(world.texts(late), world.texts(0));
    assert_eq!(world.texts(late).len(), 151);
    let live = |event: &ChatEvent| matches!(event, ChatEvent::Shown { is_history: false, .. });
    assert_eq!(told(&world, late, live), 1, "history is not news");
}

#[test]
fn a_new_device_without_another_gets_what_nobody_has_and_does_not_wait_for_the_rest() {
    let mut world = contacts();
    let _ = world.write(0, "bob", text("before"));
    world.run_for(MINUTE);
    world.remove_device(2);
    world.remove_device(3);
    let _ = world.write(0, "bob", text("to nobody"));
    world.run_for(MINUTE);
    let new = world.add_device("bob");
    world.run_for(HOUR);
    assert_eq!(world.texts(new), ["to nobody"]);
}

#[test]
fn a_removed_device_gets_nothing_more_and_says_nothing_more() {
    let mut world = contacts();
    let removed = author(&world, 3);
    world.remove_device(3);
    world.devices[0].sent.clear();
    let _ = world.write(0, "bob", text("just us"));
    world.run_for(HOUR);
    assert!(world.devices[0].sent.iter().all(|outgoing| outgoing.to != removed.device));
    let entry = chain(with_bob(&world), removed.device, &["still here"]).remove(0);
    world.forge(0, &removed, vec![Item::Entry { first: 1, entry }]);
    world.run_for(MINUTE);
    assert_eq!(world.texts(0), ["just us"]);
}

#[test]
fn a_gap_is_filled_by_whoever_has_the_entry() {
    let mut world = contacts();
    let from = author(&world, 0);
    let entries = chain(with_bob(&world), from.device, &["one", "two", "three"]);
    let items = |range: std::ops::Range<usize>| entries[range].iter().map(|entry| Item::Entry { first: 1, entry: entry.clone() }).collect();
    world.is_honest = false;
    world.devices[0].is_linked = false;
    world.crash(0);
    world.forge(2, &from, items(0..3));
    world.forge(3, &from, items(0..1));
    world.forge(3, &from, items(2..3));
    assert_eq!(world.texts(3), ["one"]);
    world.run_for(MINUTE);
    assert_eq!(world.texts(3), ["one", "two", "three"]);
    assert_eq!(told(&world, 3, |event| matches!(event, ChatEvent::Gap { .. })), 0);
}

#[test]
fn a_gap_that_nobody_fills_is_marked_and_passed_over() {
    let mut world = contacts();
    let from = author(&world, 0);
    world.is_honest = false;
    world.devices[0].is_linked = false;
    let entry = chain(with_bob(&world), from.device, &["one", "two"]).remove(1);
    world.forge(2, &from, vec![Item::Entry { first: 1, entry }]);
    world.run_for(GAP_SHOWN - SECOND);
    assert!(world.texts(2).is_empty());
    world.run_for(2 * SECOND);
    assert_eq!(world.texts(2), ["two"]);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Gap { first: 1, last: 1, .. })), 1);
}

#[test]
fn an_author_who_tells_two_stories_is_found_out() {
    let mut world = contacts();
    world.is_honest = false;
    let from = author(&world, 0);
    let conversation = with_bob(&world);
    let one = chain(conversation, from.device, &["yes", "and more"]);
    let other = chain(conversation, from.device, &["no", "and more"]);
    world.forge(2, &from, vec![Item::Entry { first: 1, entry: one[0].clone() }]);
    for _ in 0..3 {
        world.forge(2, &from, vec![Item::Entry { first: 1, entry: other[1].clone() }]);
    }
    assert_eq!(world.texts(2), ["yes"]);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Fork { .. })), 1);
}

#[test]
fn nobody_puts_words_into_the_mouth_of_another_device() {
    let mut world = contacts();
    let (alice, bob) = (world.devices[1].me.device, author(&world, 2));
    let entries = chain(with_bob(&world), alice, &["I never said that"]);
    let handed_on = Item::HandedOn { author: alice, user: name("alice"), entries: List::first_of(entries) };
    world.forge(0, &bob, vec![handed_on]);
    assert!(world.texts(0).is_empty());
}

#[test]
fn nobody_speaks_in_the_conversation_of_others() {
    let mut world = contacts();
    let carol = world.add_device("carol");
    world.befriend(carol, 0);
    world.run_for(MINUTE);
    let (conversation, from) = (with_bob(&world), author(&world, carol));
    let _ = world.write(0, "bob", text("between us"));
    world.run_for(SECOND);
    let entry = chain(conversation, from.device, &["me too"]).remove(0);
    world.devices[0].sent.clear();
    world.forge(
        0,
        &from,
        vec![
            Item::Entry { first: 1, entry },
            Item::Want(Gap { conversation, author: world.devices[0].me.device, first: 1, last: 9 }),
            Item::Conversation(name("carol")),
        ],
    );
    world.run_for(SECOND);
    assert_eq!(world.texts(0), ["between us"]);
    assert!(
        world.devices[0]
            .sent
            .iter()
            .all(|outgoing| outgoing.to != from.device || outgoing.parcel.0.iter().all(|item| matches!(item, Item::Presence { .. })))
    );
}

#[test]
fn whoever_is_blocked_is_not_heard_and_his_pass_is_revoked() {
    let mut world = contacts();
    world.input(2, |chat, now| chat.block(now, &name("alice")).unwrap());
    world.run_for(SECOND);
    assert_eq!(world.devices[2].revoked, [pass(2).id]);
    let _ = world.write(0, "bob", text("please"));
    world.run_for(HOUR);
    assert!(world.texts(2).is_empty() && world.texts(3).is_empty());
}

#[test]
fn whoever_is_removed_is_told_and_cannot_write() {
    let mut world = contacts();
    world.input(2, |chat, now| chat.remove(now, &name("alice")).unwrap());
    world.run_for(MINUTE);
    assert_eq!(told(&world, 0, |event| matches!(event, ChatEvent::Removed(_))), 1);
    let mut refused = None;
    world.input(0, |chat, now| refused = chat.write(now, &name("bob"), text("hello")).err());
    assert_eq!(refused, Some(WriteError::NotAContact));
}

#[test]
fn a_key_that_changes_stops_everything_until_it_is_trusted() {
    let mut world = contacts();
    let evil = UserKey([66; 32]);
    world.input(0, |chat, now| chat.set_devices(now, &name("bob"), evil, &[DeviceKey([66; 32])]));
    assert_eq!(told(&world, 0, |event| matches!(event, ChatEvent::KeyChanged(_))), 1);
    assert!(!world.chat(0).devices(&name("bob")).contains(&DeviceKey([66; 32])));
    let mut refused = None;
    world.input(0, |chat, now| refused = chat.write(now, &name("bob"), text("secret")).err());
    assert_eq!(refused, Some(WriteError::KeyChanged));
    world.crash(0);
    world.run_for(2 * MINUTE);
    world.input(0, |chat, now| refused = chat.write(now, &name("bob"), text("secret")).err());
    assert_eq!(refused, Some(WriteError::KeyChanged), "a restart does not make one forget");
    world.input(0, |chat, now| chat.trust_key(now, &name("bob"), user_key(&name("bob"))).unwrap());
    assert!(world.write(0, "bob", text("hello again")).is_some());
}

#[test]
fn a_contact_who_lost_everything_is_one_again_when_his_key_is_trusted() {
    let mut world = contacts();
    let back = Author { user: UserKey([9; 32]), device: DeviceKey([9; 32]), ..author(&world, 0) };
    world.input(2, |chat, now| chat.handle_contact_request(now, &back, Prose::default(), pass(9)));
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::KeyChanged(_))), 1);
    world.devices[2].sent.clear();
    world.input(2, |chat, now| {
        chat.trust_key(now, &name("alice"), back.user).unwrap();
        chat.set_devices(now, &name("alice"), back.user, &[back.device]);
    });
    let is_answer = |item: &Item| *item == Item::Contact(ContactNews::Accepted(pass(2)));
    let answered = world.devices[2].sent.iter().filter(|outgoing| outgoing.parcel.0.iter().any(is_answer));
    assert!(answered.clone().count() > 0);
    assert!(answered.clone().any(|outgoing| outgoing.to == back.device && outgoing.permit == Permit::Pass(pass(9))));
}

#[test]
fn a_former_contact_who_comes_back_under_another_key_is_shown_with_a_warning() {
    let mut world = contacts();
    world.input(2, |chat, now| chat.remove(now, &name("alice")).unwrap());
    let back = Author { user: UserKey([9; 32]), ..author(&world, 0) };
    world.input(2, |chat, now| chat.handle_contact_request(now, &back, Prose::default(), pass(9)));
    assert!(told(&world, 2, |event| matches!(event, ChatEvent::KeyChanged(_))) > 0);
    assert_eq!(told(&world, 2, |event| matches!(event, ChatEvent::Request { .. })), 1);
    assert_eq!(world.chat(2).contact(&name("alice")).unwrap().key(), Some(back.user));
}

#[test]
fn a_device_that_was_put_back_to_an_older_state_learns_of_it() {
    let mut world = contacts();
    world.is_honest = false;
    let (conversation, from, me) = (with_bob(&world), author(&world, 2), world.devices[0].me.device);
    let receipt = Receipt { conversation, author: me, have: 7, beyond: List::default(), read: 0 };
    let _ = world.write(0, "bob", text("one"));
    world.forge(0, &from, vec![Item::Receipts(List::first_of([receipt]))]);
    let is_told = |event: &ChatEvent| matches!(event, ChatEvent::Fork { entry, .. } if entry.author == me);
    assert_eq!(told(&world, 0, is_told), 1);
}

#[test]
fn wants_without_end_are_answered_with_measure() {
    let mut world = contacts();
    for _ in 0..70 {
        let _ = world.write(0, "bob", text("something"));
    }
    world.run_for(MINUTE);
    world.devices[0].sent.clear();
    let (conversation, from, me) = (with_bob(&world), author(&world, 2), world.devices[0].me.device);
    let want = Item::Want(Gap { conversation, author: me, first: 1, last: u64::MAX });
    for _ in 0..100 {
        world.forge(0, &from, vec![want.clone(); 60]);
    }
    assert!(world.devices[0].sent.len() <= ahoy_chat::WANTS_ANSWERED_MAX as usize);
}

#[test]
fn a_clock_that_was_years_ahead_puts_nothing_off_for_years() {
    let mut world = contacts();
    for index in 2..4 {
        world.devices[index].is_linked = false;
    }
    world.input(0, |chat, now| {
        let ahead = now.plus(10_000 * 24 * HOUR);
        chat.write(ahead, &name("bob"), text("from the future")).unwrap();
    });
    for index in 2..4 {
        (0..3).for_each(|mailbox| world.lose_mailbox(index, mailbox));
        world.devices[index].is_linked = true;
    }
    world.crash(0);
    world.run_for(24 * HOUR);
    assert_eq!(world.texts(2), ["from the future"]);
}

#[test]
fn what_was_read_follows_the_account() {
    let mut world = contacts();
    let _ = world.write(0, "bob", text("hello"));
    world.run_for(SECOND);
    world.input(2, |chat, now| chat.mark_all_read(now, &name("alice")));
    world.run_for(MINUTE);
    let late = world.add_device("bob");
    world.run_for(10 * MINUTE);
    assert_eq!(world.texts(late), ["hello"]);
    assert_eq!(told(&world, late, |event| matches!(event, ChatEvent::Read { upto, .. } if upto.seq == 1)), 1);
}

#[test]
fn notes_to_oneself_are_on_all_own_devices_and_nowhere_else() {
    let mut world = contacts();
    let _ = world.write(0, "alice", text("buy milk"));
    world.run_for(MINUTE);
    assert_eq!(world.texts(1), ["buy milk"]);
    assert!(world.texts(2).is_empty());
}

#[test]
fn a_thousand_messages_for_somebody_away_come_when_he_is_back() {
    let mut world = contacts();
    for index in 2..4 {
        world.devices[index].is_linked = false;
    }
    for number in 0..1200 {
        let _ = world.write(0, "bob", text(&number.to_string()));
    }
    world.run_for(HOUR);
    for index in 2..4 {
        world.cut(index, 1);
    }
    world.run_for(MINUTE);
    assert!(world.lacking(2).is_empty() && world.lacking(3).is_empty());
}
