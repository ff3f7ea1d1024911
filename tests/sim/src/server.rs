//! Servers in the core: observers, which say from where they see a packet, and relays, which join two legs.
//!
//! What becomes of a frame or a move is decided by the production relay's [`Forwarder`]. What is simulated is what is around it: joining takes
//! round trips, a connection is where its last packet came from, and a leg over TCP is its connection, which nothing can move.

use crate::link::Carrier;
use crate::network::Network;
use crate::packet::{Packet, Payload};
use crate::topology::PortId;
use ahoy_identity::leg_code;
use ahoy_protocol::datagram::{KIND_RELAY, Move};
use ahoy_protocol::ids::{CallId, DeviceKey, LegKey};
use ahoy_relay::{Forwarder, LegRequest, Reason, Verdict};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The port on which all servers listen.
pub const SERVER_PORT: u16 = 4433;
/// What the login server grants a leg.
const GRANT_KBIT_PER_S: u32 = 4096;
/// A packet of the call's connection, to a relay: nothing that it can read.
const CALL_PACKET: [u8; 130] = [0x40; 130];

/// What a relay knows of one side's connection.
#[derive(Debug, Clone, Copy)]
struct Side {
    channel: u32,
    /// Where its device joined from, or moved to.
    device: SocketAddr,
    /// Where its connection was last.
    connection: SocketAddr,
    /// The relay's own address that the device uses.
    own: SocketAddr,
    carrier: Carrier,
}

/// A server.
#[derive(Debug)]
pub struct Server {
    port: PortId,
    start: Instant,
    forwarder: Forwarder,
    sides: [Option<Side>; 2],
    frame: Vec<u8>,
}

