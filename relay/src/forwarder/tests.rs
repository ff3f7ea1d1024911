//! What the forwarder promises, in stories and over random histories.

use super::*;
use crate::limits::LEGS_MAX;
use ahoy_identity::leg_code;
use ahoy_protocol::datagram::{KIND_PING, KIND_PONG, relay_frame};
use proptest::prelude::*;
use std::time::Duration;

const CALL: CallId = CallId([7; 16]);
const KEY: LegKey = LegKey([3; 32]);
const GRANTED_KBIT_PER_S: u32 = 160;

#[test]
fn two_legs_that_name_each_other_are_joined_and_frames_pass_both_ways() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    assert_eq!(relay.send(alice, 1), Verdict::Forward { to: at(2), channel: bob });
    assert_eq!(relay.send(bob, 2), Verdict::Forward { to: at(1), channel: alice });
}

#[test]
fn the_second_leg_learns_of_the_first() {
    let mut relay = Table::new();
    let alice = relay.join(1, 2, 1).expect("there is room");
    assert_eq!((alice.with, alice.replaced), (None, None));
    let bob = relay.join(2, 1, 2).expect("there is room");
    assert_eq!(bob.with, Some(alice.channel));
}

#[test]
fn a_leg_that_names_somebody_else_is_not_joined() {
    let mut relay = Table::new();
    let alice = relay.join(1, 2, 1).expect("there is room").channel;
    for device in [2, 3] {
        let other = relay.join(device, 9, device).expect("there is room");
        assert_eq!(other.with, None);
        assert_eq!(relay.send(other.channel, device), Verdict::Drop(Reason::NotJoined));
    }
    let eve = relay.join(3, 1, 3).expect("there is room");
    assert_eq!(eve.with, None, "eve names alice, and alice does not name eve");
    assert_eq!(relay.send(alice, 1), Verdict::Drop(Reason::NotJoined));
}

#[test]
fn legs_of_different_calls_are_not_joined() {
    let mut relay = Table::new();
    relay.join(1, 2, 1).expect("there is room");
    let request = LegRequest { call: CallId([8; 16]), ..request(2, 1, 2) };
    assert_eq!(relay.forwarder.join(relay.now, request, 0).expect("there is room").with, None);
}

#[test]
fn a_device_cannot_be_joined_with_itself() {
    assert_eq!(Table::new().join(1, 1, 1), Err(JoinError::Itself));
}

#[test]
fn a_later_leg_of_the_same_device_takes_the_place_of_its_older_one() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    let later = relay.join(2, 1, 5).expect("there is room");
    assert_eq!((later.with, later.replaced), (Some(alice), Some(bob)));
    assert_eq!(relay.send(alice, 1), Verdict::Forward { to: at(5), channel: later.channel });
    assert_eq!(relay.send(bob, 2), Verdict::Drop(Reason::UnknownChannel));
    assert_eq!(relay.forwarder.leave(bob), None, "the older leg's stream ends later, and must not end the new one");
    assert_eq!(relay.send(alice, 1), Verdict::Forward { to: at(5), channel: later.channel });
}

#[test]
fn a_stolen_channel_is_worth_nothing_at_another_address() {
    let mut relay = Table::new();
    let (alice, _) = relay.call();
    assert_eq!(relay.send(alice, 3), Verdict::Look(alice));
    assert_eq!(relay.send(alice, 3), Verdict::Drop(Reason::OtherAddress), "looks are bounded in time");
    relay.now += ADDRESS_LOOK_INTERVAL;
    assert_eq!(relay.send(alice, 3), Verdict::Look(alice));
}

#[test]
fn a_leg_follows_its_connection_to_a_new_address() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    relay.forwarder.set_address(relay.now, alice, at(3));
    assert_eq!(relay.send(alice, 3), Verdict::Forward { to: at(2), channel: bob });
    assert_eq!(relay.send(bob, 2), Verdict::Forward { to: at(3), channel: alice });
    assert_eq!(relay.send(alice, 1), Verdict::Look(alice));
}

#[test]
fn a_leg_follows_its_devices_move_at_once() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    assert_eq!(relay.forwarder.handle(relay.now, at(3), &a_move(alice, 5, &KEY)), Verdict::Moved);
    assert_eq!(relay.send(bob, 2), Verdict::Forward { to: at(3), channel: alice });
    assert_eq!(relay.send(alice, 3), Verdict::Forward { to: at(2), channel: bob });
}

