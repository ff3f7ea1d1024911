//! Devices that come and go while sound runs, on a sound server that the test starts.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod server;

use std::time::{Duration, Instant};

use ahoy_audio::{BLOCK_SAMPLES, Block, Capture, DeviceId, DeviceState, Playback, Wanted, devices};
use server::{SoundServer, is_tone, wait_for};

/// Sound is back this soon after its device is.
const BACK: Duration = Duration::from_millis(500);

/// A machine under load takes longer, but not each time.
const TRIES: usize = 5;

fn named(name: &str) -> Wanted {
    Wanted::Named(DeviceId::new(&format!("pulseaudio:{name}")))
}

/// A tone that is played, and ears that listen for it.
struct Tone {
    playback: Playback,
    capture: Capture,
    played: u32,
}

impl Tone {
    fn new(to: Wanted, from: Wanted) -> Self {
        let now = Instant::now();
        Self { playback: Playback::chosen_device(now, to), capture: Capture::chosen_device(now, from), played: 0 }
    }

    fn block(&mut self) -> Block {
        let mut block = [0.0; BLOCK_SAMPLES];
        for sample in &mut block {
            *sample = (self.played as f32 / 48.0 * std::f32::consts::TAU).sin() * 0.5;
            self.played = (self.played + 1) % 48_000;
        }
        block
    }

    /// Plays on, and says whether the tone was heard.
    fn is_heard(&mut self) -> bool {
        let now = Instant::now();
        while self.playback.wants(now) {
            let block = self.block();
            self.playback.write(&block);
        }
        let mut block = [0.0; BLOCK_SAMPLES];
        let mut is_heard = false;
        while self.capture.read(now, &mut block) {
            is_heard |= is_tone(&block);
        }
        is_heard
    }

    /// Plays on until the states are such.
    fn plays_until(&mut self, mut is_such: impl FnMut(&Playback, &Capture) -> bool) -> bool {
        wait_for(|| {
            self.is_heard();
            is_such(&self.playback, &self.capture)
        })
    }
}

/// Whether a device runs that has this in its name.
fn is_running(state: &DeviceState, device: &str) -> bool {
    matches!(state, DeviceState::Running { name } if name.contains(device))
}

#[test]
fn sound_survives_devices_that_go_and_come_and_follows_what_is_chosen() {
    let Some(server) = SoundServer::start() else {
        println!("skipped: there is no PulseAudio that could be started");
        return;
    };
    server.load_sink("Spare");
    let mut module = server.load_sink("Headset");
    devices_are_listed();

    let mut tone = Tone::new(named("Headset"), named("Headset.monitor"));
    assert!(wait_for(|| tone.is_heard()), "{}; {}", tone.playback.state(), tone.capture.state());

    let mut fastest = Duration::MAX;
    for _ in 0..TRIES {
        server.unload(&module);
        let is_told = tone.plays_until(|playback, capture| playback.is_substitute() && capture.state() == DeviceState::Missing);
        assert!(is_told, "{}; {}", tone.playback.state(), tone.capture.state());
        assert!(is_running(&tone.playback.state(), ""), "{}", tone.playback.state());
        module = server.load_sink("Headset");
        let back = Instant::now();
        assert!(wait_for(|| tone.is_heard()), "{}; {}", tone.playback.state(), tone.capture.state());
        fastest = fastest.min(back.elapsed());
        assert!(!tone.playback.is_substitute() && is_running(&tone.capture.state(), "Headset"));
        if fastest <= BACK {
            break;
        }
    }
    println!("sound was back {fastest:?} after its device");
    assert!(fastest <= BACK, "{fastest:?}");

    choosing_moves_the_sound(&mut tone);
    the_default_is_followed(&server);
}

fn devices_are_listed() {
    let list = devices();
    let find = |name: &str| list.inputs.iter().chain(&list.outputs).find(|device| device.id.to_string() == name).unwrap();
    assert!(find("Headset.monitor").is_monitor && !find("Headset").is_monitor);
    assert_eq!(list.outputs.iter().filter(|device| device.is_default).count(), 1);
    assert_eq!(list.inputs.iter().filter(|device| device.is_default).count(), 1);
}

fn choosing_moves_the_sound(tone: &mut Tone) {
    tone.playback.choose(named("Spare"));
    assert!(tone.plays_until(|playback, _| is_running(&playback.state(), "Spare")), "{}", tone.playback.state());
    tone.capture.choose(named("Spare.monitor"));
    assert!(tone.plays_until(|_, capture| is_running(&capture.state(), "Spare")), "{}", tone.capture.state());
    assert!(wait_for(|| tone.is_heard()));
}

fn the_default_is_followed(server: &SoundServer) {
    server.pactl(&["set-default-sink", "Spare"]);
    let mut tone = Tone::new(Wanted::Default, named("Headset.monitor"));
    assert!(tone.plays_until(|playback, _| is_running(&playback.state(), "Spare")), "{}", tone.playback.state());
    server.pactl(&["set-default-sink", "Headset"]);
    assert!(tone.plays_until(|playback, _| is_running(&playback.state(), "Headset")), "{}", tone.playback.state());
    assert!(wait_for(|| tone.is_heard()));
}
