//! Two people with two devices each write to one another while mailboxes lose what they keep, links are cut, and devices crash at any point of
//! what they do. Whatever was accepted is on all four devices in the end: once, and each author's entries in their order.

mod world;

use ahoy_chat::DeliveryState;
use ahoy_protocol::message::EntryRef;
use std::collections::BTreeMap;
use std::time::Duration;
use world::{Faults, World, name, text};

/// Messages of each person.
const MESSAGES: u64 = 200;
const HOUR: Duration = Duration::from_secs(3600);

fn is_full() -> bool {
    std::env::var_os("AHOY_FULL").is_some()
}

fn partner(index: usize) -> &'static str {
    if index < 2 { "bob" } else { "alice" }
}

/// Something goes wrong, now and then.
fn disturb(world: &mut World) {
    let device = usize::try_from(world.dice.below(4)).expect("four");
    match world.dice.below(12) {
        0 | 1 => world.crash(device),
        2 | 3 => {
            let longest_ms = if world.dice.percent(20) { 3_600_000 } else { 120_000 };
            let cut_ms = 1 + world.dice.below(longest_ms);
            world.cut(device, cut_ms);
        }
        4 => {
            let mailbox = usize::try_from(world.dice.below(3)).expect("three");
            world.lose_mailbox(device, mailbox);
        }
        // All copies of what waits.
        5 => (0..3).for_each(|mailbox| world.lose_mailbox(device, mailbox)),
        _ => {}
    }
}

/// A conversation under faults, then time without. Bob gets a third device at the message of number `late`.
fn converse(seed: u64, late: Option<u64>) -> World {
    let delay_ms = 1 + seed % 7 * 300;
    let mut world = World::of_contacts(seed, Faults { put_lost: 20, crash: 60, delay_ms });
    for number in 0..2 * MESSAGES {
        if late == Some(number) {
            world.add_device("bob");
        }
        let device = usize::try_from(number % 2 * 2 + world.dice.below(2)).expect("four");
        let _ = world.write(device, partner(device), text(&format!("{number}")));
        if world.dice.percent(15) {
            disturb(&mut world);
        }
        let pause = if world.dice.percent(5) { world.dice.below(600_000) } else { world.dice.below(3_000) };
        world.run_for(Duration::from_millis(pause));
    }
    world.faults = Faults { crash: 0, put_lost: 0, delay_ms };
    settle(&mut world, seed);
    world
}

/// Time passes without faults until everybody has everything.
fn settle(world: &mut World, seed: u64) {
    for _ in 0..48 {
        world.run_for(HOUR);
        if (0..world.devices.len()).all(|index| world.lacking(index).is_empty()) {
            return;
        }
    }
    for index in 0..world.devices.len() {
        let lacking = world.lacking(index);
        assert!(lacking.is_empty(), "seed {seed}: device {index} lacks {lacking:?}");
    }
}

/// Positions may differ between devices by when things came; the order within each author may not.
fn assert_in_order(world: &World, seed: u64) {
    for index in 0..world.devices.len() {
        let mut shown: Vec<_> = world.devices[index].disk.entries.values().collect();
        assert_eq!(shown.len(), world.accepted.len(), "seed {seed}: device {index} has what nobody wrote");
        shown.sort_by_key(|stored| (stored.appended.position, stored.appended.author, stored.appended.entry.seq));
        for author in 0..4 {
            let author = world.devices[author].me.device;
            let seqs: Vec<u64> =
                shown.iter().filter(|stored| stored.appended.author == author).map(|stored| stored.appended.entry.seq).collect();
            assert!(seqs.is_sorted(), "seed {seed}: device {index} has an author's entries out of order");
        }
    }
}

#[test]
fn whatever_was_accepted_is_on_all_four_devices_once_and_in_order() {
    let seeds = if is_full() { 1000 } else { 40 };
    let (mut inputs, mut crashes, mut envelopes, mut accepted) = (0, 0, 0, 0);
    let mut tally: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..seeds {
        let mut world = converse(seed, None);
        assert_in_order(&world, seed);
        world.run_for(24 * HOUR);
        for (_, author, seq) in &world.accepted {
            let index = world.index_of(*author).expect("one of four");
            let state = world.chat(index).state(&name(partner(index)), EntryRef { author: *author, seq: *seq });
            assert!(state >= DeliveryState::Delivered, "seed {seed}: entry {seq} of device {index} is {state:?}");
        }
        (inputs, crashes, envelopes) = (inputs + world.inputs, crashes + world.crashes, envelopes + world.envelopes);
        accepted += world.accepted.len();
        world.tally.iter().for_each(|(kind, count)| *tally.entry(kind).or_default() += count);
    }
    println!("{seeds} seeds: {accepted} entries, {inputs} inputs, {crashes} crashes, {envelopes} envelopes with {tally:?}");
    assert!(crashes > 20 * seeds, "the world was too kind");
}

#[test]
fn a_device_that_is_added_in_the_midst_of_it_has_everything_in_the_end() {
    for seed in 0..if is_full() { 100 } else { 8 } {
        let world = converse(seed, Some(seed * 37 % (2 * MESSAGES)));
        assert_eq!(world.devices.len(), 5);
        assert_in_order(&world, seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let (one, other) = (converse(3, None), converse(3, None));
    assert_eq!((one.inputs, one.crashes, one.envelopes, one.texts(0)), (other.inputs, other.crashes, other.envelopes, other.texts(0)));
}

#[test]
fn a_sender_who_is_gone_reaches_a_recipient_who_comes_later() {
    let mut world = World::of_contacts(1, Faults::default());
    for index in 2..4 {
        world.cut(index, 24 * 3_600_000);
    }
    let _ = world.write(0, "bob", text("I am off"));
    world.run_for(Duration::from_secs(60));
    for index in 0..2 {
        world.cut(index, 24 * 3_600_000);
    }
    world.lose_mailbox(2, 1);
    world.run_for(HOUR);
    world.devices[2].is_linked = true;
    world.crash(2);
    world.run_for(Duration::from_secs(70));
    assert_eq!(world.texts(2), ["I am off"]);
}