#[test]
fn a_connection_that_has_not_followed_yet_does_not_take_its_leg_back() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    relay.forwarder.handle(relay.now, at(3), &a_move(alice, 5, &KEY));
    relay.forwarder.set_address(relay.now, alice, at(1));
    assert_eq!(relay.send(bob, 2), Verdict::Forward { to: at(3), channel: alice });
    relay.forwarder.set_address(relay.now, alice, at(4));
    assert_eq!(relay.send(bob, 2), Verdict::Forward { to: at(4), channel: alice }, "what is heard later counts");
}

#[test]
fn a_move_is_followed_once_and_only_with_its_legs_code() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    let mut refused = |datagram: &[u8]| assert_eq!(relay.forwarder.handle(relay.now, at(3), datagram), Verdict::Drop(Reason::NotProved));
    refused(&a_move(alice, 5, &LegKey([4; 32])));
    let mut changed = a_move(alice, 5, &KEY);
    changed[12] ^= 1;
    refused(&changed);
    assert_eq!(relay.forwarder.handle(relay.now, at(1), &a_move(alice, 5, &KEY)), Verdict::Moved);
    let mut refused = |datagram: &[u8]| assert_eq!(relay.forwarder.handle(relay.now, at(3), datagram), Verdict::Drop(Reason::NotProved));
    refused(&a_move(alice, 5, &KEY));
    refused(&a_move(alice, 4, &KEY));
    let nobody = a_move(alice ^ (1 << 31), 6, &KEY);
    assert_eq!(relay.forwarder.handle(relay.now, at(3), &nobody), Verdict::Drop(Reason::UnknownChannel));
    assert_eq!(relay.forwarder.handle(relay.now, at(3), &nobody[1..]), Verdict::Drop(Reason::Malformed));
    assert_eq!(relay.send(bob, 2), Verdict::Forward { to: at(1), channel: alice });
    let counters = relay.forwarder.counters();
    assert_eq!((counters.moved, counters.not_proved), (1, 4));
}

#[test]
fn forged_moves_cost_a_bounded_number_of_checks() {
    let mut relay = Table::new();
    let (alice, _) = relay.call();
    for counter in 0..MOVES_BURST {
        relay.forwarder.handle(relay.now, at(3), &a_move(alice, counter, &LegKey([4; 32])));
    }
    let own = a_move(alice, 1, &KEY);
    assert_eq!(relay.forwarder.handle(relay.now, at(3), &own), Verdict::Drop(Reason::NotProved), "it was not looked at");
    relay.now += Duration::from_secs(1);
    assert_eq!(relay.forwarder.handle(relay.now, at(3), &own), Verdict::Moved);
}

#[test]
fn where_only_a_move_led_probation_lasts_until_the_connection_has_been_there() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call_at(LEG_KBIT_PER_S_MAX);
    relay.forwarder.handle(relay.now, at(3), &a_move(alice, 1, &KEY));
    relay.bytes_passed(bob, 2);
    relay.now += 2 * PROBATION;
    relay.forwarder.set_address(relay.now, alice, at(1));
    assert!(relay.bytes_passed(bob, 2) <= BURST_BYTES);
    relay.forwarder.set_address(relay.now, alice, at(3));
    relay.now += Duration::from_secs(1);
    assert!(relay.bytes_passed(bob, 2) <= 2 * u64::from(PROBATION_KBIT_PER_S) * 125);
    relay.now += PROBATION;
    relay.bytes_passed(bob, 2);
    relay.now += Duration::from_secs(1);
    assert!(relay.bytes_passed(bob, 2) > 2 * u64::from(PROBATION_KBIT_PER_S) * 125, "probation is over");
}

#[test]
fn an_address_that_a_leg_moved_to_is_sent_little_until_it_has_lasted() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call_at(LEG_KBIT_PER_S_MAX);
    relay.forwarder.set_address(relay.now, alice, at(3));
    assert!(relay.bytes_passed(bob, 2) <= BURST_BYTES);
    let mut sent = 0;
    for _ in 0..10 {
        relay.now += Duration::from_secs(1);
        // A forger makes the leg move to and fro, and gains nothing.
        relay.forwarder.set_address(relay.now, alice, at(1));
        relay.forwarder.set_address(relay.now, alice, at(3));
        sent += relay.bytes_passed(bob, 2);
    }
    assert!(sent <= 11 * u64::from(PROBATION_KBIT_PER_S) * 125, "{sent}");
    relay.now += PROBATION;
    assert!(relay.bytes_passed(bob, 2) > BURST_BYTES - FRAME_BYTES);
    relay.now += Duration::from_secs(1);
    assert!(relay.bytes_passed(bob, 2) > 2 * u64::from(PROBATION_KBIT_PER_S) * 125, "probation is over");
}

