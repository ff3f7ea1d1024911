//! Whether this computer runs on mains power, as far as the system tells.

use std::fs;
use std::path::Path;

/// Where Linux lists batteries and power supplies.
const SUPPLIES: &str = "/sys/class/power_supply";

/// True unless the computer says that it runs on a battery: one that does not say has none.
#[must_use]
pub fn is_on_mains() -> bool {
    is_on_mains_by(Path::new(SUPPLIES))
}

fn is_on_mains_by(supplies: &Path) -> bool {
    let Ok(supplies) = fs::read_dir(supplies) else { return true };
    let mut runs_on_battery = false;
    for supply in supplies.filter_map(Result::ok) {
        let read = |name: &str| fs::read_to_string(supply.path().join(name)).unwrap_or_default().trim().to_owned();
        match read("type").as_str() {
            "Mains" | "USB" if read("online") == "1" => return true,
            // That of a mouse or a headset is not the computer's.
            "Battery" if read("scope") != "Device" => runs_on_battery |= read("status") == "Discharging",
            _ => {}
        }
    }
    !runs_on_battery
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(folder: &Path, name: &str, files: &[(&str, &str)]) {
        let supply = folder.join(name);
        fs::create_dir(&supply).expect("a folder");
        for (file, text) in files {
            fs::write(supply.join(file), format!("{text}\n")).expect("a file");
        }
    }

    #[test]
    fn a_computer_without_a_battery_is_on_mains() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(is_on_mains_by(&folder.path().join("nothing")));
        assert!(is_on_mains_by(folder.path()));
        supply(folder.path(), "mouse", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert!(is_on_mains_by(folder.path()));
    }

    #[test]
    fn a_laptop_is_on_mains_when_it_is_plugged_in() {
        let folder = tempfile::tempdir().expect("a folder");
        supply(folder.path(), "BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        assert!(!is_on_mains_by(folder.path()));
        supply(folder.path(), "AC", &[("type", "Mains"), ("online", "1")]);
        assert!(is_on_mains_by(folder.path()));
    }
}
