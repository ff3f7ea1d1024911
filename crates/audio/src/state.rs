//! How a device is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How what stands behind a capture or a playback is. As text it is one sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// A file or silence, which cannot fail as devices do.
    Virtual,
    /// The device is being opened; silence meanwhile.
    Starting,
    /// The device runs.
    Running {
        /// Its name.
        name: String,
    },
    /// The device, or any, is not there; it is used as soon as it is.
    Missing,
    /// Another program holds the device; it is tried again and again.
    Busy {
        /// What the system says.
        reason: String,
    },
    /// The device does not work, or was taken away; it is tried again and again.
    Failed {
        /// What the system says.
        reason: String,
    },
}

impl fmt::Display for DeviceState {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtual => to.write_str("no sound device is used"),
            Self::Starting => to.write_str("the sound device is being opened"),
            Self::Running { name } => write!(to, "the sound device \u{201c}{name}\u{201d} runs"),
            Self::Missing => to.write_str("the sound device is not there; connect it and it will be used"),
            Self::Busy { reason } => write!(to, "the sound device is used by another program; end that one ({reason})"),
            Self::Failed { reason } => write!(to, "the sound device does not work; check its connection and settings ({reason})"),
        }
    }
}

/// A state that the thread of a device writes and others read.
#[derive(Debug, Clone)]
pub(crate) struct SharedState(Arc<Mutex<DeviceState>>);

impl SharedState {
    pub(crate) fn new(state: DeviceState) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn get(&self) -> DeviceState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, state: DeviceState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
