//! Sound without a call: devices, their test, and the calls of the past.

use super::{TestSoundArgs, interrupt, words};
use crate::devices::{self, Direction, find};
use crate::events::{Event, Output};
use crate::home::Home;
use crate::media::{SoundTest, TestStep};
use std::time::Duration;

/// Lists what there is.
pub(super) async fn devices(output: Output) -> Result<(), String> {
    output.tell(&devices::event(&devices::list().await));
    Ok(())
}

/// Lists the calls of the past, the newest last.
pub(super) fn calls(home: &Home, output: Output) -> Result<(), String> {
    for call in home.calls().map_err(words)? {
        output.tell(&Event::PastCall(Box::new(call)));
    }
    Ok(())
}

/// Records, shows how loud that is, and plays it back.
pub(super) async fn test(home: &Home, args: TestSoundArgs, output: Output) -> Result<(), String> {
    let sound = home.settings().map_err(words)?.sound();
    let chosen = |named: Option<String>, set: Option<String>| named.or(set);
    let microphone = match chosen(args.devices.microphone, sound.devices.microphone) {
        Some(name) => Some(find(Direction::Input, name).await),
        None => None,
    };
    let speaker = match chosen(args.devices.speaker, sound.devices.speaker) {
        Some(name) => Some(find(Direction::Output, name).await),
        None => None,
    };
    let mut test =
        SoundTest::start(microphone.as_deref(), speaker.as_deref(), Duration::from_secs(u64::from(args.seconds))).map_err(words)?;
    loop {
        let step = tokio::select! {
            step = test.next() => step,
            () = interrupt() => None,
        };
        match step {
            Some(TestStep::Event(event)) => output.tell(&event),
            Some(TestStep::Failed(reason)) => return Err(reason),
            None => return Ok(()),
        }
    }
}