impl Server {
    /// A server at this port that has no legs yet.
    #[must_use]
    pub fn new(port: PortId, start: Instant) -> Self {
        Self { port, start, forwarder: Forwarder::new(start), sides: [None; 2], frame: Vec::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn port(&self) -> PortId {
        self.port
    }

    /// What its relay has done so far.
    #[must_use]
    pub fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// Forgets its legs, as after a restart.
    pub fn restart(&mut self, now: Duration) {
        self.forwarder = Forwarder::new(self.start + now);
        self.sides = [None; 2];
    }

    /// Takes a packet.
    pub fn receive(&mut self, now: Duration, packet: Packet, network: &mut Network) {
        if let Some(channel) = packet.channel {
            return self.forward(now, channel, packet, network);
        }
        let answer = match packet.payload {
            Payload::Observe { nonce } => Payload::Observed { nonce, seen: packet.from },
            Payload::Join { rounds_left, .. } if rounds_left > 0 => Payload::Joined { rounds_left, channel: 0, is_paired: false },
            Payload::Join { side, .. } => {
                let Some(joined) = self.join(now, side, &packet, network) else { return };
                joined
            }
            Payload::Move { channel, counter } => return self.move_leg(now, channel, counter, &packet),
            Payload::Tend { channel } => return self.tend(now, channel, &packet),
            _ => return,
        };
        network.send(
            now,
            self.port,
            Packet { from: packet.to, to: packet.from, carrier: packet.carrier, channel: None, sender: None, payload: answer },
        );
    }

    fn join(&mut self, now: Duration, side: usize, packet: &Packet, network: &mut Network) -> Option<Payload> {
        let other = self.sides[1 - side];
        let known = self.sides[side].filter(|known| known.device == packet.from && known.carrier == packet.carrier);
        let channel = match known {
            Some(known) => known.channel,
            None => self.join_anew(now, side, packet)?,
        };
        if let Some(other) = other {
            self.tell(now, other, None, Payload::Paired, network);
        }
        Some(Payload::Joined { rounds_left: 0, channel, is_paired: other.is_some() })
    }

    fn join_anew(&mut self, now: Duration, side: usize, packet: &Packet) -> Option<u32> {
        let address = shown(packet.from, packet.carrier);
        let request = LegRequest {
            call: CallId([9; 16]),
            device: device(side),
            peer: device(1 - side),
            address,
            proved: address,
            kbit_per_s: GRANT_KBIT_PER_S,
            key: key(side),
        };
        let random = u32::try_from(now.as_nanos() % 0xffff_fff1).unwrap_or(0).rotate_left(13);
        let channel = self.forwarder.join(self.start + now, request, random).ok()?.channel;
        let (device, own, carrier) = (packet.from, packet.to, packet.carrier);
        self.sides[side] = Some(Side { channel, device, connection: device, own, carrier });
        Some(channel)
    }

    fn tell(&self, now: Duration, side: Side, sender: Option<usize>, payload: Payload, network: &mut Network) {
        let packet = Packet { from: side.own, to: side.device, carrier: side.carrier, channel: Some(side.channel), sender, payload };
        network.send(now, self.port, packet);
    }

    fn move_leg(&mut self, now: Duration, channel: u32, counter: u64, packet: &Packet) {
        let Some(index) = self.side_with(channel).filter(|index| self.is_udp(*index)) else { return };
        let bytes = Move { channel, counter }.encode();
        let sealed = [&bytes[..], &leg_code(&key(index), &bytes)].concat();
        if self.forwarder.handle(self.start + now, packet.from, &sealed) == Verdict::Moved
            && let Some(side) = &mut self.sides[index]
        {
            (side.device, side.own) = (packet.from, packet.to);
        }
    }

    /// Something came on a leg's connection, which is where that came from.
    fn tend(&mut self, now: Duration, channel: u32, packet: &Packet) {
        let Some(index) = self.side_with(channel).filter(|index| self.is_udp(*index)) else { return };
        if let Some(side) = &mut self.sides[index] {
            (side.connection, side.device, side.own) = (packet.from, packet.from, packet.to);
            self.forwarder.set_address(self.start + now, channel, packet.from);
        }
    }

    fn forward(&mut self, now: Duration, channel: u32, packet: Packet, network: &mut Network) {
        self.frame.clear();
        self.frame.push(KIND_RELAY);
        self.frame.extend_from_slice(&channel.to_be_bytes());
        match &packet.payload {
            Payload::Probe(bytes) => self.frame.extend_from_slice(bytes),
            payload if payload.is_of_the_call() => self.frame.extend_from_slice(&CALL_PACKET),
            _ => return,
        }
        match self.forwarder.handle(self.start + now, shown(packet.from, packet.carrier), &self.frame) {
            Verdict::Forward { to, channel } => {
                let other = self.side_with(channel).and_then(|index| self.sides[index]);
                if let Some(mut other) = other {
                    if other.carrier == Carrier::Udp {
                        other.device = to;
                    }
                    self.tell(now, other, packet.sender, packet.payload, network);
                }
            }
            Verdict::Look(channel) => {
                if let Some(side) = self.side_with(channel).and_then(|index| self.sides[index]) {
                    self.forwarder.set_address(self.start + now, channel, shown(side.connection, side.carrier));
                }
                self.reset(now, packet, network);
            }
            Verdict::Drop(Reason::UnknownChannel | Reason::OtherAddress) => self.reset(now, packet, network),
            Verdict::KeptAlive | Verdict::Moved | Verdict::Drop(_) => {}
        }
    }

    /// A segment of a connection that is not known.
    fn reset(&self, now: Duration, packet: Packet, network: &mut Network) {
        tracing::trace!(channel = packet.channel, from = %packet.from, sides = ?self.sides, "relay drops a frame");
        if packet.carrier == Carrier::Tcp {
            network.send(now, self.port, Packet { from: packet.to, to: packet.from, payload: Payload::Reset, sender: None, ..packet });
        }
    }

    fn side_with(&self, channel: u32) -> Option<usize> {
        self.sides.iter().position(|side| side.is_some_and(|side| side.channel == channel))
    }

    fn is_udp(&self, index: usize) -> bool {
        self.sides[index].is_some_and(|side| side.carrier == Carrier::Udp)
    }
}

fn device(side: usize) -> DeviceKey {
    DeviceKey([if side == 0 { 3 } else { 4 }; 32])
}

fn key(side: usize) -> LegKey {
    LegKey([if side == 0 { 5 } else { 6 }; 32])
}

/// What a forwarder knows a device by: a tunnel has an address of its own, which is no UDP address.
fn shown(address: SocketAddr, carrier: Carrier) -> SocketAddr {
    let [a, b] = match (carrier, address.ip()) {
        (Carrier::Udp, _) => return address,
        (Carrier::Tcp, IpAddr::V4(ip)) => {
            [u16::from_be_bytes([ip.octets()[0], ip.octets()[1]]), u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])]
        }
        (Carrier::Tcp, IpAddr::V6(ip)) => [ip.segments()[2], ip.segments()[7]],
    };
    SocketAddr::new(Ipv6Addr::new(0xfd77, 1, 2, 0, 0, 0, a, b).into(), address.port())
}
