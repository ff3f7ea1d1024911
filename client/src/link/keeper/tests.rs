//! Two keepers with hand-moved time between them.

use super::*;

fn relay(number: u8) -> NodeKey {
    NodeKey([number; 32])
}

fn steps(keeper: &mut LegKeeper) -> Vec<Step> {
    std::iter::from_fn(|| keeper.poll_step()).collect()
}

/// Both sides of a call, and relays that live or not. What is told arrives unless the call has no way left and nobody carries signals.
struct World {
    now: Instant,
    callee: LegKeeper,
    caller: LegKeeper,
    alive: Vec<u8>,
    /// Relays that the caller cannot reach.
    cut_from_caller: Vec<u8>,
    has_signals: bool,
    told: usize,
}

impl World {
    fn new(relays: &[u8]) -> Self {
        let now = Instant::now();
        let mut callee = LegKeeper::callee(now, 1, relays.iter().copied().map(relay).collect());
        let first = steps(&mut callee);
        let [Step::Join { relay: first, .. }, Step::Tell(_)] = first[..] else { panic!("{first:?}") };
        assert!(callee.handle_joined(now, 0, first, false));
        let caller = LegKeeper::caller(now, 2, first);
        let alive = relays.to_vec();
        let mut world = Self { now, callee, caller, alive, cut_from_caller: Vec::new(), has_signals: true, told: 0 };
        world.run();
        world
    }

    fn uses(&self) -> (Vec<u8>, Vec<u8>) {
        let of = |keeper: &LegKeeper| keeper.in_use().map(|(_, relay)| relay.0[0]).collect();
        (of(&self.callee), of(&self.caller))
    }

    /// Carries out whatever both want, until neither wants anything.
    fn run(&mut self) {
        loop {
            let (of_callee, of_caller) = (steps(&mut self.callee), steps(&mut self.caller));
            if of_callee.is_empty() && of_caller.is_empty() {
                return;
            }
            for step in of_callee {
                self.carry_out(Side::Callee, step);
            }
            for step in of_caller {
                self.carry_out(Side::Caller, step);
            }
        }
    }

