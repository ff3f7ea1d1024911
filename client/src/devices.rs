//! The sound devices that there are, and the one that somebody means.

use crate::events::{DeviceShown, Event};
use ahoy_audio::{DeviceInfo, DeviceList};

/// What stands for the device that the system prefers.
pub const DEFAULT_DEVICE: &str = "default";

/// Which way sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a microphone.
    Input,
    /// To a speaker.
    Output,
}

/// Asks the system, which takes its time.
pub async fn list() -> DeviceList {
    tokio::task::spawn_blocking(ahoy_audio::devices).await.unwrap_or_default()
}

/// The id of the device that is called so: by its id, by its name, or by a part of it that no other has. What is none of these stays as it is:
/// the device may be plugged in later.
pub async fn find(direction: Direction, name: String) -> String {
    if name == DEFAULT_DEVICE {
        return name;
    }
    let list = list().await;
    let devices = match direction {
        Direction::Input => list.inputs,
        Direction::Output => list.outputs,
    };
    find_in(&devices, &name).unwrap_or(name)
}

fn find_in(devices: &[DeviceInfo], name: &str) -> Option<String> {
    let id = |device: &DeviceInfo| device.id.as_str().to_owned();
    if let Some(device) = devices.iter().find(|device| device.id.as_str() == name || device.name == name) {
        return Some(id(device));
    }
    let lower = name.to_lowercase();
    let mut alike = devices.iter().filter(|device| device.name.to_lowercase().contains(&lower) || device.id.as_str().contains(name));
    match (alike.next(), alike.next()) {
        (Some(device), None) => Some(id(device)),
        _ => None,
    }
}

/// All of them, as an event.
#[must_use]
pub fn event(list: &DeviceList) -> Event {
    let shown = |devices: &[DeviceInfo]| {
        let shown = |device: &DeviceInfo| DeviceShown {
            id: device.id.as_str().to_owned(),
            name: device.name.clone(),
            is_default: device.is_default,
        };
        devices.iter().map(shown).collect()
    };
    Event::Devices { microphones: shown(&list.inputs), speakers: shown(&list.outputs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_audio::DeviceId;

    #[test]
    fn a_device_is_found_by_id_by_name_and_by_what_only_it_is_called() {
        let device = |id: &str, name: &str| DeviceInfo { id: DeviceId::new(id), name: name.into(), is_default: false, is_monitor: false };
        let devices = [device("alsa:usb-1", "Desk microphone"), device("alsa:usb-2", "Desk camera"), device("alsa:pci-1", "Headset")];
        assert_eq!(find_in(&devices, "alsa:usb-2").as_deref(), Some("alsa:usb-2"));
        assert_eq!(find_in(&devices, "Headset").as_deref(), Some("alsa:pci-1"));
        assert_eq!(find_in(&devices, "camera").as_deref(), Some("alsa:usb-2"));
        assert_eq!(find_in(&devices, "desk"), None, "two are called so");
        assert_eq!(find_in(&devices, "loft"), None);
    }
}
