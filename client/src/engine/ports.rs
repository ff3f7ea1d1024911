//! The mapping of this device's port at its router, for as long as the engine runs.

use super::call::AbortOnDrop;
use crate::reach::ReachSettings;
use crate::sessions::Sessions;
use ahoy_portmap::{Mapped, PortMapper};
use ahoy_protocol::certificate::NodeRole;
use ahoy_transport::{ClientEndpoint, UdpUse};
use std::sync::Arc;
use tokio::sync::watch;

/// The mapping, where there is to be one.
pub(super) struct Ports {
    mapper: Option<Arc<PortMapper>>,
    renewing: Option<AbortOnDrop>,
}

impl Ports {
    /// Begins to ask the router, and does so again when the network changes.
    pub(super) fn start(reach: &ReachSettings, endpoint: &ClientEndpoint, sessions: &Sessions) -> (Self, watch::Receiver<Mapped>) {
        if !reach.port_mapping || reach.udp == UdpUse::Never || is_without_router(sessions) {
            let (_, nothing) = watch::channel(Mapped::default());
            return (Self { mapper: None, renewing: None }, nothing);
        }
        let seed = u64::from_le_bytes(ahoy_identity::random());
        let mapper = Arc::new(PortMapper::start(endpoint.port(), port_v6(endpoint), seed));
        let (renewed, mut network) = (Arc::downgrade(&mapper), endpoint.network());
        let renewing = tokio::spawn(async move {
            while network.changed().await.is_ok() {
                let Some(mapper) = renewed.upgrade() else { return };
                mapper.renew_now();
            }
        });
        let mapped = mapper.addresses();
        (Self { mapper: Some(mapper), renewing: Some(AbortOnDrop(renewing)) }, mapped)
    }

    /// Takes the mapping back.
    pub(super) async fn stop(&mut self) {
        self.renewing = None;
        if let Some(mapper) = self.mapper.take().and_then(Arc::into_inner) {
            mapper.stop().await;
        }
    }
}

/// Between programs on one machine there is no router.
fn is_without_router(sessions: &Sessions) -> bool {
    let roster = sessions.roster();
    roster.nodes_in(NodeRole::Supernode).all(|node| node.udp.iter().all(|address| address.ip().is_loopback()))
}

/// The port under which this device is reached over IPv6, where it has that.
fn port_v6(endpoint: &ClientEndpoint) -> Option<u16> {
    endpoint.host_candidates().iter().find(|host| host.address.is_ipv6()).map(|host| host.address.port())
}
