//! What the user is told of sound devices while a call runs: once when one fails, and once when it is there again.

use super::Notice;
use ahoy_audio::DeviceState;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    told: Option<DeviceState>,
}

/// Which device of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceRole {
    /// What is heard by the other side.
    Microphone,
    /// What plays the other side.
    Speaker,
}

impl DeviceRole {
    /// The word in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Microphone => "microphone",
            Self::Speaker => "speaker",
        }
    }

    /// What its absence means.
    pub(super) fn without(self) -> &'static str {
        match self {
            Self::Microphone => "the other side hears silence",
            Self::Speaker => "nothing is played",
        }
    }
}

/// The word in events for how a device is.
pub(super) fn state_word(state: &DeviceState) -> &'static str {
    match state {
        DeviceState::Virtual => "virtual",
        DeviceState::Starting => "starting",
        DeviceState::Running { .. } => "running",
        DeviceState::Missing => "missing",
        DeviceState::Busy { .. } => "busy",
        DeviceState::Failed { .. } => "failed",
    }
}

fn is_bad(state: &DeviceState) -> bool {
    match state {
        DeviceState::Virtual | DeviceState::Starting | DeviceState::Running { .. } => false,
        DeviceState::Missing | DeviceState::Busy { .. } | DeviceState::Failed { .. } => true,
    }
}

impl Trouble {
    /// What there is to tell of the device's state, if anything.
    pub(super) fn notice(&mut self, role: DeviceRole, state: &DeviceState) -> Vec<Notice> {
        // A device that is being opened is neither there nor missing.
        if matches!(state, DeviceState::Virtual | DeviceState::Starting) || self.told.as_ref() == Some(state) {
            return Vec::new();
        }
        let mut notices = Vec::new();
        let name = if let DeviceState::Running { name } = state { Some(name.clone()) } else { None };
        notices.push(Notice::Device { role, state: state_word(state), name });
        if is_bad(state) && !self.told.as_ref().is_some_and(is_bad) {
            notices.push(Notice::Warning(format!("{}: {state}", role.without())));
        }
        self.told = Some(state.clone());
        notices
    }

    /// Whether the device is missing, as far as it was told.
    pub(super) fn is_there(&self) -> bool {
        self.told.as_ref().is_some_and(is_bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(trouble: &mut Trouble, state: &DeviceState) -> Vec<String> {
        let told = trouble.notice(DeviceRole::Microphone, state);
        told.iter().map(|notice| format!("{notice:?}")).collect()
    }

    #[test]
    fn a_device_that_goes_and_returns_is_told_of_once_each_time() {
        let mut trouble = Trouble::default();
        let running = DeviceState::Running { name: "desk".into() };
        assert!(told(&mut trouble, &DeviceState::Starting).is_empty());
        assert_eq!(told(&mut trouble, &running).len(), 1);
        assert!(told(&mut trouble, &running).is_empty());
        let gone = told(&mut trouble, &DeviceState::Missing);
        assert!(gone.len() == 2 && gone[1].contains("the other side hears silence"), "{gone:?}");
        assert!(told(&mut trouble, &DeviceState::Missing).is_empty());
        assert_eq!(told(&mut trouble, &DeviceState::Failed { reason: "odd".into() }).len(), 1, "the warning stands");
        let back = told(&mut trouble, &running);
        assert!(back.len() == 1 && back[0].contains("running"), "{back:?}");
    }
}
