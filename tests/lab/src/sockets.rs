//! Which sockets a process listens at, as the kernel tells, so that a test misses none of them, and what comes in.

use crate::namespaces::in_namespace;
use crate::network::Spot;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// What kind of socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketKind {
    /// UDP.
    Udp,
    /// TCP, listening.
    Tcp,
}

/// A socket that strangers can send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// Its kind.
    pub kind: SocketKind,
    /// Where it is reached from this machine: loopback where it listens at every address.
    pub address: SocketAddr,
    inode: u64,
}

/// One line of the kernel's socket tables.
struct Entry {
    local: SocketAddr,
    listening: bool,
    waiting_bytes: u64,
    inode: u64,
}

const TCP_LISTEN: &str = "0A";
const TABLES: [(SocketKind, &str); 4] =
    [(SocketKind::Udp, "udp"), (SocketKind::Udp, "udp6"), (SocketKind::Tcp, "tcp"), (SocketKind::Tcp, "tcp6")];

/// All UDP sockets and listening TCP sockets of a process.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn sockets_of(pid: u32) -> Vec<Socket> {
    let handles = fs::read_dir(format!("/proc/{pid}/fd")).unwrap_or_else(|error| panic!("process {pid}: {error}"));
    let inodes: BTreeSet<u64> = handles
        .filter_map(|handle| fs::read_link(handle.ok()?.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect();
    let mut sockets: Vec<_> = TABLES
        .iter()
        .flat_map(|(kind, table)| entries(pid, table).into_iter().map(move |entry| (*kind, entry)))
        .filter(|(kind, entry)| inodes.contains(&entry.inode) && (*kind == SocketKind::Udp || entry.listening))
        .map(|(kind, entry)| Socket { kind, address: reachable(entry.local), inode: entry.inode })
        .collect();
    sockets.sort();
    sockets
}

/// Waits until the process has read what lies in the socket's queue, all but a rest. A sender that does so every few packets overruns nobody.
pub fn wait_until_read(pid: u32, socket: &Socket, timeout: Duration) {
    const REST_BYTES: u64 = 64 * 1024;
    let deadline = Instant::now() + timeout;
    let table = if socket.address.is_ipv4() { "udp" } else { "udp6" };
    let waiting = || entries(pid, table).iter().find(|entry| entry.inode == socket.inode).map_or(0, |entry| entry.waiting_bytes);
    while waiting() > REST_BYTES && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

/// How many packets have come in at `eth0` of a namespace.
///
/// # Panics
/// If it has no such interface.
#[must_use]
pub fn packets_received(spot: &Spot) -> u64 {
    let table = in_namespace(spot, || fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default());
    // After the name: bytes received, packets received, …
    let packets = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")?.split_whitespace().nth(1)?.parse().ok());
    packets.unwrap_or_else(|| panic!("{spot:?} has no eth0"))
}

fn reachable(local: SocketAddr) -> SocketAddr {
    let ip = match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, local.port())
}

fn entries(pid: u32, table: &str) -> Vec<Entry> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    text.lines().skip(1).filter_map(entry).collect()
}

/// Columns: number, local address, remote address, state, queues (sent:received), timers, …; the inode is the tenth.
fn entry(line: &str) -> Option<Entry> {
    let columns: Vec<_> = line.split_whitespace().collect();
    let waiting_bytes = u64::from_str_radix(columns.get(4)?.split_once(':')?.1, 16).ok()?;
    Some(Entry {
        local: address(columns.get(1)?)?,
        listening: *columns.get(3)? == TCP_LISTEN,
        waiting_bytes,
        inode: columns.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: words of 32 bits in this machine's byte order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Option<Vec<u32>> = (0..ip.len() / 8).map(|i| u32::from_str_radix(ip.get(8 * i..8 * i + 8)?, 16).ok()).collect();
    let bytes: Vec<u8> = words?.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => <[u8; 16]>::try_from(bytes).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn all_sockets_of_this_process_are_found() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let everywhere = UdpSocket::bind("0.0.0.0:0").unwrap();
        let found: Vec<_> = sockets_of(std::process::id()).into_iter().map(|socket| (socket.kind, socket.address)).collect();
        assert!(found.contains(&(SocketKind::Udp, udp.local_addr().unwrap())));
        assert!(found.contains(&(SocketKind::Tcp, tcp.local_addr().unwrap())));
        let port = everywhere.local_addr().unwrap().port();
        assert!(found.contains(&(SocketKind::Udp, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))));
    }
}
