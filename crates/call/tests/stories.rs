//! Calls between desks whose effects are carried out at once, by hand-moved time.

use ahoy_call::{CONFIRM_TIME, Caller, Desk, Effect, Event, INVITE_TIME, Identity, LAST_WORD_TIME, LOOK_UP_TIME, PlaceError, RING_TIME};
use ahoy_protocol::invitation::SignalKind;
use ahoy_protocol::peer::{EndReason, PeerMessage};
use ahoy_protocol::{CallId, DeviceKey, Name, NodeKey, UserKey};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const RELAY: NodeKey = NodeKey([9; 32]);

/// Desks joined by a network that loses nothing but what a test tells it to.
struct World {
    now: Instant,
    desks: BTreeMap<DeviceKey, (Identity, Desk)>,
    events: BTreeMap<DeviceKey, Vec<Event>>,
    /// What other than sound and looking up was asked for, by device.
    effects: BTreeMap<DeviceKey, Vec<Effect>>,
    /// Devices that nothing reaches.
    unreachable: Vec<DeviceKey>,
    calls: u8,
}

fn device(number: u8) -> DeviceKey {
    DeviceKey([number; 32])
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

impl World {
    /// Users with the devices given; the user key's order is the order of the list.
    fn new(users: &[(&str, &[u8])]) -> Self {
        let mut desks = BTreeMap::new();
        for (rank, (user, devices)) in users.iter().enumerate() {
            for number in *devices {
                let user_key = UserKey([u8::try_from(rank).expect("few users"); 32]);
                let me = Identity { name: name(user), user: user_key, device: device(*number) };
                desks.insert(device(*number), (me.clone(), Desk::new(me)));
            }
        }
        let (events, effects) = (BTreeMap::new(), BTreeMap::new());
        Self { now: Instant::now(), desks, events, effects, unreachable: Vec::new(), calls: 0 }
    }

    fn desk(&mut self, at: u8) -> &mut Desk {
        &mut self.desks.get_mut(&device(at)).expect("a desk").1
    }

    fn place(&mut self, at: u8, to: &str) -> Result<CallId, PlaceError> {
        self.calls += 1;
        let (call, now) = (CallId([self.calls; 16]), self.now);
        self.desk(at).place(now, call, name(to))?;
        Ok(call)
    }

    fn call(&mut self, at: u8, to: &str) -> CallId {
        let call = self.place(at, to).expect("free");
        self.run();
        call
    }

    fn answer(&mut self, at: u8) {
        let now = self.now;
        assert!(self.desk(at).answer(now), "nothing rings");
        self.run();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        for (_, desk) in self.desks.values_mut() {
            desk.handle_timeout(now);
        }
        self.run();
    }

    fn run(&mut self) {
        while let Some((at, effect)) = self.next_effect() {
            self.carry_out(at, effect);
        }
    }

    fn next_effect(&mut self) -> Option<(DeviceKey, Effect)> {
        self.desks.iter_mut().find_map(|(at, (_, desk))| Some((*at, desk.poll_effect()?)))
    }

    fn carry_out(&mut self, at: DeviceKey, effect: Effect) {
        let now = self.now;
        self.effects.entry(at).or_default().push(effect.clone());
        match effect {
            Effect::LookUp { call, name } => {
                let found: Vec<DeviceKey> = self.desks.iter().filter(|(_, (me, _))| me.name == name).map(|(device, _)| *device).collect();
                self.to(at, |desk| desk.handle_found(now, call, &found));
            }
            Effect::Invite { call, device } => {
                let me = self.desks[&at].0.clone();
                let caller = Caller { name: me.name, user: me.user, device: at };
                self.to(device, |desk| desk.handle_invite(now, call, caller));
            }
            Effect::JoinCaller { call, device } => {
                self.to(device, |desk| desk.handle_signal(now, call, at, &SignalKind::Ringing { relay: Some(RELAY) }));
            }
            Effect::ConnectCallee { call, device, relay } => {
                assert_eq!(relay, RELAY);
                self.to(device, |desk| desk.handle_peer_connected(now, call, at));
                self.to(at, |desk| desk.handle_peer_connected(now, call, device));
            }
            Effect::Signal { call, device, kind } => self.to(device, |desk| desk.handle_signal(now, call, at, &kind)),
            Effect::Tell { call, device, message } => {
                self.to(device, |desk| desk.handle_peer_message(now, call, at, &message));
            }
            Effect::Close { .. } | Effect::StartMedia { .. } | Effect::StopMedia { .. } => {}
            Effect::Event(event) => self.events.entry(at).or_default().push(event),
        }
    }

    fn to(&mut self, device: DeviceKey, input: impl FnOnce(&mut Desk)) {
        if !self.unreachable.contains(&device)
            && let Some((_, desk)) = self.desks.get_mut(&device)
        {
            input(desk);
        }
    }

    fn words(&self, at: u8) -> Vec<String> {
        let word = |event: &Event| match event {
            Event::Calling { devices, .. } => format!("calling {devices}"),
            Event::Incoming { from, .. } => format!("incoming {from}"),
            Event::Ringing { .. } => "ringing".to_owned(),
            Event::Connected { with, .. } => format!("connected {with}"),
            Event::Ended { reason, .. } => reason.as_str().to_owned(),
        };
        self.events.get(&device(at)).map(|events| events.iter().map(word).collect()).unwrap_or_default()
    }

    /// Every call ended exactly once at every desk that knew of it, sound was stopped where it was started, and nobody is left in a call.
    fn assert_all_over(&mut self) {
        for (at, (_, desk)) in &self.desks {
            assert_eq!(desk.current(), None, "{at:?} is still in a call");
            assert_eq!(desk.poll_timeout(), None);
        }
        for effects in self.effects.values() {
            let count = |wanted: fn(&Effect) -> bool| effects.iter().filter(|effect| wanted(effect)).count();
            let started = count(|effect| matches!(effect, Effect::StartMedia { .. }));
            assert_eq!(started, count(|effect| matches!(effect, Effect::StopMedia { .. })), "{effects:?}");
        }
    }
}

fn two() -> World {
    World::new(&[("alice", &[1]), ("bob", &[2])])
}

#[test]
fn a_call_rings_is_answered_and_ends_for_both() {
    let mut world = two();
    world.call(1, "bob");
    world.answer(2);
    world.pass(Duration::from_secs(60));
    let now = world.now;
    assert!(world.desk(1).hang_up(now));
    world.run();
    assert_eq!(world.words(1), ["calling 1", "ringing", "connected bob", "hung-up"]);
    assert_eq!(world.words(2), ["incoming alice", "connected alice", "hung-up"]);
    let Some(Event::Ended { connected_for, .. }) = world.events[&device(2)].last() else { panic!("no end") };
    assert_eq!(*connected_for, Some(Duration::from_secs(60)));
    world.assert_all_over();
}

#[test]
fn a_declined_call_is_declined_on_both_sides() {
    let mut world = two();
    world.call(1, "bob");
    let now = world.now;
    assert!(world.desk(2).decline(now));
    world.run();
    assert_eq!(world.words(1), ["calling 1", "ringing", "declined"]);
    assert_eq!(world.words(2), ["incoming alice", "declined"]);
    world.assert_all_over();
}

#[test]
fn a_call_that_nobody_takes_is_missed_on_both_sides() {
    let mut world = two();
    world.call(1, "bob");
    world.pass(RING_TIME);
    assert_eq!(world.words(1), ["calling 1", "ringing", "missed"]);
    assert_eq!(world.words(2), ["incoming alice", "missed"]);
    world.assert_all_over();
}

#[test]
fn a_call_given_up_is_cancelled_here_and_missed_there() {
    let mut world = two();
    world.call(1, "bob");
    let now = world.now;
    world.desk(1).hang_up(now);
    world.run();
    assert_eq!(world.words(1).last().map(String::as_str), Some("cancelled"));
    assert_eq!(world.words(2).last().map(String::as_str), Some("missed"));
    world.assert_all_over();
}

#[test]
fn somebody_unknown_or_out_of_reach_is_unreachable() {
    let mut world = two();
    world.call(1, "carol");
    assert_eq!(world.words(1), ["unreachable"]);
    world.unreachable.push(device(2));
    world.call(1, "bob");
    world.pass(INVITE_TIME);
    assert_eq!(world.words(1)[1..], ["calling 1", "unreachable"]);
    world.assert_all_over();
}

#[test]
fn a_look_up_that_never_ends_ends_the_call() {
    let mut world = two();
    let now = world.now;
    world.place(1, "bob").expect("free");
    let desk = world.desk(1);
    assert!(matches!(desk.poll_effect(), Some(Effect::LookUp { .. })));
    desk.handle_timeout(now + LOOK_UP_TIME);
    assert!(matches!(desk.poll_effect(), Some(Effect::Event(Event::Ended { reason: EndReason::Unreachable, .. }))));
}

#[test]
fn a_second_call_is_told_busy_and_the_first_goes_on() {
    let mut world = World::new(&[("alice", &[1]), ("bob", &[2]), ("carol", &[3])]);
    let first = world.call(1, "bob");
    world.answer(2);
    world.call(3, "bob");
    assert_eq!(world.words(3), ["calling 1", "busy"]);
    assert_eq!(world.desk(2).current(), Some(first));
    assert_eq!(world.place(2, "carol"), Err(PlaceError::InCall));
}

#[test]
fn nobody_calls_himself() {
    assert_eq!(two().place(1, "Alice"), Err(PlaceError::Myself));
}

#[test]
fn both_devices_ring_and_one_stops_when_the_other_answers() {
    let mut world = World::new(&[("alice", &[1]), ("bob", &[2, 3])]);
    world.call(1, "bob");
    world.answer(3);
    assert_eq!(world.words(1), ["calling 2", "ringing", "ringing", "connected bob"]);
    assert_eq!(world.words(2), ["incoming alice", "answered-elsewhere"]);
    assert_eq!(world.words(3), ["incoming alice", "connected alice"]);
    let now = world.now;
    world.desk(3).hang_up(now);
    world.run();
    world.assert_all_over();
}

#[test]
fn of_two_answers_the_first_wins() {
    let mut world = World::new(&[("alice", &[1]), ("bob", &[2, 3])]);
    world.call(1, "bob");
    let now = world.now;
    // Both people press the button before either answer arrives.
    assert!(world.desk(2).answer(now));
    assert!(world.desk(3).answer(now));
    world.run();
    assert_eq!(world.words(2).last().map(String::as_str), Some("connected alice"));
    assert_eq!(world.words(3).last().map(String::as_str), Some("answered-elsewhere"));
}

#[test]
fn one_busy_device_does_not_keep_the_other_from_answering() {
    let mut world = World::new(&[("alice", &[1]), ("bob", &[2, 3]), ("carol", &[4])]);
    world.unreachable.push(device(3));
    world.call(4, "bob");
    world.answer(2);
    world.unreachable.clear();
    world.call(1, "bob");
    world.answer(3);
    assert_eq!(world.words(1), ["calling 2", "ringing", "connected bob"]);
}

#[test]
fn when_two_call_each_other_the_call_of_the_lower_key_stands() {
    let mut world = two();
    let stands = world.place(1, "bob").expect("free");
    world.place(2, "alice").expect("free");
    world.run();
    assert_eq!(world.desk(1).current(), Some(stands));
    assert_eq!(world.desk(2).current(), Some(stands));
    assert_eq!(world.words(1), ["calling 1", "ringing", "connected bob"]);
    assert_eq!(world.words(2).last().map(String::as_str), Some("connected alice"));
    assert!(!world.words(2).iter().any(|word| word == "cancelled"), "{:?}", world.words(2));
}

#[test]
fn a_replayed_invitation_does_not_ring_again() {
    let mut world = two();
    let call = world.call(1, "bob");
    let now = world.now;
    world.desk(2).decline(now);
    world.run();
    let caller = Caller { name: name("alice"), user: UserKey([0; 32]), device: device(1) };
    world.desk(2).handle_invite(now, call, caller);
    world.run();
    assert_eq!(world.words(2), ["incoming alice", "declined"]);
}

#[test]
fn a_lost_connection_ends_the_call_as_lost() {
    let mut world = two();
    let call = world.call(1, "bob");
    world.answer(2);
    let now = world.now;
    world.desk(1).handle_peer_lost(now, call, device(2));
    world.desk(2).handle_peer_lost(now, call, device(1));
    world.run();
    assert_eq!(world.words(1).last().map(String::as_str), Some("lost"));
    assert_eq!(world.words(2).last().map(String::as_str), Some("lost"));
    world.assert_all_over();
}

#[test]
fn an_answer_that_is_never_confirmed_is_lost() {
    let mut world = two();
    world.call(1, "bob");
    world.unreachable.push(device(1));
    world.answer(2);
    world.pass(CONFIRM_TIME);
    assert_eq!(world.words(2).last().map(String::as_str), Some("lost"));
}

#[test]
fn strangers_cannot_end_or_answer_a_call() {
    let mut world = World::new(&[("alice", &[1]), ("bob", &[2]), ("eve", &[6])]);
    let call = world.call(1, "bob");
    let now = world.now;
    for at in [1, 2] {
        let desk = world.desk(at);
        desk.handle_signal(now, call, device(6), &SignalKind::Cancel(EndReason::HungUp));
        desk.handle_signal(now, call, device(6), &SignalKind::Reject(EndReason::Declined));
        desk.handle_peer_message(now, call, device(6), &PeerMessage::End(EndReason::HungUp));
        desk.handle_peer_message(now, call, device(6), &PeerMessage::Answer);
        desk.handle_peer_message(now, call, device(6), &PeerMessage::Confirm);
        desk.handle_peer_lost(now, call, device(6));
    }
    world.run();
    world.answer(2);
    assert_eq!(world.words(1), ["calling 1", "ringing", "connected bob"]);
}

#[test]
fn a_caller_who_begins_anew_is_not_told_busy_by_his_own_dead_call() {
    let mut world = two();
    world.call(1, "bob");
    world.answer(2);
    // Alice's program is killed and started again; bob does not know yet.
    let me = world.desks[&device(1)].0.clone();
    world.desks.insert(device(1), (me.clone(), Desk::new(me)));
    let again = world.call(1, "bob");
    assert_eq!(world.words(2), ["incoming alice", "connected alice", "lost", "incoming alice"]);
    assert_eq!(world.desk(2).current(), Some(again));
}

#[test]
fn an_invitation_that_its_cancellation_overtook_does_not_ring() {
    let mut world = two();
    let (now, call) = (world.now, CallId([7; 16]));
    world.desk(2).handle_signal(now, call, device(1), &SignalKind::Cancel(EndReason::Cancelled));
    let caller = Caller { name: name("alice"), user: UserKey([0; 32]), device: device(1) };
    world.desk(2).handle_invite(now, call, caller);
    world.run();
    assert_eq!(world.words(2), Vec::<String>::new());
}

#[test]
fn a_device_that_goes_offline_leaves_the_call_to_the_others() {
    let mut world = World::new(&[("alice", &[1]), ("bob", &[2, 3])]);
    world.call(1, "bob");
    let now = world.now;
    world.desk(2).leave(now);
    world.run();
    world.answer(3);
    assert_eq!(world.words(1), ["calling 2", "ringing", "ringing", "connected bob"]);
    assert_eq!(world.words(2), ["incoming alice", "missed"]);
}

#[test]
fn a_device_whose_connection_goes_waits_for_the_reason() {
    let mut world = two();
    let call = world.call(1, "bob");
    let now = world.now;
    world.desk(2).handle_peer_lost(now, call, device(1));
    world.run();
    assert_eq!(world.words(2), ["incoming alice"]);
    world.desk(2).handle_signal(now, call, device(1), &SignalKind::Cancel(EndReason::AnsweredElsewhere));
    world.run();
    assert_eq!(world.words(2), ["incoming alice", "answered-elsewhere"]);
}

#[test]
fn a_lost_connection_while_ringing_ends_without_a_reason_too() {
    let mut world = two();
    let call = world.call(1, "bob");
    let now = world.now;
    world.unreachable.push(device(1));
    world.desk(2).handle_peer_lost(now, call, device(1));
    world.pass(LAST_WORD_TIME);
    assert_eq!(world.words(2), ["incoming alice", "missed"]);
}

#[test]
fn a_device_that_declines_before_its_connection_stands_has_declined() {
    let mut world = two();
    let call = world.call(1, "bob");
    let now = world.now;
    world.desk(1).handle_peer_lost(now, call, device(2));
    world.run();
    assert_eq!(world.words(1), ["calling 1", "ringing"]);
    world.desk(1).handle_signal(now, call, device(2), &SignalKind::Reject(EndReason::Declined));
    world.run();
    assert_eq!(world.words(1), ["calling 1", "ringing", "declined"]);
}

#[test]
fn a_device_that_is_lost_and_says_nothing_is_unreachable() {
    let mut world = two();
    let call = world.call(1, "bob");
    let now = world.now;
    world.unreachable.push(device(2));
    world.desk(1).handle_peer_lost(now, call, device(2));
    world.pass(LAST_WORD_TIME);
    assert_eq!(world.words(1), ["calling 1", "ringing", "unreachable"]);
}
