//! The codec as its users see it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::f32::consts::TAU;

use ahoy_codec::{
    Application, BLOCK_SAMPLES, Bandwidth, DECODED_SAMPLES_MAX, Decoder, Encoder, EncoderSettings, Error, FrameLength, RateControl, rival,
};

/// Harmonics of 150 Hz: near enough to a vowel for a speech codec to treat it as one.
fn vowel(sample: usize) -> f32 {
    let phase = sample as f32 / 48_000.0 * TAU * 150.0;
    (1..=8).map(|harmonic| 0.2 / harmonic as f32 * (phase * harmonic as f32).sin()).sum()
}

fn frame(index: usize, samples: usize) -> Vec<f32> {
    (index * samples..(index + 1) * samples).map(vowel).collect()
}

fn energy(samples: &[f32]) -> f32 {
    samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32
}

fn decibels(of: f32, against: f32) -> f32 {
    10.0 * (of / against).log10()
}

#[test]
fn speech_keeps_its_energy_at_every_frame_length_and_application() {
    for application in [Application::Voip, Application::LowDelay] {
        for frame_length in [FrameLength::Ms10, FrameLength::Ms20, FrameLength::Ms40, FrameLength::Ms60, FrameLength::Ms120] {
            let settings = EncoderSettings { application, frame_length, bitrate: 32_000, ..EncoderSettings::default() };
            let (mut encoder, mut decoder) = (Encoder::new(settings).unwrap(), Decoder::new().unwrap());
            let samples = frame_length.samples();
            let mut heard = Vec::new();
            for index in 0..48_000 / samples {
                let sound = decoder.decode(encoder.encode(&frame(index, samples)).unwrap()).unwrap();
                assert_eq!(sound.len(), samples);
                heard.extend_from_slice(sound);
            }
            let sent: Vec<f32> = (0..heard.len()).map(vowel).collect();
            let change = decibels(energy(&heard[9_600..]), energy(&sent[9_600..]));
            assert!(change.abs() < 1.5, "{application:?} {frame_length:?}: {change} dB");
        }
    }
}

#[test]
fn constant_rate_makes_packets_of_one_length() {
    let mut encoder = Encoder::new(EncoderSettings { rate_control: RateControl::Constant, ..EncoderSettings::default() }).unwrap();
    for index in 0..50 {
        // 24 kb/s for 20 ms are 60 bytes, for silence as for speech.
        let samples = if index % 2 == 0 { frame(index, 960) } else { vec![0.0; 960] };
        assert_eq!(encoder.encode(&samples).unwrap().len(), 60);
    }
}

#[test]
fn settings_change_between_two_frames() {
    let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
    let mut decoder = Decoder::new().unwrap();
    for (index, bitrate) in [24_000, 12_000, 8_000, 48_000].into_iter().enumerate() {
        let bandwidth = if bitrate < 10_000 { Bandwidth::Wideband } else { Bandwidth::Auto };
        let settings = EncoderSettings { bitrate, bandwidth, ..encoder.settings() };
        encoder.configure(settings).unwrap();
        let packet = encoder.encode(&frame(index, 960)).unwrap();
        assert_eq!(packet.len(), bitrate as usize / 400);
        assert_eq!(decoder.decode(packet).unwrap().len(), 960);
    }
    let settings = EncoderSettings { frame_length: FrameLength::Ms60, application: Application::LowDelay, ..encoder.settings() };
    encoder.configure(settings).unwrap();
    assert_eq!(decoder.decode(encoder.encode(&frame(0, 2_880)).unwrap()).unwrap().len(), 2_880);
}

#[test]
fn the_lookahead_is_that_of_the_application() {
    let lookahead = |application| Encoder::new(EncoderSettings { application, ..EncoderSettings::default() }).unwrap().lookahead();
    assert_eq!((lookahead(Application::Voip), lookahead(Application::LowDelay)), (312, 120));
}

#[test]
fn concealment_goes_on_with_what_was_said() {
    let (mut encoder, mut decoder) = (Encoder::new(EncoderSettings::default()).unwrap(), Decoder::new().unwrap());
    let mut last = 0.0;
    for index in 0..50 {
        last = energy(decoder.decode(encoder.encode(&frame(index, 960)).unwrap()).unwrap());
    }
    for block in 0..100 {
        let change = decibels(energy(decoder.conceal(BLOCK_SAMPLES).unwrap()), last);
        assert!(change < 6.0, "it never gets much louder: {change} dB in block {block}");
        assert!(block >= 5 || change > -10.0, "for 50 ms it is about as loud as before: {change} dB in block {block}");
    }
    // And ends as soon as there is something to decode.
    let change = decibels(energy(decoder.decode(encoder.encode(&[0.0; 960]).unwrap()).unwrap()), last);
    assert!(change < 0.0, "{change} dB");
}

