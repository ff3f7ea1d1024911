//! How fast an archive of a million messages opens, pages and is searched.
//!
//! `cargo run --release -p ahoy-archive --example bench [MESSAGES [FOLDER]]` fills an archive in a temporary folder, or in `FOLDER` if none is
//! there, opens it anew and prints what each thing took: the first time, with nothing of the file in the program's memory, and the
//! median of all.

use ahoy_archive::{Append, Archive, Batch, Window};
use ahoy_protocol::ids::{ConversationId, EntryHash};
use ahoy_protocol::message::{Body, Entry};
use ahoy_protocol::{DeviceKey, Name, Prose, UnixMillis};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The key of an archive that is thrown away.
const KEY: [u8; 32] = [1; 32];
/// Messages in one transaction while the archive is filled.
const AT_ONCE: u64 = 5_000;
/// Different words, the first of which are the most frequent, as in languages.
const WORDS: u64 = 30_000;
/// A tenth of the messages is in the first conversation, the others in as many conversations as this.
const OTHERS: u64 = 50;
/// Messages of each log that are not read.
const UNREAD: u64 = 20;
/// How often each thing is measured.
const ROUNDS: usize = 15;

fn main() {
    let messages = std::env::args().nth(1).map_or(1_000_000, |number| number.parse().expect("a number of messages"));
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = std::env::args().nth(2).map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    if open(&dir).logs().expect("readable").is_empty() {
        let began = Instant::now();
        fill(&dir, messages);
        println!("{messages} messages written in {:.0} s", began.elapsed().as_secs_f64());
    }
    println!("{} MB on the disk", std::fs::metadata(dir.join("archive.sqlite")).map_or(0, |file| file.len()) / 1_000_000);
    run(&dir, messages);
}

fn run(dir: &Path, messages: u64) {
    let me = Name::parse("alice").expect("a name");
    measure("open the archive and list the conversations", || open(dir).conversations(&me).expect("readable").len());
    measure(&format!("open a conversation of {} messages: count, unread, newest 200", messages / 10), || {
        let archive = open(dir);
        archive.count(&conversation(0)).expect("readable");
        archive.unread(&me).expect("readable");
        archive.page(&conversation(0), Window::Newest, 200).expect("readable").messages.len()
    });
    let archive = open(dir);
    let mut place = archive.page(&conversation(0), Window::Newest, 200).expect("readable").messages[0].place;
    measure("scroll back by 200 messages", || {
        let page = archive.page(&conversation(0), Window::Before(place), 200).expect("readable");
        place = page.messages.first().map_or(place, |message| message.place);
        page.messages.len()
    });
    let (frequent, middle, rare) = (word(0), word(300), word(WORDS - 1));
    let queries = [
        frequent.clone(),
        middle.clone(),
        rare,
        format!("{frequent} {middle}"),
        format!("\"{frequent} {}\"", word(1)),
        frequent[..1].to_owned(),
    ];
    for query in &queries {
        measure(&format!("search for {query}"), || archive.search(query, None, 50).expect("readable").len());
        measure("    in one conversation", || archive.search(query, Some(&conversation(3)), 50).expect("readable").len());
    }
}

fn open(dir: &Path) -> Archive {
    Archive::open(dir, &KEY).expect("it was closed")
}

/// Runs something a few times and prints how long it took and how much it found.
fn measure(what: &str, mut run: impl FnMut() -> usize) {
    let mut found = 0;
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            found = run();
            began.elapsed().as_secs_f64() * 1_000.0
        })
        .collect();
    let first = times[0];
    times.sort_by(f64::total_cmp);
    println!("{first:8.1} ms first {:8.1} ms median {:8.1} ms longest   {what} ({found})", times[ROUNDS / 2], times[ROUNDS - 1]);
}

fn fill(dir: &Path, messages: u64) {
    let (mut archive, mut random, mut seqs) = (open(dir), Random(1), std::collections::BTreeMap::new());
    for first in (0..messages).step_by(AT_ONCE as usize) {
        let mut batch = Batch::new();
        for number in first..messages.min(first + AT_ONCE) {
            let conversation_number = if number % 10 == 0 { 0 } else { 1 + random.below(OTHERS) };
            let author = random.below(2) as u8;
            let seq = seqs.entry((conversation_number, author)).and_modify(|seq| *seq += 1).or_insert(1_u64);
            batch.append(append(conversation(conversation_number), author, *seq, number, text(&mut random)));
        }
        archive.commit(&batch).expect("there is room");
    }
    let mut batch = Batch::new();
    for ((conversation_number, author), seq) in seqs {
        batch.mark_read(conversation(conversation_number), DeviceKey([author; 32]), seq.saturating_sub(UNREAD));
    }
    archive.commit(&batch).expect("there is room");
}

fn append(conversation: ConversationId, author: u8, seq: u64, number: u64, text: String) -> Append {
    let written = UnixMillis(1_700_000_000_000 + number * 1_000);
    let body = Body::Text { text: Prose::new(text).expect("a short text"), reply_to: None };
    let user = Name::parse(["alice", "bob"][usize::from(author)]).expect("a name");
    let entry = Entry { conversation, seq, prev: EntryHash([0; 32]), written, body };
    let with = Name::parse("bob").expect("a name");
    Append { with, entry, author: DeviceKey([author; 32]), user, hash: EntryHash([seq as u8; 32]), received: written, is_shown: true }
}

fn conversation(number: u64) -> ConversationId {
    ConversationId(u128::from(number).to_be_bytes())
}

/// Four to sixteen words, of which a few are frequent.
fn text(random: &mut Random) -> String {
    let words: Vec<String> = (0..4 + random.below(13))
        .map(|_| {
            let chance = random.below(1 << 20) as f64 / f64::from(1 << 20);
            word((WORDS as f64).powf(chance) as u64 - 1)
        })
        .collect();
    words.join(" ")
}

/// A word that can be said, another for each number.
fn word(number: u64) -> String {
    let mut word = String::new();
    let mut rest = number + 20;
    while rest > 0 {
        word.push_str(
            ["ka", "te", "mi", "lo", "su", "ra", "ne", "fi", "bo", "gu", "ja", "we", "pi", "do", "xu", "ze"][(rest % 16) as usize],
        );
        rest /= 16;
    }
    word
}

/// A sequence of numbers that is the same each time (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