    fn carry_out(&mut self, side: Side, step: Step) {
        let now = self.now;
        let has_way = self.has_signals || self.callee.is_met() && self.caller.is_met();
        let (own, other) = match side {
            Side::Callee => (&mut self.callee, &mut self.caller),
            Side::Caller => (&mut self.caller, &mut self.callee),
        };
        match step {
            Step::Join { leg, relay } => {
                let number = relay.0[0];
                let is_reached = self.alive.contains(&number) && !(side == Side::Caller && self.cut_from_caller.contains(&number));
                if !is_reached {
                    return own.handle_failed(now, leg, relay);
                }
                let there = other.in_use().find(|(_, used)| *used == relay).map(|(leg, _)| leg);
                own.handle_joined(now, leg, relay, there.is_some());
                if let Some(there) = there {
                    other.handle_peer(now, there, true);
                }
            }
            // The other side's leg on the relay hears of it, if the relay lives.
            Step::Leave { leg } => other.handle_peer(now, leg, false),
            Step::Tell(news) => {
                self.told += 1;
                if has_way {
                    other.handle_news(now, news);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(10);
            self.callee.handle_timeout(self.now);
            self.caller.handle_timeout(self.now);
            self.run();
        }
    }

    /// A relay dies, and both sides notice at the same time.
    fn kill(&mut self, number: u8) {
        self.alive.retain(|alive| *alive != number);
        for leg in 0..LEGS_MAX as u8 {
            if self.callee.in_use().any(|(used, node)| used == leg && node == relay(number)) {
                self.callee.handle_dead(self.now, leg);
            }
            if self.caller.in_use().any(|(used, node)| used == leg && node == relay(number)) {
                self.caller.handle_dead(self.now, leg);
            }
        }
        self.run();
    }

    fn is_whole(&self) -> bool {
        self.callee.is_met() && self.caller.is_met()
    }
}

#[test]
fn both_meet_at_the_best_relay() {
    let world = World::new(&[3, 1, 2]);
    assert_eq!(world.uses(), (vec![3], vec![3]));
    assert!(world.is_whole());
    assert_eq!((world.callee.poll_timeout(), world.caller.poll_timeout()), (None, None));
}

#[test]
fn a_second_leg_stands_by_on_another_relay() {
    let mut world = World::new(&[3, 1, 2]);
    world.callee.handle_second_wanted(world.now);
    world.run();
    assert_eq!(world.uses(), (vec![3, 1], vec![3, 1]));
}

#[test]
fn a_single_relay_is_not_joined_twice() {
    let mut world = World::new(&[3]);
    world.callee.handle_second_wanted(world.now);
    world.run();
    assert_eq!(world.uses(), (vec![3], vec![3]));
    // Another comes up later.
    world.alive.push(4);
    world.callee.handle_relays(world.now, vec![relay(3), relay(4)]);
    world.run();
    assert_eq!(world.uses(), (vec![3, 4], vec![3, 4]));
}

#[test]
fn a_leg_that_dies_is_replaced_at_once_by_the_next_best_relay() {
    let mut world = World::new(&[3, 1, 2]);
    world.callee.handle_second_wanted(world.now);
    world.run();
    world.kill(3);
    assert_eq!(world.uses(), (vec![2, 1], vec![2, 1]));
    assert!(world.is_whole());
}

#[test]
fn complaints_that_cross_a_new_name_do_not_undo_it() {
    let mut world = World::new(&[3, 1, 2]);
    world.pass(Duration::from_secs(10));
    world.kill(3);
    assert_eq!(world.uses(), (vec![1], vec![1]));
    world.callee.handle_news(world.now, LegNews::Gone { leg: 0 });
    world.run();
    assert_eq!(world.uses(), (vec![1], vec![1]));
}

#[test]
fn a_relay_that_only_the_caller_lost_is_given_up() {
    let mut world = World::new(&[3, 1]);
    world.pass(Duration::from_secs(10));
    world.cut_from_caller.push(3);
    world.caller.handle_dead(world.now, 0);
    world.run();
    assert_eq!(world.uses(), (vec![1], vec![1]));
}

#[test]
fn the_only_relay_carries_the_call_again_once_it_is_back() {
    for has_signals in [true, false] {
        let mut world = World::new(&[3]);
        world.has_signals = has_signals;
        world.pass(Duration::from_secs(10));
        world.kill(3);
        world.pass(Duration::from_secs(8));
        assert!(!world.is_whole());
        world.alive.push(3);
        world.pass(Duration::from_secs(12));
        assert!(world.is_whole(), "signals: {has_signals}");
        assert!(world.told < 100, "{} said", world.told);
    }
}

#[test]
fn while_a_call_goes_directly_a_relay_that_cannot_be_joined_is_left_alone_for_longer_and_longer() {
    let start = Instant::now();
    let (mut callee, mut caller) = (LegKeeper::callee(start, 1, vec![relay(3)]), LegKeeper::caller(start, 2, relay(3)));
    for keeper in [&mut callee, &mut caller] {
        keeper.handle_direct(start, true);
        let mut now = start;
        let mut tries = Vec::new();
        while now < start + Duration::from_secs(240) {
            if steps(keeper).iter().any(|step| matches!(step, Step::Join { .. })) {
                tries.push(now);
                keeper.handle_failed(now, 0, relay(3));
            }
            now += Duration::from_millis(100);
            keeper.handle_timeout(now);
        }
        let pauses: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let least = [5, 10, 20, 40, 60].map(Duration::from_secs);
        assert!(pauses.len() >= 5 && pauses.iter().zip(least).all(|(pause, least)| *pause >= least), "{pauses:?}");
        keeper.handle_direct(now, false);
        assert!(steps(keeper).iter().any(|step| matches!(step, Step::Join { .. })), "it is wanted now");
    }
}

#[test]
fn while_a_call_goes_directly_the_only_relay_is_joined_again_once_it_is_back() {
    let mut world = World::new(&[3]);
    world.pass(Duration::from_secs(10));
    world.callee.handle_direct(world.now, true);
    world.caller.handle_direct(world.now, true);
    world.kill(3);
    world.pass(Duration::from_secs(8));
    world.alive.push(3);
    world.pass(Duration::from_secs(30));
    assert!(world.is_whole());
}

#[test]
fn a_first_relay_that_cannot_be_joined_is_followed_by_the_next() {
    let now = Instant::now();
    let mut callee = LegKeeper::callee(now, 1, vec![relay(1), relay(2)]);
    assert_eq!(steps(&mut callee).len(), 2);
    callee.handle_failed(now, 0, relay(1));
    let join = Step::Join { leg: 0, relay: relay(2) };
    let tell = Step::Tell(LegNews::Join { leg: 0, relay: relay(2) });
    assert_eq!(steps(&mut callee), [Step::Leave { leg: 0 }, join, tell]);
}

#[test]
fn a_relay_to_which_the_other_side_does_not_come_is_given_up() {
    let now = Instant::now();
    let mut callee = LegKeeper::callee(now, 1, vec![relay(1), relay(2)]);
    callee.handle_joined(now, 0, relay(1), false);
    let _ = steps(&mut callee);
    assert_eq!(callee.poll_timeout(), Some(now + PEER_TIME));
    callee.handle_timeout(now + PEER_TIME);
    assert!(steps(&mut callee).contains(&Step::Join { leg: 0, relay: relay(2) }));
}

#[test]
fn a_name_that_comes_twice_changes_nothing() {
    let mut world = World::new(&[3]);
    world.caller.handle_news(world.now, LegNews::Join { leg: 0, relay: relay(3) });
    assert_eq!(steps(&mut world.caller), []);
    // Much later it means that the callee is there anew.
    let later = world.now + JOINED_LATELY;
    world.caller.handle_news(later, LegNews::Join { leg: 0, relay: relay(3) });
    assert_eq!(steps(&mut world.caller), [Step::Leave { leg: 0 }, Step::Join { leg: 0, relay: relay(3) }]);
}

#[test]
fn nonsense_from_the_other_side_does_nothing() {
    let mut world = World::new(&[3, 1]);
    world.pass(Duration::from_secs(10));
    world.caller.handle_news(world.now, LegNews::Join { leg: 9, relay: relay(1) });
    world.caller.handle_news(world.now, LegNews::Gone { leg: 0 });
    world.callee.handle_news(world.now, LegNews::Gone { leg: 9 });
    world.callee.handle_news(world.now, LegNews::Join { leg: 0, relay: relay(1) });
    world.run();
    assert_eq!(world.uses(), (vec![3], vec![3]));
    for number in 0..10_000u32 {
        let relay = relay(number.to_be_bytes()[3]);
        world.caller.handle_news(world.now, LegNews::Join { leg: 1, relay });
    }
    assert!(steps(&mut world.caller).len() <= 2 * NAMED_MAX as usize + 2);
}

#[test]
fn in_silence_what_was_said_is_said_again() {
    let now = Instant::now();
    let mut callee = LegKeeper::callee(now, 1, vec![relay(1)]);
    callee.handle_joined(now, 0, relay(1), false);
    let _ = steps(&mut callee);
    callee.handle_silence(now);
    assert_eq!(steps(&mut callee), [Step::Tell(LegNews::Join { leg: 0, relay: relay(1) })]);
    callee.handle_peer(now, 0, true);
    callee.handle_silence(now);
    assert_eq!(steps(&mut callee), []);
}
