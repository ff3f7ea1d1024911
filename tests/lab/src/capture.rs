//! Everything that passes an interface of a namespace, written down by tcpdump.

use crate::namespaces::in_namespace;
use crate::network::Spot;
use crate::process::Process;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// The last packet of a capture, broadcast by the laboratory: when it is in the file, so is all that came before.
const LAST: &[u8] = b"the last packet of this capture";
/// Where it goes: the port at which packets are thrown away (RFC 863).
const DISCARD_PORT: u16 = 9;
/// Length of a capture file's own header.
const FILE_HEADER_BYTES: usize = 24;
/// Length of the header of each packet in it: seconds, fraction, length in the file, length on the wire.
const PACKET_HEADER_BYTES: usize = 16;

/// A capture that is going on.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
    spot: Spot,
}

impl Capture {
    /// Begins to write down whatever passes `eth0` of the host at `spot`.
    ///
    /// # Panics
    /// If tcpdump does not start.
    #[must_use]
    pub fn start(spot: &Spot, path: &Path) -> Self {
        let mut command = spot.command(Path::new("tcpdump"));
        // As root all the way, because it may not write into the test's folder otherwise; each packet at once, so that the end cuts none off.
        command.args(["-i", "eth0", "-s", "0", "-U", "--immediate-mode", "-B", "8192", "-Z", "root", "-w"]).arg(path);
        let process = Process::start("tcpdump", command);
        process.wait_error_line(START_TIMEOUT, "`listening on`", |line| line.contains("listening on"));
        Self { process, path: path.to_owned(), spot: spot.clone() }
    }

    /// Ends it and returns the packets that passed.
    ///
    /// # Panics
    /// If tcpdump does not write them down.
    #[must_use]
    pub fn stop(self) -> Vec<Vec<u8>> {
        in_namespace(&self.spot, || send_last(self.spot.ip));
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            let mut packets = packets(&std::fs::read(&self.path).unwrap_or_default());
            if let Some(last) = packets.iter().position(|packet| packet.ends_with(LAST)) {
                packets.truncate(last);
                return packets;
            }
            assert!(Instant::now() < deadline, "the capture never ended\n{}", self.process.transcript());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// To all hosts of the network that `ip` is in, so that no address needs to be resolved first.
fn send_last(ip: IpAddr) {
    let IpAddr::V4(ip) = ip else { panic!("the laboratory's hosts have IPv4 addresses") };
    let [a, b, c, _] = ip.octets();
    let socket = UdpSocket::bind((ip, 0)).expect("the host has the address");
    socket.set_broadcast(true).expect("a UDP socket may broadcast");
    socket.send_to(LAST, (Ipv4Addr::new(a, b, c, 255), DISCARD_PORT)).expect("the interface is up");
}

/// The packets of a capture file in this machine's byte order.
fn packets(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = file.get(FILE_HEADER_BYTES..).unwrap_or_default();
    let mut packets = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(PACKET_HEADER_BYTES) {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((packet, after)) = after.split_at_checked(length) else { break };
        packets.push(packet.to_vec());
        rest = after;
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_split_by_their_lengths_and_a_torn_one_is_left_out() {
        let mut file = vec![0; FILE_HEADER_BYTES];
        for (length, bytes) in [(3u32, &b"abc"[..]), (9, b"torn")] {
            file.extend([0; 8]);
            file.extend(length.to_ne_bytes());
            file.extend(length.to_ne_bytes());
            file.extend(bytes);
        }
        assert_eq!(packets(&file), vec![b"abc".to_vec()]);
    }
}
