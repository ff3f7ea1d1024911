//! What a reader makes of the records that supernodes returned.
//!
//! A supernode may return anything; the reader checks all of it and takes the highest version that passes.

use crate::gate::{Gate, Verified, VerifiedPresence, VerifiedRecord, VerifiedUser};
use crate::merge::{Merge, merge};
use ahoy_protocol::ids::DeviceKey;
use ahoy_protocol::record::{PresenceRecord, Record, Subject, UserRecord};
use ahoy_protocol::{Name, UnixMillis};

/// The user that has `name`, from the highest record that passes the gate.
#[must_use]
pub fn choose_user<'a>(
    gate: &Gate<'_>,
    now: UnixMillis,
    name: &Name,
    records: impl IntoIterator<Item = &'a UserRecord>,
) -> Option<VerifiedUser> {
    let subject = Subject::User(name.clone());
    choose(gate, now, &subject, records.into_iter().map(|record| Record::User(record.clone())))?.into_user()
}

/// Where `device` is, from the highest record that passes the gate.
#[must_use]
pub fn choose_presence<'a>(
    gate: &Gate<'_>,
    now: UnixMillis,
    device: &DeviceKey,
    records: impl IntoIterator<Item = &'a PresenceRecord>,
) -> Option<VerifiedPresence> {
    choose(gate, now, &Subject::Device(*device), records.into_iter().map(|record| Record::Presence(record.clone())))?.into_presence()
}

fn choose(gate: &Gate<'_>, now: UnixMillis, subject: &Subject, records: impl Iterator<Item = Record>) -> Option<VerifiedRecord> {
    let mut best: Option<VerifiedRecord> = None;
    for record in records {
        let Ok(verified) = gate.check(now, record) else { continue };
        if verified.subject() != subject {
            continue;
        }
        best = Some(match best {
            None => verified,
            Some(held) => match merge(&held, verified) {
                Merge::Replace(newer) => *newer,
                Merge::Same | Merge::Superseded | Merge::Conflict => held,
            },
        });
    }
    best
}

impl Verified {
    /// The devices it speaks of.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceKey> {
        match self {
            Self::User(user) => user.devices.iter().map(|device| device.statement.device).collect(),
            Self::Presence(presence) => vec![presence.device],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, World};

    #[test]
    fn the_reader_takes_the_highest_record_that_passes() {
        let world = World::new();
        let (bob, eve) = (world.user("bob", 1), world.user("eve", 1));
        let mut forged = bob.record(9);
        forged.statement = eve.key.sign(&bob.statement(9)).expect("fits");
        let records = [bob.record(1), forged, bob.record(3), eve.record(5), bob.record(2)];
        let chosen = choose_user(&world.gate(), NOW, &bob.name, &records).expect("found");
        assert_eq!((chosen.name, chosen.seq), (bob.name, 3));
    }

    #[test]
    fn another_users_record_is_not_an_answer() {
        let world = World::new();
        let (bob, eve) = (world.user("bob", 1), world.user("eve", 1));
        assert!(choose_user(&world.gate(), NOW, &bob.name, &[eve.record(1)]).is_none());
        assert!(choose_presence(&world.gate(), NOW, &bob.devices[0].device_key(), &[eve.presence(0, 1)]).is_none());
    }

    #[test]
    fn the_reader_takes_the_latest_presence() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let chosen = choose_presence(&world.gate(), NOW, &bob.devices[0].device_key(), &[bob.presence(0, 1), bob.presence(0, 2)]);
        assert_eq!(chosen.expect("found").seq, 2);
    }
}