#[test]
fn a_leg_that_moves_back_to_where_it_was_proved_is_not_on_probation() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call_at(LEG_KBIT_PER_S_MAX);
    relay.forwarder.set_address(relay.now, alice, at(3));
    relay.bytes_passed(bob, 2);
    relay.forwarder.set_address(relay.now, alice, at(1));
    relay.now += Duration::from_secs(1);
    assert!(relay.bytes_passed(bob, 2) > 2 * u64::from(PROBATION_KBIT_PER_S) * 125);
}

#[test]
fn a_mapped_ipv4_address_is_the_same_address() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:1000".parse().expect("an address");
    assert_eq!(relay.forwarder.handle(relay.now, mapped, &relay_frame(alice, &packet(9))), Verdict::Forward { to: at(2), channel: bob });
}

#[test]
fn the_leg_left_behind_is_alone() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    assert_eq!(relay.forwarder.leave(bob), Some(alice));
    assert_eq!(relay.send(alice, 1), Verdict::Drop(Reason::NotJoined));
    assert_eq!(relay.forwarder.leave(bob), None, "a second time nothing happens");
    assert_eq!(relay.forwarder.legs(), 1);
}

#[test]
fn an_empty_payload_is_heard_and_goes_nowhere() {
    let mut relay = Table::new();
    let (alice, _) = relay.call();
    assert_eq!(relay.forwarder.handle(relay.now, at(1), &relay_frame(alice, &[])), Verdict::KeptAlive);
}

#[test]
fn only_packets_and_probes_of_calls_pass() {
    let mut relay = Table::new();
    let (alice, _) = relay.call();
    let mut dropped = |payload: &[u8]| relay.forwarder.handle(relay.now, at(1), &relay_frame(alice, payload));
    for first in [0x00, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x80, 0xbf] {
        assert_eq!(dropped(&[first; 50]), Verdict::Drop(Reason::Malformed), "{first:#x}");
    }
    assert_eq!(dropped(&packet(PAYLOAD_BYTES_MAX + 1)), Verdict::Drop(Reason::Malformed));
    assert!(matches!(dropped(&packet(PAYLOAD_BYTES_MAX)), Verdict::Forward { .. }));
    for probe in [&[KIND_PING; PING_BYTES][..], &[KIND_PONG; PONG_BYTES]] {
        assert!(matches!(dropped(probe), Verdict::Forward { .. }));
        assert_eq!(dropped(&probe[1..]), Verdict::Drop(Reason::Malformed));
    }
    assert_eq!(relay.forwarder.handle(relay.now, at(1), &[]), Verdict::Drop(Reason::Malformed));
}

#[test]
fn a_leg_gets_its_burst_and_then_its_rate() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    let mut passed = 0;
    while relay.send(alice, 1) != Verdict::Drop(Reason::OverRate) {
        passed += FRAME_BYTES;
        assert!(passed <= BURST_BYTES, "the burst has an end");
    }
    assert!(matches!(relay.send(bob, 2), Verdict::Forward { .. }), "the other direction has a rate of its own");
    relay.now += Duration::from_secs(1);
    let mut in_a_second = 0;
    while relay.send(alice, 1) != Verdict::Drop(Reason::OverRate) {
        in_a_second += FRAME_BYTES;
    }
    let granted = u64::from(GRANTED_KBIT_PER_S) * 125;
    assert!((granted - 2 * FRAME_BYTES..=granted + FRAME_BYTES).contains(&in_a_second), "{in_a_second} of {granted}");
}

#[test]
fn no_grant_lifts_a_leg_over_the_relays_own_limit() {
    let mut relay = Table::new();
    let alice = LegRequest { kbit_per_s: u32::MAX, ..request(1, 2, 1) };
    let alice = relay.forwarder.join(relay.now, alice, 0).expect("there is room").channel;
    relay.join(2, 1, 2).expect("there is room");
    while relay.send(alice, 1) != Verdict::Drop(Reason::OverRate) {}
    relay.now += Duration::from_millis(100);
    let mut passed = 0;
    while relay.send(alice, 1) != Verdict::Drop(Reason::OverRate) {
        passed += FRAME_BYTES;
    }
    assert!(passed <= u64::from(LEG_KBIT_PER_S_MAX) * 125 / 10 + FRAME_BYTES, "{passed}");
}

