//! What devices are reached through: on Linux the sound server of the desktop, which lets programs share devices, and
//! elsewhere, or where there is none, what the system has.

mod system;

#[cfg(target_os = "linux")]
mod pulse;

use crate::callback::End;
use crate::device::DeviceList;
use crate::link::{Orders, Post};

/// How a backend's work with a device came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The device is no longer wanted at all.
    Stopped,
    /// Another device is to be opened at once.
    Changed,
    /// It did not work; it is to be tried again.
    Failed,
}

/// All devices of the first backend that works.
pub(crate) fn devices() -> DeviceList {
    #[cfg(target_os = "linux")]
    if let Some(list) = pulse::devices() {
        return list;
    }
    system::devices()
}

/// Keeps a device open, as ordered, until something ends that.
pub(crate) fn run<E: End>(orders: &Orders, post: &Post<E>) -> Ended {
    #[cfg(target_os = "linux")]
    if let Some(ended) = pulse::run(orders, post) {
        return ended;
    }
    system::run(orders, post)
}
