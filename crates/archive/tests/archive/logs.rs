//! Logs, registers, outbox and calls come back as they were kept, and the file shows nothing of them.

use crate::scene::*;
use ahoy_archive::{Append, Archive, ArchiveError, Call, Outgoing};
use ahoy_protocol::ids::EnvelopeId;
use ahoy_protocol::{CallId, UnixMillis};
use serde_json::json;

#[test]
fn entries_come_back_as_they_were_written() {
    let mut scene = Scene::new();
    let appended: Vec<Append> = (1..=100).map(|seq| text(BOB, seq, seq, "hello")).collect();
    scene.write(appended.clone());
    let scene = scene.reopened();
    let entries = scene.archive.entries(&CONVERSATION, &BOB, 3, u64::MAX).unwrap();
    assert_eq!(entries.len(), 64, "no more than can be handed on at once");
    assert_eq!((&entries[0].entry, entries[0].hash, entries[0].is_shown), (&appended[2].entry, appended[2].hash, true));
    let [head] = &scene.archive.logs().unwrap()[..] else { panic!("there is one log") };
    assert_eq!((head.author, &head.user, head.seq, head.hash), (BOB, &name("bob"), 100, hash(BOB, 100)));
    assert_eq!(scene.archive.hash(&CONVERSATION, &entry_ref(BOB, 50)).unwrap(), Some(hash(BOB, 50)));
    assert_eq!(scene.archive.hash(&CONVERSATION, &entry_ref(BOB, 101)).unwrap(), None);
}

#[test]
fn an_entry_is_kept_once_and_as_it_first_came() {
    let mut scene = Scene::new();
    scene.write([text(BOB, 1, 10, "first")]);
    scene.write([text(BOB, 1, 10, "first"), text(BOB, 1, 10, "second")]);
    assert_eq!(scene.texts(), ["first"]);
    assert_eq!(scene.found("second").len(), 0);
}

#[test]
fn registers_are_read_by_the_beginning_of_their_names() {
    let mut scene = Scene::new();
    scene.commit(|batch| {
        for key in ["chat/a", "chat/b", "chat/ü", "chau", "ratchet/a"] {
            batch.save(key, vec![0]);
        }
        batch.save("chat/b", vec![1]);
        batch.save("chat/a", Vec::new());
    });
    let chat = scene.archive.registers("chat/").unwrap();
    assert_eq!(chat, [("chat/b".to_owned(), vec![1]), ("chat/ü".to_owned(), vec![0])]);
    assert_eq!(scene.archive.register("ratchet/a").unwrap(), Some(vec![0]));
    assert_eq!(scene.archive.register("chat/a").unwrap(), None);
}

#[test]
fn the_outbox_gives_what_is_due_until_it_is_posted() {
    let mut scene = Scene::new();
    let outgoing = |number: u8, next_try| Outgoing {
        id: EnvelopeId([number; 16]),
        to: BOB,
        next_try: UnixMillis(next_try),
        tries: 0,
        bytes: vec![number],
    };
    scene.commit(|batch| {
        batch.post(outgoing(1, 200));
        batch.post(outgoing(2, 100));
        batch.post(Outgoing { bytes: vec![99], ..outgoing(2, 0) });
    });
    assert_eq!(scene.archive.next_due().unwrap(), Some(UnixMillis(100)));
    assert_eq!(scene.archive.due(UnixMillis(100), 10).unwrap(), [outgoing(2, 100)]);
    scene.commit(|batch| batch.retry(EnvelopeId([2; 16]), UnixMillis(300)));
    let due = scene.archive.due(UnixMillis(300), 10).unwrap();
    assert_eq!(due, [outgoing(1, 200), Outgoing { tries: 1, ..outgoing(2, 300) }]);
    scene.commit(|batch| due.iter().for_each(|outgoing| batch.posted(outgoing.id)));
    assert_eq!((scene.archive.outbox_len().unwrap(), scene.archive.next_due().unwrap()), (0, None));
}

#[test]
fn an_envelope_is_remembered_for_as_long_as_it_can_come_again() {
    let mut scene = Scene::new();
    let (short, long) = (EnvelopeId([1; 16]), EnvelopeId([2; 16]));
    scene.commit(|batch| {
        batch.seen(short, UnixMillis(100));
        batch.seen(long, UnixMillis(200));
    });
    scene.commit(|batch| batch.forget_seen(UnixMillis(150)));
    assert_eq!((scene.archive.is_seen(&short).unwrap(), scene.archive.is_seen(&long).unwrap()), (false, true));
}

#[test]
fn calls_are_told_newest_first_and_amended() {
    let mut scene = Scene::new();
    let call = |number: u8, seconds: u64| Call {
        id: CallId([number; 16]),
        began: UnixMillis(u64::from(number)),
        record: json!({"with": "bob", "seconds": seconds}),
    };
    scene.commit(|batch| (1..=3).for_each(|number| batch.call(call(number, 0))));
    scene.commit(|batch| batch.call(call(2, 60)));
    assert_eq!(scene.archive.calls(UnixMillis(u64::MAX), 2).unwrap(), [call(3, 0), call(2, 60)]);
    assert_eq!(scene.archive.calls(UnixMillis(2), 2).unwrap(), [call(1, 0)]);
}

#[test]
fn another_key_does_not_open_it_and_does_no_harm() {
    let mut scene = Scene::new();
    scene.write([text(BOB, 1, 10, "hello")]);
    drop(scene.archive);
    let before = std::fs::read(scene.dir.path().join("archive.sqlite")).unwrap();
    let refused = Archive::open(scene.dir.path(), &[8; 32]);
    assert!(matches!(refused, Err(ArchiveError::WrongKey { .. })), "{refused:?}");
    assert_eq!(std::fs::read(scene.dir.path().join("archive.sqlite")).unwrap(), before);
    assert!(Archive::open(scene.dir.path(), &KEY).is_ok());
}

#[test]
fn nothing_on_the_disk_can_be_read_without_the_key() {
    let mut scene = Scene::new();
    let plain = "the quick brown fox";
    scene.commit(|batch| {
        batch.append(text(BOB, 1, 10, plain));
        batch.save("chat/secret-register", plain.as_bytes().to_vec());
        batch.set_draft(CONVERSATION, plain);
    });
    // While it is open, what was written is in the log beside the file.
    let files: Vec<_> = std::fs::read_dir(scene.dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 1, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for word in [plain, "secret-register", "SQLite format", "CREATE TABLE"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word:?} is in {}", file.display());
        }
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{} is for others to read", file.display());
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    let mut scene = Scene::new();
    scene.write((1..=500).map(|seq| text(BOB, seq, seq, "hello")));
    scene.archive.check().unwrap();
    drop(scene.archive);
    let path = scene.dir.path().join("archive.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = Archive::open(scene.dir.path(), &KEY).and_then(|archive| archive.check());
    assert!(damaged.is_err());
}
