//! Counters for whoever watches the supernode. Nothing in them names anybody.

use crate::plane::Plane;
use ahoy_transport::NodeEndpoint;
use std::sync::atomic::Ordering;

/// The counters in the text format that Prometheus reads.
pub(crate) fn text(plane: &Plane, endpoint: &NodeEndpoint) -> String {
    let gauges = [
        ("sessions", plane.sessions.len()),
        ("connections", endpoint.connections()),
        ("tunnels", endpoint.tunnels()),
        ("records", plane.directory.shelf.records().len()),
        ("overlay_connected", plane.directory.overlay.connected()),
        ("requests_free", plane.work.requests_free()),
        ("load_percent", plane.load_percent.load(Ordering::Relaxed).into()),
    ];
    let lines = gauges.iter().map(|(name, value)| format!("# TYPE ahoy_supernode_{name} gauge\nahoy_supernode_{name} {value}\n"));
    lines.collect()
}
