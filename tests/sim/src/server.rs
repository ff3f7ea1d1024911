//! Servers in the core: observers, which say from where they see a packet, and relays, which join two legs.
//!
//! The relay follows the rules of the real one as far as a call can tell: a frame goes on only if it comes from the address that its leg has
//! and carries a packet of the call or a probe; an authenticated move gives a leg another address; a leg over TCP is its connection and
//! cannot move.

use crate::link::Carrier;
use crate::network::Network;
use crate::packet::{Packet, Payload};
use crate::topology::PortId;
use std::net::SocketAddr;
use std::time::Duration;

/// The port on which all servers listen.
pub const SERVER_PORT: u16 = 4433;

#[derive(Debug, Clone, Copy)]
struct Leg {
    channel: u32,
    /// Where its device is.
    device: SocketAddr,
    /// The relay's own address that the device uses.
    own: SocketAddr,
    carrier: Carrier,
}

/// A server.
#[derive(Debug)]
pub struct Server {
    port: PortId,
    legs: [Option<Leg>; 2],
    channels: u32,
    forwarded: u64,
}

impl Server {
    /// A server at this port that has no legs yet.
    #[must_use]
    pub fn new(port: PortId) -> Self {
        Self { port, legs: [None; 2], channels: 0, forwarded: 0 }
    }

    /// Where it is.
    #[must_use]
    pub fn port(&self) -> PortId {
        self.port
    }

    /// Frames that it has forwarded.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// Forgets its legs, as after a restart.
    pub fn restart(&mut self) {
        self.legs = [None; 2];
    }

    /// Takes a packet.
    pub fn receive(&mut self, now: Duration, packet: Packet, network: &mut Network) {
        if let Some(channel) = packet.channel {
            return self.forward(now, channel, packet, network);
        }
        let answer = match packet.payload {
            Payload::Observe { nonce } => Payload::Observed { nonce, seen: packet.from },
            Payload::Join { rounds_left, .. } if rounds_left > 0 => Payload::Joined { rounds_left, channel: 0, is_paired: false },
            Payload::Join { side, .. } => self.join(now, side, &packet, network),
            Payload::Move { channel } => return self.move_leg(channel, &packet),
            _ => return,
        };
        network.send(
            now,
            self.port,
            Packet { from: packet.to, to: packet.from, carrier: packet.carrier, channel: None, sender: None, payload: answer },
        );
    }

    fn join(&mut self, now: Duration, side: usize, packet: &Packet, network: &mut Network) -> Payload {
        let known = self.legs[side].filter(|leg| leg.device == packet.from && leg.carrier == packet.carrier);
        let leg = known.unwrap_or_else(|| {
            self.channels += 1;
            Leg { channel: self.channels * 2 + u32::from(side == 1), device: packet.from, own: packet.to, carrier: packet.carrier }
        });
        self.legs[side] = Some(leg);
        let other = self.legs[1 - side];
        if let Some(other) = other {
            self.tell(now, other, None, Payload::Paired, network);
        }
        Payload::Joined { rounds_left: 0, channel: leg.channel, is_paired: other.is_some() }
    }

    fn tell(&self, now: Duration, leg: Leg, sender: Option<usize>, payload: Payload, network: &mut Network) {
        let packet = Packet { from: leg.own, to: leg.device, carrier: leg.carrier, channel: Some(leg.channel), sender, payload };
        network.send(now, self.port, packet);
    }

    fn move_leg(&mut self, channel: u32, packet: &Packet) {
        let leg = self.legs.iter_mut().flatten().find(|leg| leg.channel == channel && leg.carrier == Carrier::Udp);
        if let Some(leg) = leg {
            (leg.device, leg.own) = (packet.from, packet.to);
        }
    }

    fn forward(&mut self, now: Duration, channel: u32, packet: Packet, network: &mut Network) {
        let is_from =
            |leg: &Option<Leg>| leg.is_some_and(|leg| leg.channel == channel && leg.device == packet.from && leg.carrier == packet.carrier);
        let Some(side) = self.legs.iter().position(is_from) else {
            tracing::trace!(channel, from = %packet.from, legs = ?self.legs, "relay drops a frame");
            if packet.carrier == Carrier::Tcp {
                let reset = Packet { from: packet.to, to: packet.from, payload: Payload::Reset, sender: None, ..packet };
                network.send(now, self.port, reset);
            }
            return;
        };
        let is_forwarded = packet.payload.is_of_the_call() || matches!(packet.payload, Payload::Probe(_));
        if let Some(other) = self.legs[1 - side].filter(|_| is_forwarded) {
            self.forwarded += 1;
            self.tell(now, other, packet.sender, packet.payload, network);
        }
    }
}
