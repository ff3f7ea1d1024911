//! What people see follows from the entries, whatever the order in which they come.

use crate::scene::*;
use ahoy_archive::{Append, Delivery, Window};
use ahoy_protocol::{DeviceKey, UnixMillis};

#[test]
fn messages_of_several_devices_stand_by_time_and_pages_meet() {
    let mut scene = Scene::new();
    let texts: Vec<String> = (1..=50).map(|number| format!("message {number}")).collect();
    let entries = texts.iter().enumerate().map(|(index, said)| {
        let (author, at) = ([ALICE, BOB][index % 2], 1_000 + index as u64);
        text(author, index as u64 / 2 + 1, at, said)
    });
    scene.write(entries.rev());
    assert_eq!(scene.texts(), texts);
    assert_eq!(scene.archive.count(&CONVERSATION).unwrap(), 50);

    let newest = scene.archive.page(&CONVERSATION, Window::Newest, 20).unwrap();
    assert!(newest.has_more);
    assert_eq!(newest.messages.iter().map(said).collect::<Vec<_>>(), texts[30..]);
    let before = scene.archive.page(&CONVERSATION, Window::Before(newest.messages[0].place), 30).unwrap();
    assert!(!before.has_more);
    assert_eq!(before.messages.iter().map(said).collect::<Vec<_>>(), texts[..30]);
    let oldest = scene.archive.page(&CONVERSATION, Window::Oldest, 30).unwrap();
    assert_eq!(oldest.messages, before.messages);
    let after = scene.archive.page(&CONVERSATION, Window::After(before.messages[29].place), 20).unwrap();
    assert_eq!(after.messages, newest.messages);
}

#[test]
fn an_entry_behind_a_gap_is_seen_when_it_is_shown() {
    let mut scene = Scene::new();
    scene.write([text(BOB, 1, 10, "one"), Append { is_shown: false, ..text(BOB, 3, 30, "three") }]);
    assert_eq!(scene.texts(), ["one"]);
    assert!(scene.found("three").is_empty());
    scene.commit(|batch| {
        batch.append(text(BOB, 2, 20, "two"));
        batch.show(range(BOB, 2, u64::MAX));
    });
    assert_eq!(scene.texts(), ["one", "two", "three"]);
}

#[test]
fn the_order_within_a_log_holds_whatever_its_clock_says() {
    let mut scene = Scene::new();
    // The clock of the author is set back, and then runs an hour ahead of the receiver's.
    let ahead = |seq, said| Append { received: UnixMillis(300), ..text(BOB, seq, 3_600_000, said) };
    scene.write([text(BOB, 1, 100, "one"), text(BOB, 2, 50, "two"), ahead(4, "four"), ahead(5, "five"), text(ALICE, 1, 400, "answer")]);
    scene.write([ahead(3, "three")]);
    assert_eq!(scene.texts(), ["one", "two", "three", "four", "five", "answer"]);
}

#[test]
fn the_same_entries_give_the_same_messages_in_every_order() {
    let of = entry_ref(BOB, 1);
    let entries = [
        text(BOB, 1, 10, "wrng"),
        edit(BOB, 2, 20, of, "wrong"),
        edit(BOB, 3, 30, of, "right"),
        react(ALICE, 1, 40, of, "👍", true),
        react(ALICE_2, 1, 50, of, "👍", false),
        react(ALICE, 2, 60, of, "🎉", true),
        text(ALICE, 3, 70, "taken back"),
        delete(ALICE_2, 2, 80, entry_ref(ALICE, 3)),
        edit(ALICE, 4, 90, entry_ref(ALICE, 3), "after all"),
    ];
    let mut forwards = Scene::new();
    forwards.write(entries.clone());
    let expected = forwards.messages();
    assert_eq!(forwards.texts(), ["right", "deleted"]);
    assert_eq!(expected[0].edited, Some(UnixMillis(30)));
    assert_eq!(expected[0].reactions.len(), 1);
    assert_eq!((expected[0].reactions[0].emoji.as_str(), &expected[0].reactions[0].users), ("🎉", &vec![name("alice")]));

    for start in 0..entries.len() {
        let mut scene = Scene::new();
        let mut turned = entries.clone();
        turned.rotate_left(start);
        scene.write(turned.into_iter().rev());
        assert_eq!(scene.messages(), expected, "turned by {start}");
    }
}

