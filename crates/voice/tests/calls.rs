//! Calls over networks of every kind, in virtual time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod simulation;

use ahoy_protocol::media::FrameDuration;
use ahoy_voice::SenderSettings;
use simulation::{Call, Random, hum, loss_pattern, quality, speech};

/// Loudness of ten milliseconds each.
fn loudness(sound: &[f32]) -> Vec<f32> {
    sound.chunks(480).map(|block| (block.iter().map(|sample| sample * sample).sum::<f32>() / 480.0).sqrt()).collect()
}

#[test]
fn on_a_perfect_network_nothing_is_made_up_and_speech_stays_as_it_is() {
    for name in ["alice", "bob"] {
        let spoken = speech(name);
        let heard = Call::over(|_, sent_ms| vec![sent_ms + 5.0]).speak(&spoken);
        let stats = heard.stats;
        assert_eq!((stats.lost, stats.late, stats.duplicates, stats.concealed_ms), (0, 0, 0, 0));
        assert_eq!((stats.expanded_ms, stats.skipped_ms), (0, 0));
        // The caution of the first seconds is taken back once, in a pause.
        assert!(stats.accelerated_ms <= 40, "{stats:?}");
        assert_eq!(heard.each_second[7].accelerated_ms, stats.accelerated_ms);
        assert!(stats.delay_ms <= 35, "{stats:?}");
        let quality = quality(&spoken, &heard.sound);
        println!("{name}: {quality:.2} {stats:?}");
        assert!(quality >= 4.2, "{name}: {quality}");
    }
}

#[test]
fn one_copy_repairs_what_a_lossy_network_takes() {
    let spoken = speech("alice");
    let mut quality_with = Vec::new();
    for copies in 0..=2 {
        let mut random = Random::new(7);
        let heard = Call::over(move |_, sent_ms| if random.unit() < 0.1 { vec![] } else { vec![sent_ms + 30.0] })
            .with_copies(copies)
            .speak(&spoken);
        let quality = quality(&spoken, &heard.sound);
        println!("{copies} copies: {quality:.2} {:?}", heard.stats);
        let lost_percent = heard.stats.lost as f64 * 100.0 / 630.0;
        assert!(lost_percent < [14.0, 2.5, 0.5][copies], "{copies} copies: {:?}", heard.stats);
        quality_with.push(quality);
    }
    assert!(quality_with[1] > quality_with[0] + 0.5);
    assert!(quality_with[1] >= 3.5 && quality_with[2] >= 3.7, "{quality_with:?}");
}

#[test]
fn bursts_of_loss_are_survived() {
    let spoken = speech("bob");
    for (pattern, least) in [("lossgen_10.txt", 2.0), ("lossgen_20.txt", 1.6)] {
        let lost = loss_pattern(pattern);
        let network = |packet: usize, sent_ms: f64| if lost[packet + 2_503] { vec![] } else { vec![sent_ms + 30.0] };
        let heard = Call::over(network).with_copies(2).speak(&spoken);
        let quality = quality(&spoken, &heard.sound);
        println!("{pattern}: {quality:.2} {:?}", heard.stats);
        assert!(quality >= least, "{pattern}: {quality}");
    }
}

#[test]
fn jitter_is_waited_for_and_no_longer_than_it_pays() {
    let spoken = hum(30);
    let mut random = Random::new(3);
    // Each packet waits up to 40 ms, and none overtakes another.
    let mut last_ms: f64 = 0.0;
    let network = move |_, sent_ms: f64| {
        last_ms = last_ms.max(sent_ms + 20.0 + random.unit() * 40.0);
        vec![last_ms]
    };
    let heard = Call::over(network).with_copies(0).speak(&spoken);
    let (middle, end) = (heard.each_second[12], heard.stats);
    assert!((25..=50).contains(&end.target_ms), "{end:?}");
    assert!(end.late - middle.late <= 30, "{end:?}");
    assert!(end.delay_ms <= end.target_ms + 25, "{end:?}");
}

#[test]
fn reordered_and_repeated_packets_are_put_right() {
    let spoken = speech("alice");
    let mut random = Random::new(5);
    let network = move |_, sent_ms: f64| {
        let delay_ms = if random.unit() < 0.2 { 45.0 } else { 5.0 };
        let first = sent_ms + delay_ms;
        if random.unit() < 0.2 { vec![first, first + random.unit() * 100.0] } else { vec![first] }
    };
    let heard = Call::over(network).with_copies(0).speak(&spoken);
    println!("{:?}", heard.stats);
    assert_eq!(heard.stats.lost, 0);
    assert!(heard.stats.duplicates > 80, "{:?}", heard.stats);
    assert!(heard.stats.late <= 6, "{:?}", heard.stats);
    assert!(quality(&spoken, &heard.sound) >= 3.9);
}

#[test]
fn after_an_outage_speech_is_back_at_once_and_no_later_than_before() {
    let spoken = hum(20);
    for outage_ms in [300.0, 1_000.0, 5_000.0] {
        let network = move |_, sent_ms: f64| if (8_000.0..8_000.0 + outage_ms).contains(&sent_ms) { vec![] } else { vec![sent_ms + 20.0] };
        let heard = Call::over(network).with_copies(0).speak(&spoken);
        let loudness = loudness(&heard.sound);
        let back = 800 + outage_ms as usize / 10;
        assert!(loudness[back - 8..back - 2].iter().all(|block| *block < 0.001), "silent in the outage of {outage_ms} ms");
        assert!(loudness[back + 15..back + 100].iter().all(|block| *block > 0.02), "speech after the outage of {outage_ms} ms");
        assert!(heard.stats.delay_ms <= heard.each_second[6].delay_ms + 5, "{:?}", heard.stats);
        assert_eq!(heard.stats.lost, outage_ms as u64 / 20);
    }
}

