//! Lines that lose much, all the time: packets go once, by one way, and a way that dies or loses clearly more than another is left all the same.

use ahoy_sim::host::{CALLEE, CALLER};
use ahoy_sim::link::{Loss, Quality};
use ahoy_sim::matrix::typical_nats;
use ahoy_sim::pair::{Access, Links, Pair, Side};
use ahoy_sim::seeds::{chosen, command, median};
use ahoy_sim::voice::FRAME;
use ahoy_sim::world::{ANSWER_AT, Fault, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// How long a loss that has just begun may take agents by surprise.
const SURPRISE: Duration = Duration::from_secs(6);
/// How long a steady loss is watched.
const WATCHED: Duration = Duration::from_secs(60);
/// Share of packets of voice that may go more than once.
const COPIES_MAX: f64 = 0.02;
/// One way in so many minutes of one side may be left for another: who finds nobody answering over UDP goes to a relay by TCP, which loses
/// nothing, and a path that loses half is rightly left for that.
const FLIPS_SHARE: usize = 6;

/// Each packet by itself, so many percent.
fn random(percent: u32) -> Loss {
    Loss::Random(f64::from(percent) / 100.0)
}

/// In bursts as real lines have them, with a mean of some packets: as the patterns of the voice bench.
fn bursty(percent: u32) -> Loss {
    let end = if percent < 40 { 0.5 } else { 0.4 };
    let share = f64::from(percent) / 100.0;
    Loss::Bursts { begin: end * share / (1.0 - share), end, lost: 1.0 }
}

/// A call that has gone directly, or through a relay, for some seconds.
fn settled(is_direct: bool, seed: u64) -> World {
    let [_, usual, hard] = typical_nats();
    let nat = if is_direct { usual } else { hard };
    let pair = Pair::apart([Side::of(Access::Nat(nat)); 2]);
    let links = Links { relays: [Quality::of_ms(20); 3], ..Links::good() };
    let mut world = pair.world(seed, &links);
    world.answer();
    world.run_until(ANSWER_AT + 30 * SECOND + Duration::from_millis(seed * 7 % 1000));
    assert_eq!(world.is_direct(), is_direct, "seed {seed}");
    world
}

/// Share of a host's packets of voice that went more than once since then.
fn copied(world: &World, host: usize, from: Duration) -> f64 {
    let copies = world.hosts[host].copies.iter().filter(|at| **at >= from).count();
    copies as f64 / ((world.now() - from).as_secs_f64() / FRAME.as_secs_f64())
}

/// Changes of the way that comes first, since then.
fn flips(world: &World, host: usize, from: Duration) -> usize {
    let routes = &world.hosts[host].routes;
    routes.windows(2).filter(|pair| pair[1].0 >= from && pair[0].1.ways().next() != pair[1].1.ways().next()).count()
}

fn judge(loss: Loss, is_direct: bool, name: &str) {
    let (mut shares, mut flipped) = (Vec::new(), 0);
    let seeds = chosen(0..6, 0..60);
    for seed in &seeds {
        let mut world = settled(is_direct, *seed);
        world.befall(Fault::Losses { host: CALLER, loss });
        world.run(SURPRISE);
        let from = world.now();
        world.run(WATCHED);
        for host in [CALLER, CALLEE] {
            shares.push(copied(&world, host, from));
            flipped += flips(&world, host, from);
        }
        assert!(world.violations().is_empty(), "{:?}\n{}", world.violations(), command("losses", name, *seed));
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    println!("{loss:?}, direct {is_direct}: {:.2} % sent more than once, {flipped} flips; {shares:.3?}", mean * 100.0);
    // Between two legs alone half lost each way leaves little to tell a death by.
    let (copies_max, flips_share) = if is_direct || loss.mean() < 0.45 { (COPIES_MAX, FLIPS_SHARE) } else { (0.03, 4) };
    assert!(mean < copies_max, "{loss:?}: {shares:?}\n{}", command("losses", name, seeds[0]));
    assert!(flipped <= shares.len() / flips_share, "{loss:?}: {flipped} flips\n{}", command("losses", name, seeds[0]));
}

#[test]
fn random_losses_by_every_way_double_nothing() {
    for percent in [10, 20, 30, 50] {
        judge(random(percent), true, "random_losses");
        judge(random(percent), false, "random_losses");
    }
}

#[test]
fn bursty_losses_by_every_way_double_nothing() {
    for percent in [10, 20, 30, 50] {
        judge(bursty(percent), true, "bursty_losses");
        judge(bursty(percent), false, "bursty_losses");
    }
}

#[test]
fn a_path_that_dies_on_a_lossy_line_is_left() {
    for percent in [10, 30, 50] {
        let mut gaps = Vec::new();
        for seed in chosen(0..6, 0..60) {
            let mut world = settled(true, seed);
            world.befall(Fault::Losses { host: CALLER, loss: random(percent) });
            world.run(20 * SECOND);
            let cut_at = world.now();
            world.befall(Fault::Cut(true));
            world.run(15 * SECOND);
            assert!(!world.is_direct(), "{}", command("losses", "a_path_that_dies", seed));
            gaps.extend(world.hosts.iter().map(|host| host.ear.longest_gap(cut_at, world.now())));
            world.befall(Fault::Cut(false));
            world.run(60 * SECOND);
            // At half lost, chance may keep it under suspicion for longer.
            assert!(world.is_direct() || percent == 50, "taken again: {}", command("losses", "a_path_that_dies", seed));
        }
        let limit = Duration::from_millis([300, 500, 900][[10, 30, 50].iter().position(|known| *known == percent).expect("known")]);
        println!("{percent} % lost: longest gap {:?} (median), {:?} (most)", median(&gaps), gaps.iter().max());
        assert!(median(&gaps) <= Some(limit), "{percent} %: {gaps:?}");
    }
}

#[test]
fn a_path_that_loses_clearly_more_than_a_relay_is_left() {
    let seeds = chosen(0..6, 0..60);
    let (mut stayed, mut came_back) = (Vec::new(), Vec::new());
    for seed in &seeds {
        let mut world = settled(true, *seed);
        world.befall(Fault::CoreLoss(0.4));
        world.run(30 * SECOND);
        if !world.hosts.iter().all(|host| host.agent().route().is_relayed()) {
            stayed.push(*seed);
        }
        let from = world.now();
        world.run(30 * SECOND);
        if [CALLER, CALLEE].iter().any(|host| flips(&world, *host, from) > 0) {
            came_back.push(*seed);
        }
    }
    // How long it takes to be certain is chance's.
    println!("seeds where it took more than half a minute: {stayed:?}; where the way changed after that: {came_back:?}");
    let wrong = stayed.first().or(came_back.first()).copied().unwrap_or(0);
    let is_rare = |seeds_wrong: &[u64]| seeds_wrong.len() <= seeds.len() / 20;
    assert!(is_rare(&stayed) && is_rare(&came_back), "{stayed:?} {came_back:?}\n{}", command("losses", "a_path_that_loses", wrong));
}