#[test]
fn a_rivals_in_band_copy_is_nearer_to_what_was_said_than_concealment() {
    let settings = EncoderSettings { bandwidth: Bandwidth::Wideband, ..EncoderSettings::default() };
    let mut encoder = Encoder::new(settings).unwrap();
    rival::protect_in_band(&mut encoder, 20).unwrap();
    // The pitch moves, which concealment cannot know.
    let glide = |sample: usize| {
        let at = sample as f32 / 48_000.0;
        let phase = TAU * (120.0 * at + 40.0 * at * at);
        (1..=8).map(|harmonic| 0.2 / harmonic as f32 * (phase * harmonic as f32).sin()).sum::<f32>()
    };
    let packets: Vec<Vec<u8>> =
        (0..50).map(|index| encoder.encode(&(index * 960..(index + 1) * 960).map(glide).collect::<Vec<_>>()).unwrap().to_vec()).collect();
    let mut off = [0.0; 2];
    for (is_copy_used, off) in [false, true].into_iter().zip(&mut off) {
        let (mut decoder, mut whole) = (rival::decoder(0).unwrap(), rival::decoder(0).unwrap());
        for (index, packet) in packets.iter().enumerate() {
            let wanted = whole.decode(packet).unwrap().to_vec();
            let heard = match (index % 5 == 4, is_copy_used) {
                (false, _) => decoder.decode(packet).unwrap(),
                (true, true) if index + 1 < packets.len() => rival::decode_before(&mut decoder, &packets[index + 1], 960).unwrap(),
                (true, _) => decoder.conceal(960).unwrap(),
            };
            let difference: Vec<f32> = heard.iter().zip(&wanted).map(|(one, other)| one - other).collect();
            *off += energy(&difference);
        }
    }
    assert!(decibels(off[1], off[0]) < -1.0, "{off:?}");
}

#[test]
fn frames_of_another_length_are_refused() {
    let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
    assert_eq!(encoder.encode(&[0.0; 480]), Err(Error::FrameLength { given: 480, expected: 960 }));
    let mut decoder = Decoder::new().unwrap();
    for samples in [0, 100, DECODED_SAMPLES_MAX + BLOCK_SAMPLES] {
        assert!(matches!(decoder.conceal(samples), Err(Error::Conceal(_))));
    }
    assert!(matches!(decoder.decode(&[]), Err(Error::Decode(_))));
}

#[test]
fn settings_that_opus_does_not_know_are_refused_with_its_words() {
    let refused = Encoder::new(EncoderSettings { complexity: 11, ..EncoderSettings::default() });
    assert_eq!(refused.err(), Some(Error::Setup("invalid argument".into())));
}

#[test]
fn samples_that_are_no_numbers_are_silence() {
    let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
    let mut decoder = Decoder::new().unwrap();
    for sample in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let packet = encoder.encode(&[sample; 960]).unwrap().to_vec();
        assert!(decoder.decode(&packet).unwrap().iter().all(|sample| sample.is_finite()));
    }
}

#[test]
fn any_bytes_are_sound_or_an_error_and_the_decoder_goes_on() {
    let (mut encoder, mut decoder) = (Encoder::new(EncoderSettings::default()).unwrap(), Decoder::new().unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..4_000_usize {
        let packet: Vec<u8> = if round % 3 == 0 {
            // A real packet with one byte changed gets further into the decoder than noise does.
            let mut packet = encoder.encode(&frame(round, 960)).unwrap().to_vec();
            let at = random() as usize % packet.len();
            packet[at] = random() as u8;
            packet
        } else {
            (0..random() % 300).map(|_| random() as u8).collect()
        };
        if let Ok(sound) = decoder.decode(&packet) {
            assert!(sound.len() <= DECODED_SAMPLES_MAX);
            assert!(sound.iter().all(|sample| sample.abs() <= 1.0));
        }
    }
    assert_eq!(decoder.decode(encoder.encode(&frame(0, 960)).unwrap()).unwrap().len(), 960);
}
