//! Calls over networks of every kind, in virtual time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod simulation;

use ahoy_protocol::media::FrameDuration;
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
    let heard = Call::over(network).with_copies(0).cheaply().speak(&spoken);
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
    for outage_ms in [300.0, 1_000.0] {
        let network = move |_, sent_ms: f64| if (8_000.0..8_000.0 + outage_ms).contains(&sent_ms) { vec![] } else { vec![sent_ms + 20.0] };
        let heard = Call::over(network).with_copies(0).cheaply().speak(&spoken);
        let loudness = loudness(&heard.sound);
        let back = 800 + outage_ms as usize / 10;
        assert!(loudness[back - 4..back].iter().all(|block| *block < 0.001), "silent in the outage of {outage_ms} ms");
        assert!(loudness[back + 15..back + 100].iter().all(|block| *block > 0.02), "speech after the outage of {outage_ms} ms");
        assert!(heard.stats.delay_ms <= heard.each_second[6].delay_ms + 5, "{:?}", heard.stats);
        assert_eq!(heard.stats.lost, outage_ms as u64 / 20);
    }
}

#[test]
fn packets_held_back_for_a_second_and_then_delivered_together_do_not_make_the_delay_grow() {
    let spoken = hum(20);
    let network = |_, sent_ms: f64| if (8_000.0..9_000.0).contains(&sent_ms) { vec![9_020.0] } else { vec![sent_ms + 20.0] };
    let heard = Call::over(network).cheaply().speak(&spoken);
    assert!(heard.stats.delay_ms <= heard.each_second[6].delay_ms + 25, "{:?}", heard.stats);
    let loudness = loudness(&heard.sound);
    assert!(loudness[920..1_900].iter().all(|block| *block > 0.02));
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
fn frames_of_every_duration_play() {
    let spoken = speech("alice");
    for duration in [FrameDuration::Ms10, FrameDuration::Ms20, FrameDuration::Ms40, FrameDuration::Ms60, FrameDuration::Ms120] {
        let mut call = Call::over(|_, sent_ms| vec![sent_ms + 10.0]);
        call.settings.duration = duration;
        let heard = call.speak(&spoken);
        assert_eq!((heard.stats.late, heard.stats.concealed_ms), (0, 0), "{duration:?} {:?}", heard.stats);
        let quality = quality(&spoken, &heard.sound);
        println!("{duration:?}: {quality:.2} {:?}", heard.stats);
        assert!(quality >= 3.9, "{duration:?}: {quality}");
    }
}

#[test]
fn while_nothing_comes_the_room_goes_on() {
    let mut random = Random::new(1);
    let mut spoken = speech("alice");
    let mut low = 0.0;
    for sample in &mut spoken {
        // A room of about -50 dB.
        low += (random.unit() as f32 - 0.5 - low) * 0.3;
        *sample += low * 0.02;
    }
    let network = |_, sent_ms: f64| if (9_000.0..11_000.0).contains(&sent_ms) { vec![] } else { vec![sent_ms + 20.0] };
    let mut call = Call::over(network).with_copies(0);
    call.settings.bitrate = 32_000;
    let heard = call.speak(&spoken);
    let decibels = |sound: &[f32]| 20.0 * f32::max(loudness(sound).iter().sum::<f32>() / loudness(sound).len() as f32, 1e-6).log10();
    let quietest = loudness(&heard.sound[48_000..9 * 48_000]).into_iter().fold(1.0, f32::min);
    let outage = decibels(&heard.sound[9 * 48_000 + 24_000..11 * 48_000]);
    println!("{outage:.1} dB, the quietest speech {:.1} dB, {:?}", 20.0 * quietest.log10(), heard.stats);
    assert!((outage - 20.0 * quietest.log10()).abs() < 8.0, "{outage} dB");
    assert!(heard.stats.comfort_noise_ms >= 1_500, "{:?}", heard.stats);
}

#[test]
fn nearly_every_frame_that_a_fifth_of_loss_takes_is_played_from_its_copy() {
    let spoken = speech("bob");
    let mut random = Random::new(21);
    let heard = Call::over(move |_, sent_ms| if random.unit() < 0.2 { vec![] } else { vec![sent_ms + 30.0] }).with_copies(2).speak(&spoken);
    let stats = heard.stats;
    assert!((15.0..25.0).contains(&stats.packet_loss_percent()), "{stats:?}");
    // 0.8 % are lost with both of their copies; what it takes to learn that copies are needed comes on top.
    assert!(stats.concealed_percent() <= 2.0 && stats.late <= 4, "{stats:?}");
}