#[test]
fn nobody_changes_or_deletes_what_somebody_else_wrote() {
    let mut scene = Scene::new();
    let of = entry_ref(ALICE, 1);
    scene.write([text(ALICE, 1, 10, "mine"), edit(BOB, 1, 20, of, "yours"), delete(BOB, 2, 30, of)]);
    assert_eq!(scene.texts(), ["mine"]);
    scene.write([edit(ALICE_2, 1, 40, of, "still mine")]);
    assert_eq!(scene.texts(), ["still mine"]);
}

#[test]
fn what_was_deleted_is_neither_shown_nor_found() {
    let mut scene = Scene::new();
    scene.write([text(ALICE, 1, 10, "a secret"), text(ALICE, 2, 20, "a mistake")]);
    scene.write([delete(ALICE, 3, 30, entry_ref(ALICE, 1)), edit(ALICE, 4, 40, entry_ref(ALICE, 2), "a correction")]);
    assert_eq!(scene.texts(), ["deleted", "a correction"]);
    assert!(scene.found("secret").is_empty());
    assert!(scene.found("mistake").is_empty());
    assert_eq!(scene.found("correction"), ["a correction"]);
    scene.archive.check().unwrap();
}

#[test]
fn what_is_about_an_entry_that_never_comes_does_no_harm() {
    let mut scene = Scene::new();
    let nowhere = entry_ref(DeviceKey([200; 32]), u64::MAX);
    scene.write([delete(BOB, 1, 10, nowhere), react(BOB, 2, u64::MAX, nowhere, "👻", true), edit(BOB, 3, 30, nowhere, "boo")]);
    scene.write([Append { received: UnixMillis(40), ..text(BOB, u64::MAX, u64::MAX, "at the end of time") }]);
    assert_eq!(scene.texts(), ["at the end of time"]);
    assert_eq!(scene.archive.unread(&name("alice")).unwrap().get(&CONVERSATION), None, "such a number is no real one");
}

#[test]
fn unread_messages_are_those_of_others_beyond_the_mark() {
    let mut scene = Scene::new();
    let unread = |scene: &Scene| scene.archive.unread(&name("alice")).unwrap().get(&CONVERSATION).copied().unwrap_or_default();
    scene.write((1..=5).map(|seq| text(BOB, seq, seq, "hello")));
    scene.write([text(ALICE, 1, 6, "hello"), text(ALICE_2, 1, 7, "hello"), react(BOB, 6, 8, entry_ref(ALICE, 1), "👋", true)]);
    assert_eq!(unread(&scene), 5);
    scene.commit(|batch| batch.mark_read(CONVERSATION, BOB, 3));
    assert_eq!(unread(&scene), 2);
    scene.commit(|batch| batch.mark_read(CONVERSATION, BOB, 1));
    assert_eq!(unread(&scene), 2, "a mark does not go back");
    scene.write([delete(BOB, 7, 9, entry_ref(BOB, 4))]);
    assert_eq!(unread(&scene), 1);
}

#[test]
fn the_list_of_conversations_has_titles_drafts_and_last_messages() {
    let mut scene = Scene::new();
    scene.commit(|batch| {
        batch.append(text(BOB, 1, 10, "hello"));
        batch.set_draft(CONVERSATION, "hello to y");
    });
    let scene = scene.reopened();
    let conversations = scene.archive.conversations(&name("alice")).unwrap();
    let [conversation] = conversations.as_slice() else { panic!("there is one conversation") };
    assert_eq!((conversation.title.as_str(), conversation.draft.as_str(), conversation.unread), ("bob", "hello to y", 1));
    assert_eq!(conversation.last.as_ref().map(said).as_deref(), Some("hello"));
}

#[test]
fn the_state_of_an_own_message_goes_forward_only() {
    let mut scene = Scene::new();
    let state = |scene: &Scene| scene.archive.message(&CONVERSATION, &entry_ref(ALICE, 1)).unwrap().unwrap().state;
    scene.write([text(ALICE, 1, 10, "hello")]);
    assert_eq!(state(&scene), Delivery::Waiting);
    scene.commit(|batch| batch.set_state(range(ALICE, 1, 9), Delivery::Delivered));
    scene.commit(|batch| batch.set_state(range(ALICE, 1, 1), Delivery::InNetwork));
    assert_eq!(state(&scene), Delivery::Delivered);
}
