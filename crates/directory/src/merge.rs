//! Which of two records of one subject stays.
//!
//! The higher [`Version`] wins. Of two with the same version only the first stays, unless they hold the very same statement:
//! then each certificate is taken from whichever record has the later one, because every device renews its own. The order in
//! which records meet therefore does not matter, and stores that exchange theirs end with the same.

use crate::gate::{Verified, VerifiedRecord};
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::certificate::{DeviceCertificate, UserCertificate};
use ahoy_protocol::record::{PresenceRecord, Record, UserRecord};
use ahoy_protocol::{List, Signed};

/// Place of a record in the order of its subject's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Epoch of the user key; 0 in presence records, which one device key signs for ever.
    pub epoch: u32,
    /// Number within the epoch.
    pub seq: u64,
}

/// What to do with a record that is offered where one is held.
#[derive(Debug)]
pub enum Merge {
    /// Both say the same: nothing changes.
    Same,
    /// The held one stays, and is newer.
    Superseded,
    /// Both have one version and differ: somebody signed twice. The held one stays.
    Conflict,
    /// This one takes the place of the held one.
    Replace(Box<VerifiedRecord>),
}

/// Decides between the record held and one that is offered, both of one subject.
#[must_use]
pub fn merge(held: &VerifiedRecord, offered: VerifiedRecord) -> Merge {
    debug_assert_eq!(held.subject(), offered.subject());
    match offered.version().cmp(&held.version()) {
        std::cmp::Ordering::Less => Merge::Superseded,
        std::cmp::Ordering::Greater => Merge::Replace(Box::new(offered)),
        std::cmp::Ordering::Equal => merge_certificates(held, offered),
    }
}

fn merge_certificates(held: &VerifiedRecord, offered: VerifiedRecord) -> Merge {
    let merged = match (held.record(), offered.record()) {
        (Record::User(held), Record::User(offered)) if held.statement.body() == offered.statement.body() => {
            Record::User(merge_users(held, offered))
        }
        (Record::Presence(held), Record::Presence(offered)) if held.statement.body() == offered.statement.body() => {
            Record::Presence(PresenceRecord {
                statement: held.statement.clone(),
                certificate: later_device(&held.certificate, &offered.certificate).clone(),
            })
        }
        (Record::User(_) | Record::Presence(_), _) => return Merge::Conflict,
    };
    if merged == *held.record() {
        return Merge::Same;
    }
    let content = merge_content(held.content(), offered.content());
    Merge::Replace(Box::new(offered.with_record(merged, content)))
}

fn merge_users(held: &UserRecord, offered: &UserRecord) -> UserRecord {
    let devices = held.devices.iter().zip(&offered.devices).map(|(held, offered)| later_device(held, offered).clone());
    UserRecord {
        certificate: later_user(&held.certificate, &offered.certificate).clone(),
        statement: held.statement.clone(),
        devices: List::first_of(devices),
    }
}

fn merge_content(held: &Verified, offered: &Verified) -> Verified {
    match (held, offered) {
        (Verified::User(held), Verified::User(offered)) => {
            let mut user = offered.clone();
            if user_rank(&held.certificate) > user_rank(&offered.certificate) {
                user.certificate = held.certificate.clone();
            }
            for device in &held.devices {
                match user.devices.iter_mut().find(|other| other.statement.device == device.statement.device) {
                    Some(other) if verified_rank(device) > verified_rank(other) => *other = device.clone(),
                    Some(_) => {}
                    None => user.devices.push(device.clone()),
                }
            }
            Verified::User(user)
        }
        (Verified::Presence(held), Verified::Presence(offered)) => {
            let later = if verified_rank(&held.certificate) > verified_rank(&offered.certificate) { held } else { offered };
            Verified::Presence(later.clone())
        }
        // Both are of one subject, so they are of one kind.
        (_, offered) => offered.clone(),
    }
}

fn user_rank(certificate: &UserCertificate) -> (u64, u64) {
    (certificate.issued.0, certificate.serial)
}

fn device_rank(certificate: &DeviceCertificate) -> (u64, u64) {
    (certificate.issued.0, certificate.serial)
}

