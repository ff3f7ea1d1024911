//! Counters for whoever watches the supernode. Nothing in them names anybody.

use crate::plane::Plane;
use ahoy_transport::NodeEndpoint;
use std::sync::atomic::Ordering;

/// The counters in the text format that Prometheus reads.
pub(crate) fn text(plane: &Plane, endpoint: &NodeEndpoint) -> String {
    let mail = plane.mail.desk.totals();
    let gauges = [
        ("sessions", count(plane.sessions.len())),
        ("connections", count(endpoint.connections())),
        ("tunnels", count(endpoint.tunnels())),
        ("records", count(plane.directory.shelf.records().len())),
        ("overlay_connected", count(plane.directory.overlay.connected())),
        ("requests_free", count(plane.work.requests_free())),
        ("load_percent", plane.load_percent.load(Ordering::Relaxed).into()),
        ("mail_users", mail.users),
        ("mailboxes", mail.mailboxes),
        ("mail_envelopes", mail.envelopes),
        ("mail_bytes", mail.bytes),
    ];
    let gauges = gauges.iter().map(|(name, value)| format!("# TYPE ahoy_supernode_{name} gauge\nahoy_supernode_{name} {value}\n"));
    let counters = plane.mail.counters.all();
    let counters =
        counters.iter().map(|(name, value)| format!("# TYPE ahoy_supernode_{name}_total counter\nahoy_supernode_{name}_total {value}\n"));
    gauges.chain(counters).collect()
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
