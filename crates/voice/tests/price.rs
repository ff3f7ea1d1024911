//! What the jitter buffer costs on networks of three kinds, beside a rival's rule on the same ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Instant;

use ahoy_voice::testing::{Playout, Price, Random, Trace, Weather, play, play_neteq};

/// The mean of seeds and of phases between packets and pulls: ours and the rival's.
fn prices(weather: Weather, seconds: u32, seeds: &[u64]) -> (Price, Price) {
    let mut sums = [0.0; 4];
    for (index, seed) in seeds.iter().enumerate() {
        let trace = Trace::new(weather, *seed, seconds, 20);
        let phase_ms = 10.0 * index as f64 / seeds.len() as f64;
        let (ours, _) = play(Instant::now(), &trace, Playout::at_phase(phase_ms), |_, _, _| {});
        let rival = play_neteq(&trace);
        for (sum, value) in sums.iter_mut().zip([ours.delay_ms, ours.late_percent, rival.delay_ms, rival.late_percent]) {
            *sum += value / seeds.len() as f64;
        }
    }
    let [delay_ms, late_percent, rival_ms, rival_percent] = sums;
    (Price { delay_ms, late_percent }, Price { delay_ms: rival_ms, late_percent: rival_percent })
}

#[test]
fn waiting_costs_little_and_far_less_than_by_the_rivals_rule() {
    for (weather, most, part) in [(Weather::Lan, 8.0, 0.6), (Weather::WifiSpikes, 75.0, 0.6), (Weather::LteLike, 110.0, 0.75)] {
        let (ours, rival) = prices(weather, 150, &[10, 11, 12]);
        println!("{}: {ours:.2?} J {:.1}, NetEq's rule {rival:.2?} J {:.1}", weather.name(), ours.j(), rival.j());
        assert!(ours.j() <= most, "{}: {ours:?}", weather.name());
        assert!(ours.j() <= part * rival.j(), "{}: {ours:?} {rival:?}", weather.name());
    }
}

#[test]
fn a_quiet_machine_on_a_quiet_network_waits_for_about_five_milliseconds() {
    let trace = Trace { interval_ms: 10, delays_ms: vec![0.5; 3_000] };
    let (price, stats) = play(Instant::now(), &trace, Playout::at_phase(1.0), |_, _, _| {});
    assert!(stats.target_ms <= 5 && stats.delay_ms <= 7, "{price:?} {stats:?}");
    assert_eq!((stats.late, stats.concealed_ms), (0, 0));
}

#[test]
fn an_hour_of_clocks_that_disagree_has_no_gap_and_a_steady_delay() {
    for drift_ppm in [-200.0, 200.0] {
        let trace = Trace { interval_ms: 20, delays_ms: vec![20.0; 180_000] };
        let playout = Playout { pull_ms: 10.0, drift_ppm, ..Playout::at_phase(3.0) };
        let (mut least_ms, mut most_ms) = (f64::INFINITY, 0.0_f64);
        let (_, stats) = play(Instant::now(), &trace, playout, |now_ms, _, receiver| {
            if now_ms > 10_000.0 {
                let delay_ms = receiver.jitter().delay_ms;
                (least_ms, most_ms) = (least_ms.min(delay_ms), most_ms.max(delay_ms));
            }
        });
        println!("{drift_ppm} ppm: {least_ms:.1} to {most_ms:.1} ms, {stats:?}");
        assert_eq!((stats.concealed_ms, stats.late, stats.skipped_ms, stats.comfort_noise_ms), (0, 0, 0, 0), "{stats:?}");
        // An hour at 200 ppm is 720 ms, and no more is stretched.
        assert!(stats.accelerated_ms + stats.expanded_ms < 760, "{stats:?}");
        // Pulls of 10 ms let the delay stand anywhere within 10 ms.
        assert!(most_ms - least_ms <= 11.0, "{least_ms} to {most_ms} ms");
    }
}

