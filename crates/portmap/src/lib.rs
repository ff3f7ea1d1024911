//! Asks the router to let one UDP port through, so that peers reach a device behind it without luck.
//!
//! ```text
//! PortMapper ──renew, stop──► task for IPv4 ──what next?──► Keeper (decides, without I/O)
//!     ▲                       task for IPv6 ──ask──► router (PCP, NAT-PMP, UPnP IGD, by libraries)
//!     └──── addresses ◄──────────┘
//! ```
//! The [`PortMapper`] works in the background and is never waited for: what is mapped is in a [`watch`] channel, and a network without such
//! a router costs nothing but a few datagrams now and then. For IPv4 it asks for a mapping of the port, for IPv6 for a pinhole in the
//! router's firewall. A mapping lasts for [`LEASE`] at most and is renewed at half that time; it is removed by [`PortMapper::stop`], or,
//! where nobody came to call that, when the mapper is dropped, and at the latest when it lapses.
//!
//! What it leaves out: it does not check that the mapping works. The probes of the calls do.

mod ask;
mod keeper;
mod mapped;
mod router;
mod task;

pub use keeper::LEASE;
pub use mapped::{Mapped, Protocol};

use mapped::{Board, Family};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;
use task::Wish;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long taking the mappings back may take at the end. Nobody waits longer for a program to end, and a mapping lapses anyway.
pub const STOP_TIME: Duration = Duration::from_secs(1);

/// Keeps a device's UDP port mapped at its router. Dropping it ends that, too, without waiting.
#[derive(Debug)]
pub struct PortMapper {
    wish: watch::Sender<Wish>,
    board: Arc<Board>,
    tasks: JoinSet<()>,
}

impl PortMapper {
    /// Begins to map `port_v4`, and `port_v6` where there is one; the two may be equal. Returns at once.
    ///
    /// `seed` spreads the times of renewals, so that devices that came back together after a power cut do not ask together.
    /// It must be called in a Tokio runtime.
    #[must_use]
    pub fn start(port_v4: u16, port_v6: Option<u16>, seed: u64) -> Self {
        let families = [(Family::V4, Some(port_v4)), (Family::V6, port_v6)];
        let ports = families.into_iter().filter_map(|(family, port)| Some((family, NonZeroU16::new(port?)?)));
        let ports: Vec<(Family, NonZeroU16)> = ports.collect();
        let board = Arc::new(Board::new(ports.iter().map(|(family, _)| *family)));
        let (wish, _) = watch::channel(Wish::default());
        let mut tasks = JoinSet::new();
        for (family, port) in ports {
            // Another seed for the other family, so that the two do not ask in step.
            let seed = seed.wrapping_add(family as u64);
            tasks.spawn(task::run(family, port, seed, wish.subscribe(), board.clone()));
        }
        // The tasks outlive the set when it is dropped without `stop`: they then see the wish's sender gone, take back what they have, end.
        Self { wish, board, tasks }
    }

    /// What is mapped, as it changes.
    #[must_use]
    pub fn addresses(&self) -> watch::Receiver<Mapped> {
        self.board.subscribe()
    }

    /// Asks again at once: the network has changed, and the router may be another one.
    pub fn renew_now(&self) {
        self.wish.send_modify(|wish| wish.renewals += 1);
    }

    /// Takes the mappings back. Ends within [`STOP_TIME`], with or without the router's answer.
    pub async fn stop(mut self) {
        self.wish.send_modify(|wish| wish.is_over = true);
        let _ = timeout(STOP_TIME, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.abort_all();
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        // Dropping a set would abort its tasks; these have a mapping to take back first. They are bounded in time.
        self.tasks.detach_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn stopping_while_a_router_is_asked_takes_no_longer_than_it_may() {
        let mapper = PortMapper::start(47_999, None, 1);
        tokio::task::yield_now().await;
        let before = Instant::now();
        mapper.stop().await;
        assert!(before.elapsed() < STOP_TIME * 5, "stopping is bounded");
    }

    #[tokio::test]
    async fn a_port_of_zero_is_settled_from_the_start() {
        let mapper = PortMapper::start(0, None, 1);
        let mapped = mapper.addresses().borrow().clone();
        assert!(mapped.is_settled && mapped.addresses.is_empty());
        mapper.stop().await;
    }
}
