//! A program that writes is killed, again and again: what it was told to be kept is there, whole, and nothing is there by halves.

use crate::scene::*;
use ahoy_archive::{Archive, Batch, Outgoing};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::ids::EnvelopeId;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Names the folder for the program that is killed; without it, it does nothing.
const FOLDER: &str = "AHOY_TEST_ARCHIVE";
/// Entries in each batch.
const ENTRIES: u64 = 5;

#[test]
fn every_batch_that_was_acknowledged_survives_the_death_of_the_program() {
    let kills = if std::env::var_os("AHOY_FULL").is_some() { 200 } else { 8 };
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for kill in 0..kills {
        // After a number of batches that differs each time, and then at once, which is somewhere in the next batch or two.
        acknowledged = write_and_kill(dir.path(), 1 + kill * 7 % 20).max(acknowledged);
        let archive = Archive::open(dir.path(), &KEY).unwrap();
        let kept = batches(&archive);
        assert!(kept >= acknowledged, "batch {acknowledged} was acknowledged, {kept} are there");
        assert_whole(&archive, kept);
    }
    assert!(acknowledged > u64::from(kills));
}

/// Starts the writer and kills it after `count` batches. Returns the last that it was told to be kept.
fn write_and_kill(dir: &Path, count: u32) -> u64 {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_program_that_is_killed", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut numbers = lines.filter_map(|line| line.strip_prefix("kept ")?.parse().ok());
    let mut last = numbers.nth(count as usize - 1).expect("the program writes until it is killed");
    writer.kill().unwrap();
    last = numbers.last().unwrap_or(last);
    writer.wait().unwrap();
    last
}

#[test]
fn the_program_that_is_killed() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let mut archive = Archive::open(Path::new(&dir), &KEY).unwrap();
    for number in batches(&archive) + 1.. {
        archive.commit(&batch(number)).unwrap();
        println!("kept {number}");
        std::io::stdout().flush().unwrap();
    }
}

/// How many batches are there.
fn batches(archive: &Archive) -> u64 {
    archive.register("number").unwrap().map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

/// Something of each kind, all with the number of the batch.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.save("number", number.to_be_bytes().to_vec());
    for index in 0..ENTRIES {
        let seq = (number - 1) * ENTRIES + index + 1;
        batch.append(text(BOB, seq, seq, &format!("batch{number} {}", "filling ".repeat(50))));
    }
    batch.seen(envelope(number), UnixMillis(number));
    batch.post(Outgoing { id: envelope(number), to: BOB, next_try: UnixMillis(0), tries: 0, bytes: vec![0; 1_000] });
    batch
}

fn envelope(number: u64) -> EnvelopeId {
    EnvelopeId(u128::from(number).to_be_bytes())
}

/// The archive holds the first `count` batches, whole, and nothing of the next.
fn assert_whole(archive: &Archive, count: u64) {
    archive.check().unwrap();
    assert_eq!(archive.count(&CONVERSATION).unwrap(), count * ENTRIES);
    assert_eq!(archive.outbox_len().unwrap(), count);
    assert_eq!(archive.logs().unwrap().first().map_or(0, |head| head.seq), count * ENTRIES);
    assert_eq!(archive.search(&format!("\"batch{count}\""), None, 100).unwrap().len() as u64, if count == 0 { 0 } else { ENTRIES });
    assert!(count == 0 || archive.is_seen(&envelope(count)).unwrap());
    assert!(!archive.is_seen(&envelope(count + 1)).unwrap());
}
