//! The relay's table of legs: whatever comes from wherever, frames go to joined legs only, and never more than came.

use crate::Target;
use ahoy_identity::leg_code;
use ahoy_protocol::datagram::{KIND_PING, MAC_BYTES, MOVE_BYTES, Move, PING_BYTES};
use ahoy_protocol::ids::LegKey;
use ahoy_protocol::{CallId, DeviceKey, datagram};
use ahoy_relay::{Forwarder, LegRequest, Verdict};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "relay_frame", run: frame, seeds: frame_seeds },
        Target { name: "relay_script", run: script, seeds: || vec![vec![0x80, 0x81, 0x00, 0x10, 0x40, 0x01], (0..=255).collect()] },
    ]
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)), 5000)
}

/// The key of a device's leg.
fn key(device: u8) -> LegKey {
    LegKey([device; 32])
}

/// A move of a device's leg.
fn moved(channel: u32, counter: u64, device: u8) -> Vec<u8> {
    let bytes = Move { channel, counter }.encode();
    [&bytes[..], &leg_code(&key(device), &bytes)].concat()
}

/// A device's wish to be joined with another, from the address that goes with it.
fn request(device: u8, peer: u8) -> LegRequest {
    let (device_key, peer) = (DeviceKey([device; 32]), DeviceKey([peer; 32]));
    LegRequest {
        call: CallId([1; 16]),
        device: device_key,
        peer,
        address: address(device),
        proved: address(device),
        kbit_per_s: 160,
        key: key(device),
    }
}

/// Two legs that name each other, and one that nobody names.
fn forwarder() -> (Forwarder, [u32; 3]) {
    let mut forwarder = Forwarder::new(start());
    let channels = [request(1, 2), request(2, 1), request(3, 1)].map(|request| {
        let joined = forwarder.join(start(), request, u32::from(request.address.port()));
        joined.expect("there is room").channel
    });
    (forwarder, channels)
}

/// One datagram from a leg's address, from the other's, from one that is alone, and from a stranger's.
fn frame(bytes: &[u8]) {
    let (mut forwarder, [first, second, _]) = forwarder();
    for from in [1, 2, 3, 9] {
        match forwarder.handle(start(), address(from), bytes) {
            Verdict::Forward { to, channel } => {
                let expected = if from == 1 { (address(2), second) } else { (address(1), first) };
                assert_eq!((to, channel), expected, "forwarded to somebody else than the other leg");
                assert!(from == 1 || from == 2, "forwarded from somebody who is not joined");
                let payload = datagram::parse_relay_frame(bytes).expect("only frames are forwarded").1;
                assert!(datagram::relay_frame(channel, payload).len() <= bytes.len(), "more goes out than came in");
            }
            Verdict::Moved => {
                let (_, code) = bytes.split_at(MOVE_BYTES - MAC_BYTES);
                let sealers = [1, 2, 3].map(|device| leg_code(&key(device), &bytes[..MOVE_BYTES - MAC_BYTES]));
                assert!(sealers.iter().any(|sealed| sealed == code), "a leg moved without its device's code");
            }
            Verdict::KeptAlive | Verdict::Look(_) | Verdict::Drop(_) => {}
        }
    }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let (_, channels) = forwarder();
    let payload = [&[0x40], &[7; 100][..]].concat();
    let probe = [&[KIND_PING], &[7; PING_BYTES - 1][..]].concat();
    let frames = channels.iter().map(|channel| datagram::relay_frame(*channel, &payload));
    frames.chain([datagram::relay_frame(channels[0], &[]), datagram::relay_frame(channels[0], &probe), moved(channels[0], 1, 1)]).collect()
}

/// Each byte is a step: legs come, go, move and send, in any order.
fn script(bytes: &[u8]) {
    let mut forwarder = Forwarder::new(start());
    let mut channels = Vec::new();
    // Once a leg has moved to where another is, a frame may rightly come back to the address that it came from.
    let mut nobody_moved = true;
    let mut now = start();
    for step in bytes.iter().take(STEPS_MAX) {
        let (device, peer) = ((step >> 2) & 3, (step >> 4) & 3);
        let channel = channels.get(usize::from(device)).copied().unwrap_or(u32::from(*step));
        match step & 3 {
            0 => {
                if let Ok(joined) = forwarder.join(now, request(device, peer), u32::from(*step) << 24) {
                    channels.push(joined.channel);
                }
            }
            1 => {
                if let Verdict::Forward { to, .. } = forwarder.handle(now, address(device), &datagram::relay_frame(channel, &[0x40; 50])) {
                    assert!(to != address(device) || !nobody_moved, "sent back to where it came from");
                }
            }
            2 if step & 0x80 != 0 => {
                let verdict = forwarder.handle(now, address(peer), &moved(channel, u64::from(*step), device));
                nobody_moved &= verdict != Verdict::Moved;
            }
            2 => drop(forwarder.leave(channel)),
            _ => {
                forwarder.set_address(now, channel, address(peer));
                nobody_moved = false;
            }
        }
        now += Duration::from_millis(u64::from(step >> 6));
        assert!(forwarder.legs() <= channels.len());
        assert!(forwarder.load_percent(now) <= 100);
    }
}

/// Steps after which a script ends.
const STEPS_MAX: usize = 400;
