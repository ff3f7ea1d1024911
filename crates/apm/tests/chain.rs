//! The chain as a whole: what it delays, what it does to noise and loudness, and that turning its parts on and off makes no click.

mod support;

use ahoy_apm::testing::{Hint, Scene};
use ahoy_apm::{Apm, ApmSettings, BLOCK_SAMPLES, Block, NoiseLevel, SAMPLE_RATE};
use support::{ALICE, BOB, level_dbfs, seconds, speech};

const NOTHING: ApmSettings = ApmSettings { echo: false, noise: NoiseLevel::Off, gain: false };

fn process(settings: ApmSettings, near: &[f32]) -> (Vec<f32>, Apm) {
    let mut apm = Apm::new(settings);
    let mut out = Vec::new();
    for chunk in near.chunks_exact(BLOCK_SAMPLES) {
        let mut block: Block = chunk.try_into().expect("a chunk is a block");
        apm.render(&[0.0; BLOCK_SAMPLES]);
        apm.capture(&mut block, 60);
        out.extend_from_slice(&block);
    }
    (out, apm)
}

/// The delay at which the output is most like the input, in samples.
fn delay_samples(input: &[f32], output: &[f32]) -> usize {
    let likeness = |delay: usize| -> f64 { input.iter().zip(&output[delay..]).map(|(a, b)| f64::from(a * b)).sum() };
    (0..600).max_by(|&a, &b| likeness(a).total_cmp(&likeness(b))).expect("there are delays to choose from")
}

#[test]
fn the_delay_is_what_the_chain_says_and_only_the_canceller_has_one() {
    let near = speech(BOB, 2.0);
    for echo in [false, true] {
        for noise in [NoiseLevel::Off, NoiseLevel::Moderate, NoiseLevel::High] {
            let (out, apm) = process(ApmSettings { echo, noise, gain: false }, &near);
            let measured = delay_samples(&near[seconds(1.0)..seconds(1.5)], &out[seconds(1.0)..]);
            let said = apm.delay().as_secs_f64() * f64::from(SAMPLE_RATE);
            println!("echo {echo}, noise {noise:?}: {measured} samples, said {said:.0}");
            assert!((measured as f64 - said).abs() <= 12.0, "echo {echo}, noise {noise:?}: {measured} samples, said {said:.0}");
            assert!(apm.delay().as_millis() < 8);
        }
    }
}

#[test]
fn with_everything_off_speech_is_as_it_was() {
    let near = speech(BOB, 4.0);
    let (out, _) = process(NOTHING, &near);
    assert!((level_dbfs(&near) - level_dbfs(&out)).abs() < 0.3);
}

#[test]
fn noise_is_suppressed_by_what_the_level_says_and_speech_is_not() {
    let noise = Scene { echo_db: None, noise_dbfs: -45.0, ..Scene::desk(0.2, 1) }.record(&vec![0.0; seconds(4.0)], &[]).microphone;
    let speech = speech(BOB, 4.0);
    let noisy: Vec<f32> = speech.iter().zip(&noise).map(|(a, b)| a + b).collect();
    for (level, least_db) in [(NoiseLevel::Moderate, 9.0), (NoiseLevel::High, 15.0)] {
        let settings = ApmSettings { noise: level, ..NOTHING };
        let suppressed_db = level_dbfs(&noise[seconds(2.0)..]) - level_dbfs(&process(settings, &noise).0[seconds(2.0)..]);
        assert!(suppressed_db > least_db, "{level:?}: {suppressed_db:.1} dB");
        let (out, _) = process(settings, &noisy);
        let lost_db = level_dbfs(&speech[seconds(1.0)..]) - level_dbfs(&out[seconds(1.0)..]);
        assert!(lost_db.abs() < 1.5, "{level:?}: {lost_db:.1} dB");
    }
}

#[test]
fn quiet_speech_is_made_louder_and_nothing_clips() {
    let quiet: Vec<f32> = speech(BOB, 8.0).iter().map(|sample| 0.05 * sample).collect();
    let (out, _) = process(ApmSettings { gain: true, ..NOTHING }, &quiet);
    let louder_db = level_dbfs(&out[seconds(6.0)..]) - level_dbfs(&quiet[seconds(6.0)..]);
    assert!(louder_db > 9.0, "{louder_db:.1} dB");
    let loud: Vec<f32> = speech(BOB, 2.0).iter().map(|sample| 20.0 * sample).collect();
    let (out, _) = process(NOTHING, &loud);
    assert!(out.iter().all(|sample| sample.abs() <= 1.0));
}

#[test]
fn speech_is_told_from_silence_and_levels_are_right() {
    let (_, apm) = process(NOTHING, &vec![0.0; seconds(1.0)]);
    assert!(!apm.facts().is_speech && apm.facts().level_dbfs_in < -90.0);
    let near = speech(BOB, 6.0);
    let mut apm = Apm::new(NOTHING);
    let (mut blocks, mut right) = (0, 0);
    for chunk in near.chunks_exact(BLOCK_SAMPLES) {
        let mut block: Block = chunk.try_into().unwrap();
        apm.capture(&mut block, 0);
        if level_dbfs(chunk) > -35.0 {
            blocks += 1;
            right += u32::from(apm.facts().is_speech);
        }
    }
    assert!(right * 10 > blocks * 9, "{right} of {blocks}");
    assert!((-40.0..-3.0).contains(&apm.facts().level_dbfs_in));
}

#[test]
fn turning_parts_on_and_off_in_a_call_makes_no_click() {
    // In a tone a step stands out: more than the steepest slope of the tone itself.
    let (hertz, amplitude) = (300.0, 0.2);
    let slope = std::f32::consts::TAU * hertz / SAMPLE_RATE as f32 * amplitude;
    let all = ApmSettings { echo: true, noise: NoiseLevel::High, gain: true };
    let mut apm = Apm::new(NOTHING);
    let mut out = Vec::new();
    for i in 0..300 {
        match i {
            50 => apm.configure(ApmSettings { echo: true, ..NOTHING }),
            100 => apm.reset(),
            150 => apm.configure(ApmSettings { gain: true, ..NOTHING }),
            200 => apm.configure(all),
            250 => apm.configure(NOTHING),
            _ => {}
        }
        let mut block: Block = std::array::from_fn(|k| {
            amplitude * (std::f32::consts::TAU * hertz * (i * BLOCK_SAMPLES + k) as f32 / SAMPLE_RATE as f32).sin()
        });
        apm.render(&[0.0; BLOCK_SAMPLES]);
        apm.capture(&mut block, 60);
        out.extend_from_slice(&block);
    }
    let steepest = out.windows(2).skip(480).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
    assert!(steepest < 1.6 * slope, "{steepest} against {slope}");
    assert_eq!(apm.delay().as_millis(), 0);
}

#[test]
fn the_far_end_alone_is_not_taken_for_speech_of_the_near_end() {
    let recording = Scene::desk(0.2, 1).record(&speech(ALICE, 6.0), &[]);
    let mut speaking = 0;
    let mut apm = Apm::new(ApmSettings::default());
    recording.process_with(&mut apm, Hint::Queues, |apm, block| speaking += u32::from(block > 200 && apm.facts().is_speech));
    assert!(speaking < 20, "{speaking} of 400 blocks");
}