#[test]
fn after_an_outage_of_any_length_sound_is_back_soon_and_the_delay_where_it_was() {
    for outage_ms in [100_usize, 500, 1_000, 10_000] {
        let mut random = Random::new(outage_ms as u64);
        let mut delays_ms: Vec<f64> = (0..2_000).map(|_| 20.0 + random.between(0.0, 6.0)).collect();
        // What is sent during the outage comes at its end, all at once.
        for back in 0..outage_ms / 20 {
            delays_ms[1_000 + back] += (outage_ms - back * 20) as f64;
        }
        let (mut before_ms, mut after_ms, mut silent_ms) = (0.0, 0.0, 0.0_f64);
        let returns_ms = 20_020.0 + outage_ms as f64;
        let trace = Trace { interval_ms: 20, delays_ms };
        let (_, stats) = play(Instant::now(), &trace, Playout::at_phase(1.0), |now_ms, sound, receiver| {
            let delay_ms = receiver.jitter().delay_ms;
            before_ms = if now_ms < 19_900.0 { delay_ms } else { before_ms };
            after_ms = if now_ms < returns_ms + 5_000.0 { delay_ms } else { after_ms };
            let is_silent = sound.iter().all(|sample| sample.abs() < 0.001);
            // The hum pauses for half a second; it talks most of the time.
            silent_ms = if now_ms > returns_ms && now_ms < returns_ms + 1_000.0 && is_silent { silent_ms + 5.0 } else { silent_ms };
        });
        println!("{outage_ms} ms: {before_ms:.1} to {after_ms:.1} ms, silent for {silent_ms} ms, {stats:?}");
        assert!(after_ms <= before_ms + 12.0, "{outage_ms} ms: {before_ms} to {after_ms} ms");
        assert!(silent_ms <= 300.0 + 500.0, "{outage_ms} ms: silent for {silent_ms} ms");
    }
}

#[test]
fn what_the_network_held_up_is_played_in_full_and_what_it_lost_is_not_waited_for() {
    const HELD_PACKETS: usize = 5;
    for is_lost in [false, true] {
        let mut delays_ms = vec![20.0; 1_000];
        for back in 0..HELD_PACKETS {
            // Lost is what comes when nobody cares any more.
            delays_ms[500 + back] += if is_lost { 5_000.0 } else { ((HELD_PACKETS - back) * 20) as f64 };
        }
        let trace = Trace { interval_ms: 20, delays_ms };
        let (mut before_ms, mut most_ms, mut after_ms) = (0.0, 0.0_f64, 0.0);
        let (_, stats) = play(Instant::now(), &trace, Playout::at_phase(1.0), |now_ms, _, receiver| {
            let delay_ms = receiver.jitter().delay_ms;
            match now_ms {
                ..10_000.0 => before_ms = delay_ms,
                // What the buffer does not know yet to be lost is neither waited for nor gone.
                10_140.0..13_000.0 => (most_ms, after_ms) = (most_ms.max(delay_ms), delay_ms),
                _ => {}
            }
        });
        println!("lost: {is_lost}: {before_ms:.0}, up to {most_ms:.0}, then {after_ms:.0} ms; {stats:?}");
        assert!(stats.concealed_ms as usize <= (HELD_PACKETS + 1) * 20 && stats.skipped_ms == 0, "{stats:?}");
        assert!(after_ms <= before_ms + 10.0, "{before_ms} to {after_ms} ms");
        let (late, longest_ms) = if is_lost { (HELD_PACKETS as u64, before_ms + 10.0) } else { (1, before_ms + 110.0) };
        assert!(stats.late <= late && most_ms <= longest_ms, "{most_ms} ms, {stats:?}");
    }
}

#[test]
fn frames_of_every_duration_are_played_on_every_network() {
    for interval_ms in [10, 20, 40, 60] {
        for weather in Weather::ALL {
            let trace = Trace::new(weather, 5, 30, interval_ms);
            let (price, stats) = play(Instant::now(), &trace, Playout::at_phase(2.0), |_, _, _| {});
            assert!(price.j() <= 150.0, "{interval_ms} ms, {}: {price:?} {stats:?}", weather.name());
            assert_eq!(stats.lost, 0);
        }
    }
}

#[test]
fn a_path_that_becomes_slower_or_faster_is_followed() {
    let delays_ms = (0..2_000).map(|packet| if (400..1_000).contains(&packet) { 220.0 } else { 20.0 }).collect();
    let trace = Trace { interval_ms: 20, delays_ms };
    let mut delays = Vec::new();
    let (_, stats) = play(Instant::now(), &trace, Playout::at_phase(1.0), |now_ms, _, receiver| {
        if now_ms as usize / 1000 == delays.len() {
            delays.push(receiver.jitter().delay_ms);
        }
    });
    println!("{delays:.0?} {stats:?}");
    // Slower at 8 s: what is missing meanwhile is made up, and a second later nothing is late any more.
    assert!(stats.concealed_ms + stats.comfort_noise_ms <= 400 && stats.late <= 15, "{stats:?}");
    assert!(delays[10] <= 40.0, "{delays:?}");
    // Faster at 20 s: the delay that is no longer needed is gone five seconds later.
    assert!(delays[25] <= 30.0, "{delays:?}");
}
