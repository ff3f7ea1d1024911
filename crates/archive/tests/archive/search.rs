//! Search finds what people mean, newest first.

use crate::scene::*;
use ahoy_archive::Append;
use ahoy_protocol::ids::ConversationId;

fn library() -> Scene {
    let mut scene = Scene::new();
    let said = ["Good morning, Jürgen", "the ships are at sea", "a ship at anchor", "c1 is a good square", "Ein Schiff wird kommen"];
    scene.write(said.iter().zip(1..).map(|(said, seq)| text(BOB, seq, seq, said)));
    scene
}

#[test]
fn words_are_found_by_their_beginnings_without_case_and_accents() {
    let scene = library();
    assert_eq!(scene.found("ship"), ["a ship at anchor", "the ships are at sea"]);
    assert_eq!(scene.found("AT ship anch"), ["a ship at anchor"]);
    assert_eq!(scene.found("jurgen"), ["Good morning, Jürgen"]);
    assert!(scene.found("hip").is_empty());
}

#[test]
fn phrases_are_found_as_they_stand() {
    let scene = library();
    assert_eq!(scene.found("\"at sea\""), ["the ships are at sea"]);
    assert!(scene.found("\"sea at\"").is_empty());
    assert_eq!(scene.found("good \"a good\""), ["c1 is a good square"]);
}

#[test]
fn whatever_is_typed_is_no_error() {
    let scene = library();
    for query in
        ["\"", "a\"b", "text:ship", "ship AND", "NEAR(", "^", "-ship", "ship*", "👍", "a\0b", "'; DROP TABLE messages; --", "\u{300}", "+"]
    {
        scene.archive.search(query, None, 10).unwrap_or_else(|error| panic!("{query:?}: {error}"));
    }
    assert_eq!(scene.found("ship*").len(), 2);
}

#[test]
fn one_conversation_is_searched_alone() {
    let mut scene = library();
    let other = ConversationId([10; 16]);
    let mut elsewhere: Append = text(BOB, 1, 100, "a ship elsewhere");
    elsewhere.entry.conversation = other;
    scene.write([elsewhere]);
    let within = |id| scene.archive.search("ship", Some(&id), 10).unwrap().iter().map(said).collect::<Vec<_>>();
    assert_eq!(scene.found("ship").len(), 3);
    assert_eq!(within(other), ["a ship elsewhere"]);
    assert_eq!(within(CONVERSATION).len(), 2);
    assert!(within(ConversationId([11; 16])).is_empty());
    assert_eq!(scene.found("c1"), ["c1 is a good square"], "what the index knows besides is not searched");
}

#[test]
fn the_newest_come_first_and_no_more_than_asked_for() {
    let mut scene = Scene::new();
    scene.write([text(BOB, 2, 200, "ahoy again"), text(BOB, 1, 100, "ahoy"), text(ALICE, 1, 300, "ahoy to you")]);
    assert_eq!(scene.found("ahoy"), ["ahoy to you", "ahoy again", "ahoy"]);
    assert_eq!(scene.archive.search("ahoy", None, 1).unwrap().len(), 1);
}

#[test]
fn the_very_word_goes_before_longer_ones() {
    let mut scene = Scene::new();
    scene.write([text(BOB, 1, 100, "a ship"), text(BOB, 2, 200, "many ships")]);
    let first = |count| scene.archive.search("ship", None, count).unwrap().iter().map(said).collect::<Vec<_>>();
    assert_eq!(first(1), ["a ship"]);
    assert_eq!(first(2), ["many ships", "a ship"]);
}
