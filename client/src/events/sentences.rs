//! Events as a person wants to read them.

use super::{DeviceShown, Event, SettingsShown};

/// The event as a person wants to read it; `None` for what only measures.
pub(super) fn sentence(event: &Event) -> Option<String> {
    Some(match event {
        Event::Registered { name } => format!("The account {name} is made."),
        Event::SignedIn { name, .. } => format!("This device is signed in as {name}."),
        Event::Online { name, supernodes, .. } => {
            format!("Online as {name}, at {} supernode{}.", supernodes.len(), if supernodes.len() == 1 { "" } else { "s" })
        }
        Event::Incoming { from, .. } => format!("{from} is calling."),
        Event::Calling { to, devices, .. } => {
            format!("Calling {to} ({devices} device{}) …", if *devices == 1 { "" } else { "s" })
        }
        Event::Ringing { .. } => "It rings.".to_owned(),
        Event::Connected { with, path, .. } => format!("Connected with {with} ({}).", path_words(path)),
        Event::Path { kind, rtt_ms, .. } => match rtt_ms {
            Some(rtt_ms) => format!("The call goes {}, {rtt_ms:.0} ms there and back.", path_words(kind)),
            None => format!("The call goes {}.", path_words(kind)),
        },
        Event::Reconnecting { .. } => "Nothing comes from the other side; reconnecting …".to_owned(),
        Event::Ended { with, reason, seconds, recording, .. } => {
            let recording = recording.as_ref().map(|path| format!(" The recording is {path}.")).unwrap_or_default();
            format!("The call with {with} is over: {}.{recording}", end_words(reason, *seconds))
        }
        Event::Warning { text } => format!("Warning: {text}"),
        Event::Doctor(report) => report.text(),
        Event::Settings(settings) => settings_words(settings),
        Event::Hold { by, on, .. } => match (by.as_str(), on) {
            ("here", true) => "The call is on hold.".to_owned(),
            ("here", false) => "The call goes on.".to_owned(),
            (_, true) => "The other side has put the call on hold.".to_owned(),
            (_, false) => "The other side is back.".to_owned(),
        },
        Event::Controls { muted, volume, push_to_talk, talking } => {
            let microphone = match (muted, push_to_talk, talking) {
                (true, ..) => "muted",
                (false, true, false) => "closed until you talk",
                (false, true, true) => "open while you talk",
                (false, false, _) => "open",
            };
            format!("The microphone is {microphone}; the volume is {volume} %.")
        }
        Event::Device { role, state, name, .. } => match name {
            Some(name) => format!("The {role} is {name}."),
            None => format!("The {role} is {state}."),
        },
        Event::Devices { microphones, speakers } => {
            format!("{}\n{}", devices_words("Microphones", microphones), devices_words("Speakers", speakers))
        }
        Event::Level { level_dbfs, .. } => level_words(*level_dbfs),
        Event::TestSound { level_dbfs, peak_dbfs, .. } => format!(
            "The recording was {level_dbfs:.0} dBFS loud, {peak_dbfs:.0} dBFS at its loudest. {}",
            judge_level(*level_dbfs, *peak_dbfs)
        ),
        Event::PastCall(call) => call.sentence(),
        Event::Media { .. } | Event::FirstSound { .. } | Event::Stats(_) | Event::Summary { .. } => return None,
    })
}

fn settings_words(settings: &SettingsShown) -> String {
    let SettingsShown {
        proxy,
        udp,
        relay,
        port_mapping,
        birthday,
        microphone,
        speaker,
        ringer,
        echo_canceller,
        noise_suppression,
        gain_control,
        volume,
        ring_volume,
        push_to_talk,
        data_saver,
    } = settings;
    let (volume, ring_volume) = (volume.to_string(), ring_volume.to_string());
    let lines = [
        ("proxy", proxy.as_deref().unwrap_or("as the environment says")),
        ("udp", udp),
        ("relay", relay),
        ("port-mapping", port_mapping),
        ("birthday", birthday),
        ("microphone", microphone),
        ("speaker", speaker),
        ("ringer", ringer),
        ("echo-canceller", echo_canceller),
        ("noise-suppression", noise_suppression),
        ("gain-control", gain_control),
        ("volume", &volume),
        ("ring-volume", &ring_volume),
        ("push-to-talk", push_to_talk),
        ("data-saver", data_saver),
    ];
    lines.map(|(key, value)| format!("{key:<18} {value}")).join("\n")
}

fn devices_words(title: &str, devices: &[DeviceShown]) -> String {
    if devices.is_empty() {
        return format!("{title}: none");
    }
    let line = |device: &DeviceShown| {
        let mark = if device.is_default { "*" } else { " " };
        let id = if device.id == device.name { String::new() } else { format!("  [{}]", device.id) };
        format!("  {mark} {}{id}", device.name)
    };
    format!("{title} (* is the system's default):\n{}", devices.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// A bar of a level meter: from −60 dBFS to full scale.
fn level_words(level_dbfs: f32) -> String {
    /// Characters of the longest bar.
    const WIDTH: f32 = 40.0;
    let share = ((level_dbfs + 60.0) / 60.0).clamp(0.0, 1.0);
    format!("{level_dbfs:>4.0} dBFS {}", "#".repeat((share * WIDTH).round() as usize))
}

fn judge_level(level_dbfs: f32, peak_dbfs: f32) -> &'static str {
    if peak_dbfs < -60.0 {
        "That is silence: look whether the microphone is muted, or choose another with `ahoy settings set microphone NAME`."
    } else if peak_dbfs > -0.5 {
        "That is too loud, and distorts: turn the microphone down."
    } else if level_dbfs < -45.0 {
        "That is soft; gain control makes it louder."
    } else {
        "That is fine."
    }
}

fn path_words(kind: &str) -> &str {
    match kind {
        "lan" => "directly, on this network",
        "direct" => "directly",
        "relay" => "through a relay",
        "relay-tcp" => "through a relay, over TCP",
        other => other,
    }
}

fn end_words(reason: &str, seconds: f64) -> String {
    match reason {
        "hung-up" => format!("hung up after {seconds:.0} s"),
        "declined" => "declined".to_owned(),
        "busy" => "the other side is in another call; try again later".to_owned(),
        "missed" => "nobody answered".to_owned(),
        "unreachable" => "no device of theirs can be reached now".to_owned(),
        "cancelled" => "cancelled".to_owned(),
        "answered-elsewhere" => "answered on another device".to_owned(),
        "lost" => format!("the connection was lost after {seconds:.0} s"),
        other => other.to_owned(),
    }
}
