//! A stranger: `ahoy-flood --to IP:PORT [--packets-per-second N] [--seconds N] [--kind random|quic|ping|relay|mixed]`
//!
//! It sends datagrams of one kind, or of all in turn, to an address, and prints `sent N` at the end. They look like what a client gets, as far as
//! somebody can know who has seen none of its keys: the first byte of the kind, a length that fits, chance for the rest.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Datagrams given to the kernel at a time, so that a slow machine can keep the pace.
const BATCH: usize = 50;
/// What fits every network.
const DATAGRAM_BYTES_MAX: usize = 1_200;
/// First bytes and lengths of the datagrams that a client's port takes; see the page on datagrams.
const PING: (u8, usize) = (0x12, 34);
const PONG: (u8, usize) = (0x13, 53);
const RELAY_FRAME: u8 = 0x0f;
const OBSERVED: (u8, usize) = (0x11, 29);
const MOVE: (u8, usize) = (0x0e, 29);
/// QUIC: the beginning of a connection in version 1, and a packet of one that exists.
const QUIC_INITIAL: [u8; 5] = [0xc3, 0, 0, 0, 1];
const QUIC_SHORT: u8 = 0x43;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Random,
    Quic,
    Ping,
    Relay,
    Mixed,
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    to: SocketAddr,
    packets_per_second: u32,
    seconds: u32,
    kind: Kind,
}

/// A linear congruential generator: a stranger's guesses need no better.
struct Chance(u64);

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    match flood(&options) {
        Ok(sent) => {
            println!("sent {sent}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the flood cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut to = None;
    let mut options = Options { to: ([0, 0, 0, 0], 0).into(), packets_per_second: 50_000, seconds: 10, kind: Kind::Mixed };
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{value} is not a number"));
        match arg.as_str() {
            "--to" => to = Some(value.parse().map_err(|_| format!("{value} is not an address"))?),
            "--packets-per-second" => options.packets_per_second = number()?,
            "--seconds" => options.seconds = number()?,
            "--kind" => options.kind = kind(&value).ok_or_else(|| format!("there is no kind {value}"))?,
            _ => return Err(format!("unknown option {arg}")),
        }
    }
    options.to = to.ok_or("say --to whom")?;
    Ok(options)
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "random" => Kind::Random,
        "quic" => Kind::Quic,
        "ping" => Kind::Ping,
        "relay" => Kind::Relay,
        "mixed" => Kind::Mixed,
        _ => return None,
    })
}

/// Returns how many datagrams the kernel took.
fn flood(options: &Options) -> std::io::Result<u64> {
    let local: SocketAddr = if options.to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(options.to)?;
    let (began, end) = (Instant::now(), Duration::from_secs(options.seconds.into()));
    let (mut chance, mut tried, mut sent) = (Chance(1), 0u64, 0u64);
    while began.elapsed() < end {
        let due = began.elapsed().as_micros() as u64 * u64::from(options.packets_per_second) / 1_000_000;
        if due < tried + BATCH as u64 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let datagrams: Vec<_> = (0..BATCH as u64).map(|i| datagram(options.kind, tried + i, &mut chance)).collect();
        tried += BATCH as u64;
        sent += send_all(&socket, &datagrams)?;
    }
    Ok(sent)
}

/// The datagram of a number.
fn datagram(kind: Kind, number: u64, chance: &mut Chance) -> Vec<u8> {
    let kind = match (kind, number % 4) {
        (Kind::Mixed, 0) => Kind::Random,
        (Kind::Mixed, 1) => Kind::Quic,
        (Kind::Mixed, 2) => Kind::Ping,
        (Kind::Mixed, _) => Kind::Relay,
        (kind, _) => kind,
    };
    let any_length = 1 + chance.below(DATAGRAM_BYTES_MAX);
    let (beginning, length) = match (kind, chance.below(4)) {
        (Kind::Quic, 0) => (QUIC_INITIAL.to_vec(), DATAGRAM_BYTES_MAX),
        (Kind::Quic, _) => (vec![QUIC_SHORT], any_length.max(25)),
        (Kind::Ping, 0) => (vec![PONG.0], PONG.1),
        (Kind::Ping, _) => (vec![PING.0], PING.1),
        (Kind::Relay, 0) => (vec![OBSERVED.0], OBSERVED.1),
        (Kind::Relay, 1) => (vec![MOVE.0], MOVE.1),
        // Small channels: the first that a relay gives.
        (Kind::Relay, _) => (vec![RELAY_FRAME, 0, 0, 0, chance.byte() % 4], any_length.max(8)),
        (Kind::Random | Kind::Mixed, _) => (vec![chance.byte()], any_length),
    };
    let mut bytes = beginning;
    while bytes.len() < length {
        bytes.push(chance.byte());
    }
    bytes
}

/// One call of the kernel for all. What it does not take is lost: a queue is full.
fn send_all(socket: &UdpSocket, datagrams: &[Vec<u8>]) -> std::io::Result<u64> {
    let mut parts: Vec<libc::iovec> =
        datagrams.iter().map(|datagram| libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() }).collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: plain numbers and pointers, for which zeros are valid: no address, no control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: the array and its length belong together; all that it points to lives until the end of this function.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as libc::c_uint, 0) };
    match u64::try_from(sent) {
        Ok(sent) => Ok(sent),
        Err(_) => match std::io::Error::last_os_error() {
            // Nobody listens there any more, or the queue is full: a stranger does not care.
            error if matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOBUFS | libc::EAGAIN)) => Ok(0),
            error => Err(error),
        },
    }
}

impl Chance {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    fn below(&mut self, limit: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_begins_as_it_should_and_none_is_too_long() {
        let mut chance = Chance(7);
        for number in 0..1_000 {
            let quic = datagram(Kind::Quic, number, &mut chance);
            assert!(quic[0] & 0x40 != 0);
            let ping = datagram(Kind::Ping, number, &mut chance);
            assert!([PING, PONG].contains(&(ping[0], ping.len())));
            assert!(datagram(Kind::Mixed, number, &mut chance).len() <= DATAGRAM_BYTES_MAX);
        }
    }

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
        let options = parse(words("--to 11.0.1.7:4000 --seconds 2 --kind ping")).unwrap();
        assert_eq!(options, Options { to: ([11, 0, 1, 7], 4000).into(), packets_per_second: 50_000, seconds: 2, kind: Kind::Ping });
        assert!(parse(words("--seconds 2")).is_err());
        assert!(parse(words("--to here")).is_err());
        assert!(parse(words("--to 11.0.1.7:4000 --kind loud")).is_err());
    }
}