fn verified_rank(device: &VerifiedDevice) -> (u64, u64) {
    device_rank(&device.certificate)
}

/// The later of two certificates; the bytes break a tie, so that all stores choose alike.
fn later_user<'a>(a: &'a Signed<UserCertificate>, b: &'a Signed<UserCertificate>) -> &'a Signed<UserCertificate> {
    let rank =
        |signed: &Signed<UserCertificate>| (signed.claims().ok().as_ref().map(user_rank), signed.body().to_vec(), signed.signature().0);
    if rank(b) > rank(a) { b } else { a }
}

fn later_device<'a>(a: &'a Signed<DeviceCertificate>, b: &'a Signed<DeviceCertificate>) -> &'a Signed<DeviceCertificate> {
    let rank =
        |signed: &Signed<DeviceCertificate>| (signed.claims().ok().as_ref().map(device_rank), signed.body().to_vec(), signed.signature().0);
    if rank(b) > rank(a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, World};
    use ahoy_protocol::time::HOUR;
    use proptest::prelude::*;

    #[test]
    fn the_higher_sequence_number_wins_whichever_comes_first() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let (old, new) = (world.verified(Record::User(bob.record(1))), world.verified(Record::User(bob.record(2))));
        assert!(matches!(merge(&old, new.clone()), Merge::Replace(kept) if kept.version().seq == 2));
        assert!(matches!(merge(&new, old), Merge::Superseded));
    }

    #[test]
    fn a_higher_epoch_wins_over_any_sequence_number() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let old = world.verified(Record::User(bob.record(NOW.0)));
        let new = world.verified(Record::User(world.user_of_epoch("bob", 1, 2).record(1)));
        assert!(matches!(merge(&old, new.clone()), Merge::Replace(_)));
        assert!(matches!(merge(&new, old), Merge::Superseded));
    }

    #[test]
    fn of_two_statements_with_one_number_the_first_stays() {
        let world = World::new();
        let bob = world.user("bob", 2);
        let held = world.verified(Record::User(bob.record(1)));
        let other = world.verified(Record::User(bob.record_of(1, &[0])));
        assert!(matches!(merge(&held, other), Merge::Conflict));
        assert!(matches!(merge(&held, held.clone()), Merge::Same));
    }

    #[test]
    fn each_device_renews_its_own_certificate_and_both_stay() {
        let world = World::new();
        let (mut one, mut two) = {
            let bob = world.user("bob", 2);
            (bob.clone(), bob)
        };
        one.certify(&world, 0, NOW.plus(HOUR / 60), NOW.plus(2 * HOUR));
        two.certify(&world, 1, NOW.plus(HOUR / 60), NOW.plus(2 * HOUR));
        let (one, two) = (world.verified(Record::User(one.record(1))), world.verified(Record::User(two.record(1))));
        let Merge::Replace(a) = merge(&one, two.clone()) else { panic!("merges") };
        let Merge::Replace(b) = merge(&two, one.clone()) else { panic!("merges") };
        assert_eq!(a.record(), b.record());
        assert!(matches!(merge(&a, one), Merge::Same));
        assert!(matches!(merge(&b, two), Merge::Same));
        // What is merged passes the gate, and means what the gate then says it means.
        let checked = world.verified(a.record().clone()).into_user().expect("a user");
        assert_eq!(checked.devices, a.into_user().expect("a user").devices);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn records_may_meet_in_any_order(seqs in prop::collection::vec(1_u64..6, 1..8), swaps in any::<[prop::sample::Index; 4]>()) {
            let world = World::new();
            let bob = world.user("bob", 1);
            let mut records: Vec<_> = seqs.iter().map(|seq| world.verified(Record::User(bob.record(*seq)))).collect();
            let newest = *seqs.iter().max().expect("not empty");
            for swap in swaps {
                let at = swap.index(records.len());
                records.swap(0, at);
            }
            let mut held = records.remove(0);
            for offered in records {
                if let Merge::Replace(newer) = merge(&held, offered) {
                    prop_assert!(newer.version() > held.version());
                    held = *newer;
                }
            }
            prop_assert_eq!(held.version().seq, newest);
        }
    }
}
