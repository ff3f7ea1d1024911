//! What was exported is all that people have, can be read in again, and does no harm in a browser.

use crate::scene::*;
use ahoy_archive::{Append, Call, Delivery, ExportHeader, TransferError};
use ahoy_protocol::ids::FileHash;
use ahoy_protocol::message::{Body, FileOffer};
use ahoy_protocol::{Blob, CallId, Text, UnixMillis};
use serde_json::json;

fn header() -> ExportHeader {
    ExportHeader { account: name("alice"), exported: UnixMillis(1_700_000_000_000), contacts: vec![json!({"name": "bob"})] }
}

fn offer() -> FileOffer {
    let (name, media_type) = (Text::fitting("cat.png"), Text::fitting("image/png"));
    FileOffer { hash: FileHash([5; 32]), len: 12_345, name, media_type, preview: Blob::new(vec![1, 2, 3]).unwrap() }
}

/// One of each that there is.
fn everything() -> Scene {
    let mut scene = Scene::new();
    let voice = Body::Voice { file: offer(), duration_ms: 1_500, waveform: Blob::new(vec![9; 10]).unwrap(), is_voicemail: true };
    let answer = Body::Text { text: prose("an answer"), reply_to: Some(entry_ref(BOB, 1)) };
    scene.write([
        text(BOB, 1, 10, "wrng\n\"lines\" <script>alert('&')</script>"),
        edit(BOB, 2, 20, entry_ref(BOB, 1), "right"),
        entry(ALICE, 1, 30, answer),
        react(ALICE, 2, 40, entry_ref(BOB, 1), "👍", true),
        entry(ALICE, 3, 50, Body::File(offer())),
        entry(BOB, 3, 60, voice),
        text(ALICE, 4, 70, "taken back"),
        delete(ALICE, 5, 80, entry_ref(ALICE, 4)),
        Append { is_shown: false, ..text(BOB, 5, 90, "behind a gap") },
    ]);
    scene.commit(|batch| {
        batch.set_draft(CONVERSATION, "unfinished");
        batch.set_state(range(ALICE, 1, 1), Delivery::Read);
        batch.mark_read(CONVERSATION, BOB, 2);
        batch.call(Call { id: CallId([4; 16]), began: UnixMillis(55), record: json!({"with": "bob", "seconds": 3.5}) });
        batch.save("ratchet/secret", b"of this device alone".to_vec());
    });
    scene
}

fn export(scene: &Scene) -> String {
    let mut bytes = Vec::new();
    scene.archive.export_json(&header(), &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_export_read_into_another_archive_gives_the_same() {
    let from = everything();
    let exported = export(&from);
    let mut to = Scene::new();
    let imported = to.archive.import_json(exported.as_bytes()).unwrap();
    assert_eq!((imported.entries, imported.calls, &imported.contacts), (9, 1, &header().contacts));
    assert_eq!(to.messages(), from.messages());
    assert_eq!(to.archive.conversations(&name("alice")).unwrap(), from.archive.conversations(&name("alice")).unwrap());
    assert_eq!(to.archive.logs().unwrap().len(), 2);
    assert_eq!(to.archive.entries(&CONVERSATION, &BOB, 1, 9).unwrap(), from.archive.entries(&CONVERSATION, &BOB, 1, 9).unwrap());
    assert_eq!(to.found("right"), ["right"]);
    assert_eq!(export(&to), exported);
    // Again, and nothing is there twice.
    to.archive.import_json(exported.as_bytes()).unwrap();
    assert_eq!(export(&to), exported);
}

#[test]
fn an_export_is_json_and_has_nothing_of_the_device() {
    let exported = export(&everything());
    let json: serde_json::Value = serde_json::from_str(&exported).unwrap();
    assert_eq!((&json["account"], &json["entries"][0]["body"]["kind"]), (&json!("alice"), &json!("text")));
    assert!(!exported.contains("ratchet"));
    let empty = export(&Scene::new());
    assert!(serde_json::from_str::<serde_json::Value>(&empty).is_ok());
}

#[test]
fn many_entries_are_imported_in_pieces() {
    let mut from = Scene::new();
    from.write((1..=2_500).map(|seq| text(BOB, seq, seq, "hello")));
    let mut to = Scene::new();
    assert_eq!(to.archive.import_json(export(&from).as_bytes()).unwrap().entries, 2_500);
    assert_eq!(to.archive.count(&CONVERSATION).unwrap(), 2_500);
}

#[test]
fn what_is_no_export_is_refused() {
    let exported = export(&everything());
    let mut scene = Scene::new();
    let mut refused = |text: &str| scene.archive.import_json(text.as_bytes()).unwrap_err().to_string();
    for other in ["", "[]", "{}", "{\"entries\": []}", "ahoy", "{\"format\": \"other\", \"entries\": []}"] {
        assert_eq!(refused(other), "cannot read the export: it is not an export of this program", "{other}");
    }
    assert!(refused(&exported[..exported.len() / 2]).contains("line "));
    assert!(refused(&exported.replace("\"seq\":1,", "\"seq\":\"x\",")).contains("line "));
    let newer = exported.replace("\"version\": 1", "\"version\": 2");
    let newer = Scene::new().archive.import_json(newer.as_bytes());
    assert!(matches!(newer, Err(TransferError::Newer { found: 2, readable: 1 })));
}

#[test]
fn the_page_shows_all_and_runs_nothing() {
    let mut scene = everything();
    scene.write([text(BOB, 6, 95, "<script>alert(\"1\")</script> & more")]);
    let mut page = Vec::new();
    scene.archive.export_html(&header(), &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(!page.contains("<script"));
    for part in [
        "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; more",
        "cat.png",
        "Voicemail, 2 s",
        "deleted",
        "👍 1",
        "<blockquote>right",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert!(!page.contains("taken back"));
    assert!(!page.contains("behind a gap"));
}

#[test]
fn a_long_conversation_is_whole_on_the_page() {
    let mut scene = Scene::new();
    scene.write((1..=1_234).map(|seq| text(BOB, seq, seq, "hello")));
    let mut page = Vec::new();
    scene.archive.export_html(&header(), &mut page).unwrap();
    assert_eq!(String::from_utf8(page).unwrap().matches("<article").count(), 1_234);
}
