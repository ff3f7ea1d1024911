//! Records: whatever comes, the gate believes only what its owner signed, and the store keeps its bound.

use crate::Target;
use crate::samples::{NOW, samples};
use ahoy_directory::{Gate, RecordStore, Verified};
use ahoy_identity::record_key;
use ahoy_protocol::Wire;
use ahoy_protocol::record::{Record, Subject};

pub(crate) fn targets() -> Vec<Target> {
    vec![Target {
        name: "directory_gate",
        run: gate,
        seeds: || samples().records().iter().filter_map(|record| record.encode().ok()).collect(),
    }]
}

/// Most records of the store under test: fewer than subjects, so that its bound is met.
const RECORDS_MAX: usize = 1;

fn gate(bytes: &[u8]) {
    let roster = samples().roster_value();
    let gate = Gate { network: &samples().network, roster: &roster };
    let salt = roster.salts_at(NOW)[0];
    for subject in [Subject::User(samples().name()), Subject::Device(samples().device.device_key())] {
        let _ = gate.check_at(NOW, &record_key(&salt, &subject), bytes);
    }
    let Ok(record) = Record::decode(bytes) else { return };
    let Ok(verified) = gate.check(NOW, record) else { return };
    match verified.content() {
        Verified::User(user) => assert_eq!(user.user, samples().user.user_key(), "a forged user record passed"),
        Verified::Presence(presence) => assert_eq!(presence.device, samples().device.device_key(), "a forged presence record passed"),
    }
    let mut store = RecordStore::new(RECORDS_MAX);
    store.set_salts(&[salt]);
    let _ = store.put(NOW, verified.clone());
    let _ = store.put(NOW, verified);
    assert!(store.len() <= RECORDS_MAX);
}