#[test]
fn a_device_has_a_bounded_number_of_legs() {
    let mut relay = Table::new();
    let mut last = 0;
    for peer in 0..LEGS_PER_DEVICE_MAX {
        last = relay.join(200, u8::try_from(peer).expect("few"), 1).expect("there is room").channel;
    }
    assert_eq!(relay.join(200, 100, 1), Err(JoinError::DeviceFull));
    assert!(relay.join(200, 0, 2).expect("one of its own is replaced").replaced.is_some());
    relay.forwarder.leave(last);
    assert!(relay.join(200, 100, 1).is_ok());
}

#[test]
fn a_full_relay_refuses_joins_and_goes_on_with_what_it_has() {
    let mut relay = Table::new();
    let (alice, bob) = relay.call();
    let mut refused = None;
    for number in 0..LEGS_MAX {
        if let Err(error) = relay.forwarder.join(relay.now, numbered(number), 0) {
            refused = Some((number, error));
            break;
        }
    }
    let (number, error) = refused.expect("it is full some time");
    assert_eq!(error, JoinError::Full);
    assert!(number >= LEGS_MAX * usize::from(BUSY_PERCENT - 1) / 100, "{number} legs were little");
    assert!(relay.forwarder.load_percent(relay.now) >= BUSY_PERCENT);
    assert_eq!(relay.send(alice, 1), Verdict::Forward { to: at(2), channel: bob });
    assert!(relay.join(2, 1, 9).is_ok(), "a call that runs may replace its leg");
}

#[test]
fn channels_are_never_twice_in_the_table() {
    let mut relay = Table::new();
    let channels: std::collections::BTreeSet<u32> =
        (0..1000).map(|number| relay.forwarder.join(relay.now, numbered(number), 0xffff_ffff).expect("there is room").channel).collect();
    assert_eq!(channels.len(), 1000);
}

#[derive(Debug, Clone)]
enum Step {
    Join { device: u8, peer: u8, from: u8, random: u32 },
    Leave { device: u8, peer: u8 },
    Move { device: u8, peer: u8, to: u8 },
    Frame { of: u8, of_peer: u8, from: u8, bytes: usize, flip: u32 },
    Wait(u64),
    Noise(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..5_u8;
    prop_oneof![
        (who.clone(), who.clone(), who.clone(), any::<u32>()).prop_map(|(device, peer, from, random)| Step::Join {
            device,
            peer,
            from,
            random
        }),
        (who.clone(), who.clone()).prop_map(|(device, peer)| Step::Leave { device, peer }),
        (who.clone(), who.clone(), who.clone()).prop_map(|(device, peer, to)| Step::Move { device, peer, to }),
        (who.clone(), who.clone(), who, 0..1500_usize, prop_oneof![4 => Just(0), 1 => any::<u32>()])
            .prop_map(|(of, of_peer, from, bytes, flip)| Step::Frame { of, of_peer, from, bytes, flip }),
        (0..2000_u64).prop_map(Step::Wait),
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Step::Noise),
    ]
}

/// What a simple reader of the rules expects: legs by (device, peer), with their channel and address.
type Expected = std::collections::BTreeMap<(u8, u8), (u32, u8)>;

