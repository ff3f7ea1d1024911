//! The task that keeps the port of one IP version mapped: it asks when the [`Keeper`] says so, and writes down what there is.

use crate::ask::{Deed, Grant, Target, ask, give_back};
use crate::keeper::Keeper;
use crate::mapped::{Board, Family, Part, Protocol};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info};

/// All of them, in the order that RFC 6886 (section 1.1) asks for; UPnP last, because it needs four questions where they need one.
const FOR_IPV4: &[Protocol] = &[Protocol::Pcp, Protocol::NatPmp, Protocol::UpnpIgd];
/// NAT-PMP knows no IPv6.
const FOR_IPV6: &[Protocol] = &[Protocol::Pcp, Protocol::UpnpIgd];

/// What the owner wants of the tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Rises when the network has changed.
    pub(crate) renewals: u64,
    /// Take everything back, and end.
    pub(crate) is_over: bool,
}

/// What is mapped now.
struct Held {
    deed: Deed,
    outside: SocketAddr,
    protocol: Protocol,
}

/// Keeps one port mapped until the owner does not want it any more.
pub(crate) async fn run(family: Family, port: NonZeroU16, seed: u64, mut wish: watch::Receiver<Wish>, board: Arc<Board>) {
    let protocols = match family {
        Family::V4 => FOR_IPV4,
        Family::V6 => FOR_IPV6,
    };
    let mut keeper = Keeper::new(protocols, seed, Instant::now());
    let mut held: Option<Held> = None;
    let mut renewals = wish.borrow().renewals;
    while !wish.borrow().is_over {
        let due = keeper.poll_ask(Instant::now());
        let step = async {
            match due {
                Some(due) => {
                    let before = held.as_ref().filter(|held| held.protocol == due.protocol).map(|held| held.deed.clone());
                    Some((due.protocol, ask(Target { family, port }, due, before).await))
                }
                None => {
                    match keeper.poll_timeout() {
                        Some(timeout) => sleep_until(timeout.into()).await,
                        None => std::future::pending().await,
                    }
                    None
                }
            }
        };
        tokio::select! {
            answer = step => match answer {
                Some((protocol, Ok(grant))) => hold(&mut held, protocol, grant, &mut keeper),
                Some((protocol, Err(refusal))) => {
                    debug!(%protocol, ?family, ?refusal, "no port mapping");
                    keeper.handle_refused(Instant::now(), refusal);
                }
                None => {}
            },
            changed = wish.changed() => {
                if changed.is_err() {
                    break;
                }
                let wished = wish.borrow_and_update().renewals;
                if wished != renewals {
                    renewals = wished;
                    keeper.handle_network_change(Instant::now());
                }
            }
        }
        if !keeper.is_mapped() && held.take().is_some() {
            info!(?family, "the port mapping is gone");
        }
        let mapped = held.as_ref().map(|held| (held.outside, held.protocol));
        board.write(family, Part { mapped, is_settled: keeper.is_settled(), problem: keeper.problem() });
    }
    if let Some(held) = held {
        let _ = timeout(crate::STOP_TIME, give_back(held.deed)).await;
    }
}

fn hold(held: &mut Option<Held>, protocol: Protocol, grant: Grant, keeper: &mut Keeper) {
    keeper.handle_granted(Instant::now(), grant.lease);
    if held.as_ref().is_none_or(|held| held.outside != grant.outside || held.protocol != protocol) {
        info!(%protocol, "the router lets the port through");
        debug!(outside = %grant.outside);
    }
    let before = held.replace(Held { deed: grant.deed, outside: grant.outside, protocol });
    // A UPnP mapping for ever stays at the router beside the new one; the other protocols have one mapping for a port.
    if let Some(Held { deed: deed @ Deed::Port { .. }, outside, .. }) = before
        && outside.port() != grant.outside.port()
    {
        tokio::spawn(timeout(crate::STOP_TIME, give_back(deed)));
    }
}
