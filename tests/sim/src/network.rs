//! Packets under way, in the order in which they arrive.

use crate::packet::Packet;
use crate::topology::{Device, PortId, Topology};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Hops that one packet makes at most; a hairpin in a double NAT makes eight.
const HOPS_MAX: usize = 16;

/// The topology and what moves in it.
#[derive(Debug)]
pub struct Network {
    /// Who is connected with whom.
    pub topology: Topology,
    /// When which packet arrives; the number in the middle keeps those of one moment in the order in which they were sent.
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    under_way: Vec<Option<(PortId, Packet)>>,
    free: Vec<usize>,
    carried: u64,
}

impl Network {
    /// A network in which nothing is under way.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self { topology, queue: BinaryHeap::new(), under_way: Vec::new(), free: Vec::new(), carried: 0 }
    }

    /// Packets that were carried over a hop so far.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// A device sends a packet from its port.
    pub fn send(&mut self, now: Duration, port: PortId, mut packet: Packet) {
        let mut port = port;
        for _ in 0..HOPS_MAX {
            let Some(hop) = self.topology.send(now, port, &packet) else { return };
            // A hop that takes no time ends at once, which spares the queue half of its work.
            if hop.at == [Some(now), None] && self.is_router(hop.to) {
                let Some(onwards) = self.topology.translate(now, hop.to, &mut packet) else { return };
                port = onwards;
                continue;
            }
            if let Some(copy) = hop.at[1] {
                self.enqueue(copy, hop.to, packet.clone());
            }
            if let Some(at) = hop.at[0] {
                self.enqueue(at, hop.to, packet);
            }
            return;
        }
    }

    /// A packet from one socket of a device to another arrives without any link.
    pub fn loop_back(&mut self, now: Duration, port: PortId, packet: Packet) {
        self.enqueue(now, port, packet);
    }

    fn enqueue(&mut self, at: Duration, to: PortId, packet: Packet) {
        self.carried += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.under_way.push(None);
            self.under_way.len() - 1
        });
        self.under_way[index] = Some((to, packet));
        self.queue.push(Reverse((at, self.carried, index)));
    }

    fn is_router(&self, port: PortId) -> bool {
        match self.topology.port(port).device {
            Device::Inside(_) | Device::Outside(_) => true,
            Device::Host(_) | Device::Server(_) => false,
        }
    }

    /// When the next packet arrives somewhere.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next packet that has arrived at a host or server by `now`, and where. Routers send on what arrives at them.
    pub fn receive(&mut self, now: Duration) -> Option<(PortId, Packet)> {
        while self.next_at().is_some_and(|at| at <= now) {
            let Reverse((at, _, index)) = self.queue.pop()?;
            self.free.push(index);
            let Some((port, mut packet)) = self.under_way[index].take() else { continue };
            if !self.is_router(port) {
                return Some((port, packet));
            }
            if let Some(onwards) = self.topology.translate(at, port, &mut packet) {
                self.send(at, onwards, packet);
            }
        }
        None
    }
}