#[test]
fn packets_held_back_for_a_second_and_then_delivered_together_do_not_make_the_delay_grow() {
    let spoken = hum(20);
    let network = |_, sent_ms: f64| if (8_000.0..9_000.0).contains(&sent_ms) { vec![9_020.0] } else { vec![sent_ms + 20.0] };
    let heard = Call::over(network).speak(&spoken);
    assert!(heard.stats.delay_ms <= heard.each_second[6].delay_ms + 25, "{:?}", heard.stats);
    let loudness = loudness(&heard.sound);
    assert!(loudness[920..1_900].iter().all(|block| *block > 0.02));
}

#[test]
fn a_path_that_becomes_slower_or_faster_is_followed() {
    let spoken = hum(40);
    let network = |_, sent_ms: f64| vec![sent_ms + if (8_000.0..20_000.0).contains(&sent_ms) { 220.0 } else { 20.0 }];
    let heard = Call::over(network).speak(&spoken);
    println!("{:?}", heard.each_second.iter().map(|stats| stats.delay_ms).collect::<Vec<_>>());
    let slower = heard.each_second[16];
    assert!(slower.concealed_ms + 300 > 150 && slower.late <= 30, "{slower:?}");
    assert!(slower.delay_ms <= 80, "{slower:?}");
    let end = heard.stats;
    assert_eq!(end.late, slower.late, "a faster path makes nothing late");
    assert!(end.delay_ms <= 60, "{end:?}");
    let loudness = loudness(&heard.sound);
    assert!(loudness[860..1_900].iter().all(|block| *block > 0.02));
}

#[test]
fn clocks_that_disagree_cost_a_stretch_now_and_then_and_nothing_else() {
    let spoken = hum(180);
    for drift_ppm in [-200.0, 200.0] {
        let mut call = Call::over(|_, sent_ms| vec![sent_ms + 10.0]);
        call.drift_ppm = drift_ppm;
        let heard = call.speak(&spoken);
        let settled = heard.each_second[15];
        println!("{drift_ppm}: {:?}", heard.stats);
        assert_eq!((heard.stats.late, heard.stats.concealed_ms), (0, 0), "{:?}", heard.stats);
        assert!((10..=45).contains(&heard.stats.delay_ms), "{:?}", heard.stats);
        // 165 s at 200 ppm are 33 ms; a correction may overshoot by its settling and a period.
        let stretched = heard.stats.accelerated_ms + heard.stats.expanded_ms - settled.accelerated_ms - settled.expanded_ms;
        assert!(stretched <= 33 + 25, "{:?}", heard.stats);
    }
}

#[test]
fn a_machine_that_stumbles_is_not_heard() {
    let spoken = speech("alice");
    let mut call = Call::over(|_, sent_ms| vec![sent_ms + 5.0]);
    // Every half second the pulling thread stands still for 30 ms and then makes up for it.
    call.pull_late_ms = Box::new(|pull| if pull % 50 < 3 { f64::from(3 - (pull % 50) as u32) * 10.0 } else { 0.0 });
    let heard = call.speak(&spoken);
    let stats = heard.stats;
    assert_eq!((stats.late, stats.concealed_ms, stats.expanded_ms), (0, 0, 0), "{stats:?}");
    assert!(quality(&spoken, &heard.sound) >= 4.2);
}

#[test]
fn a_sender_that_stumbles_is_waited_for() {
    let spoken = speech("bob");
    let mut random = Random::new(11);
    let mut held_until: f64 = 0.0;
    let network = move |_, sent_ms: f64| {
        if random.unit() < 0.05 {
            held_until = sent_ms + 30.0;
        }
        vec![sent_ms.max(held_until) + 3.0]
    };
    let heard = Call::over(network).speak(&spoken);
    let quality = quality(&spoken, &heard.sound);
    println!("{quality:.2} {:?}", heard.stats);
    assert!(quality >= 4.0, "{quality} {:?}", heard.stats);
}

#[test]
fn numbers_wrap_in_the_middle_of_a_call() {
    // Timestamps wrap every 164 s; sequence numbers of 10 ms frames every 655 s, so they wrap in the timeline's tests.
    let spoken = hum(170);
    let mut call = Call::over(|_, sent_ms| vec![sent_ms + 10.0]);
    call.settings = SenderSettings { duration: FrameDuration::Ms60, ..SenderSettings::default() };
    let heard = call.speak(&spoken);
    assert_eq!((heard.stats.lost, heard.stats.late, heard.stats.concealed_ms, heard.stats.jumps), (0, 0, 0, 0));
}

#[test]
fn frames_of_every_duration_play() {
    let spoken = speech("alice");
    for duration in [FrameDuration::Ms10, FrameDuration::Ms20, FrameDuration::Ms40, FrameDuration::Ms60] {
        let mut call = Call::over(|_, sent_ms| vec![sent_ms + 10.0]);
        call.settings.duration = duration;
        let heard = call.speak(&spoken);
        assert_eq!((heard.stats.late, heard.stats.concealed_ms), (0, 0), "{duration:?} {:?}", heard.stats);
        let quality = quality(&spoken, &heard.sound);
        println!("{duration:?}: {quality:.2} {:?}", heard.stats);
        assert!(quality >= 3.9, "{duration:?}: {quality}");
    }
}