proptest! {
    #[test]
    fn over_any_history_frames_go_only_where_the_rules_say(steps in proptest::collection::vec(step(), 1..200)) {
        let mut relay = Table::new();
        let mut expected = Expected::new();
        for step in steps {
            match step {
                Step::Join { device, peer, from, random } => {
                    if let Ok(joined) = relay.forwarder.join(relay.now, request(device, peer, from), random) {
                        prop_assert_ne!(device, peer);
                        prop_assert_eq!(joined.with, expected.get(&(peer, device)).map(|leg| leg.0));
                        expected.insert((device, peer), (joined.channel, from));
                    }
                }
                Step::Leave { device, peer } => {
                    if let Some((channel, _)) = expected.remove(&(device, peer)) {
                        prop_assert_eq!(relay.forwarder.leave(channel), expected.get(&(peer, device)).map(|leg| leg.0));
                    }
                }
                Step::Move { device, peer, to } => {
                    if let Some(leg) = expected.get_mut(&(device, peer)) {
                        relay.forwarder.set_address(relay.now, leg.0, at(to));
                        leg.1 = to;
                    }
                }
                Step::Frame { of, of_peer, from, bytes, flip } => {
                    let channel = expected.get(&(of, of_peer)).map_or(0, |leg| leg.0) ^ flip;
                    let verdict = relay.forwarder.handle(relay.now, at(from), &relay_frame(channel, &packet(bytes)));
                    if let Verdict::Forward { to, channel: out } = verdict {
                        let sender = expected.iter().find(|(_, leg)| leg.0 == channel).map(|(pair, leg)| (*pair, leg.1));
                        let ((device, peer), address) = sender.expect("the channel is somebody's");
                        prop_assert_eq!(address, from);
                        let other = expected.get(&(peer, device)).expect("the other leg is there");
                        prop_assert_eq!((out, to), (other.0, at(other.1)));
                    }
                }
                Step::Wait(ms) => relay.now += Duration::from_millis(ms),
                Step::Noise(bytes) => { relay.forwarder.handle(relay.now, at(1), &bytes); }
            }
            prop_assert_eq!(relay.forwarder.legs(), expected.len());
        }
        for (channel, _) in expected.into_values() {
            relay.forwarder.leave(channel);
        }
        prop_assert_eq!(relay.forwarder.legs(), 0);
        prop_assert!(relay.forwarder.legs_of.is_empty());
    }
}

/// Length of the frames that [`Table::send`] sends.
const FRAME_BYTES: u64 = 105;

/// A forwarder and a clock.
struct Table {
    forwarder: Forwarder,
    now: Instant,
    random: u32,
}

impl Table {
    fn new() -> Self {
        let now = Instant::now();
        Self { forwarder: Forwarder::new(now), now, random: 0x1234_5678 }
    }

    fn join(&mut self, device: u8, peer: u8, from: u8) -> Result<Joined, JoinError> {
        self.random = self.random.wrapping_mul(747_796_405).wrapping_add(12_345);
        self.forwarder.join(self.now, request(device, peer, from), self.random)
    }

    /// Alice (device and address 1) and bob (2), joined.
    fn call(&mut self) -> (u32, u32) {
        let alice = self.join(1, 2, 1).expect("there is room").channel;
        let bob = self.join(2, 1, 2).expect("there is room").channel;
        (alice, bob)
    }

    /// As [`Table::call`], with grants of so much.
    fn call_at(&mut self, kbit_per_s: u32) -> (u32, u32) {
        let mut join = |device, peer, random| {
            let request = LegRequest { kbit_per_s, ..request(device, peer, device) };
            self.forwarder.join(self.now, request, random).expect("there is room").channel
        };
        (join(1, 2, 0x1111_0000), join(2, 1, 0x2222_0000))
    }

    /// Sends until the relay drops.
    fn bytes_passed(&mut self, channel: u32, from: u8) -> u64 {
        let mut passed = 0;
        while matches!(self.send(channel, from), Verdict::Forward { .. }) {
            passed += FRAME_BYTES;
        }
        passed
    }

    fn send(&mut self, channel: u32, from: u8) -> Verdict {
        self.forwarder.handle(self.now, at(from), &relay_frame(channel, &packet(100)))
    }
}

fn request(device: u8, peer: u8, from: u8) -> LegRequest {
    let (device, peer) = (DeviceKey([device; 32]), DeviceKey([peer; 32]));
    LegRequest { call: CALL, device, peer, address: at(from), proved: at(from), kbit_per_s: GRANTED_KBIT_PER_S, key: KEY }
}

/// A leg of a device that nobody else is.
fn numbered(number: usize) -> LegRequest {
    let mut device = [0xaa; 32];
    device[..8].copy_from_slice(&number.to_be_bytes());
    LegRequest { device: DeviceKey(device), ..request(0, 0, 3) }
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 1000))
}

fn a_move(channel: u32, counter: u64, key: &LegKey) -> Vec<u8> {
    let bytes = Move { channel, counter }.encode();
    [&bytes[..], &leg_code(key, &bytes)].concat()
}

/// Bytes that look like a QUIC packet.
fn packet(bytes: usize) -> Vec<u8> {
    vec![0x45; bytes]
}
