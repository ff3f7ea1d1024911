//! The sockets beside an endpoint's main ones: extra ports, and lines.
//!
//! An *extra socket* has a port of its own. A path agent asks for some where a router has to be given many chances at once.
//!
//! A *line* shares the main port and is connected to one address: a call's relay, or its peer. The kernel gives it what comes from there, so
//! that a call's packets wait in a queue of their own, which a stranger who floods the port cannot fill. A line only receives: what is
//! sent leaves by the main socket, whose way the kernel chooses anew for each packet, so that a line whose local address is gone harms
//! nothing. Where a line cannot be had the main socket receives everything, as it would without them.
//!
//! Each is read by a task, which gives what comes to the switchboard.

use crate::shared::Shared;
use ahoy_path::SocketId;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Extra sockets of one endpoint at a time: what one attempt to cross a router by chance takes, and a quarter of the open files that a process
/// is commonly allowed.
pub(crate) const EXTRA_SOCKETS_MAX: usize = 256;
/// Lines of one endpoint at a time: two relays and a peer for each of several calls. Further calls share the main socket.
const LINES_MAX: usize = 16;
/// Longest datagram read; see the main sockets.
const DATAGRAM_BYTES_MAX: usize = 1472;
/// Errors in a row after which a reader rests: a router's refusals come one by one, and what fails again and again should not keep a
/// processor.
const ERRORS_IN_A_ROW_MAX: u32 = 16;
/// And how long.
const REST_AFTER_ERRORS: Duration = Duration::from_millis(100);

/// All of an endpoint's.
#[derive(Debug, Default)]
pub(crate) struct SideSockets {
    extras: Mutex<Extras>,
    lines: Mutex<BTreeMap<SocketAddr, SideSocket>>,
}

#[derive(Debug, Default)]
struct Extras {
    /// The last number given, so that numbers come again as late as possible.
    last: u16,
    open: BTreeMap<SocketId, SideSocket>,
}

/// One of them; closed when it is dropped.
#[derive(Debug)]
struct SideSocket {
    io: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl SideSocket {
    fn new(shared: &Arc<Shared>, id: SocketId, socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let io = Arc::new(UdpSocket::from_std(socket.into())?);
        let reader = tokio::spawn(read(Arc::clone(shared), id, Arc::clone(&io))).abort_handle();
        Ok(Self { io, reader })
    }
}

impl Drop for SideSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl SideSockets {
    /// Opens extra sockets: `count`, or as many as there may be.
    pub(crate) fn open_extras(&self, shared: &Arc<Shared>, count: u16) -> Vec<SocketId> {
        let mut extras = lock(&self.extras);
        let mut opened = Vec::new();
        while opened.len() < usize::from(count) && extras.open.len() < EXTRA_SOCKETS_MAX {
            let id = extras.next_id();
            match bind_extra().and_then(|socket| SideSocket::new(shared, id, socket)) {
                Ok(socket) => {
                    extras.open.insert(id, socket);
                    opened.push(id);
                }
                Err(error) => {
                    tracing::debug!(%error, "no further socket could be opened");
                    break;
                }
            }
        }
        opened
    }

    pub(crate) fn close_extras(&self, sockets: &[SocketId]) {
        let mut extras = lock(&self.extras);
        for socket in sockets {
            extras.open.remove(socket);
        }
    }

    /// Sends by an extra socket, or loses the datagram.
    pub(crate) fn send(&self, socket: SocketId, to: SocketAddr, bytes: &[u8]) {
        let io = lock(&self.extras).open.get(&socket).map(|socket| Arc::clone(&socket.io));
        if let Some(io) = io
            // Not through the runtime's readiness, which a fresh socket does not have yet.
            && let Err(error) = SockRef::from(&*io).send_to(bytes, &to.into())
        {
            tracing::trace!(%error, "a datagram was not sent");
        }
    }

    /// Sees to it that there are lines to these addresses and no others; `afresh`: that those there are get opened again, because this
    /// machine's addresses have changed.
    pub(crate) fn set_lines(&self, shared: &Arc<Shared>, wanted: &BTreeSet<SocketAddr>, afresh: bool) {
        let mut lines = lock(&self.lines);
        lines.retain(|address, _| !afresh && wanted.contains(address));
        for address in wanted {
            if lines.len() >= LINES_MAX {
                break;
            }
            if lines.contains_key(address) {
                continue;
            }
            match open_line(shared, *address).and_then(|socket| SideSocket::new(shared, SocketId::MAIN, socket)) {
                Ok(line) => {
                    lines.insert(*address, line);
                }
                Err(error) => tracing::debug!(%error, "no line to an address of a call"),
            }
        }
    }

    /// Closes all of them.
    pub(crate) fn close(&self) {
        lock(&self.extras).open.clear();
        lock(&self.lines).clear();
    }
}

impl Extras {
    /// A number that is not in use; there are far more numbers than sockets.
    fn next_id(&mut self) -> SocketId {
        loop {
            self.last = self.last.wrapping_add(1);
            let id = SocketId(self.last);
            if id != SocketId::MAIN && !self.open.contains_key(&id) {
                return id;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind_extra() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    Ok(socket)
}

/// A socket on the main port that is connected to `remote`.
///
/// Two sockets may have one port if both say so when the second is bound. The main one says so for that moment alone, so that no other
/// program can put itself beside it. What comes before the socket is connected, it may get from anybody; its reader looks at the sender,
/// so nothing of that is lost or mistaken.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn open_line(shared: &Shared, remote: SocketAddr) -> io::Result<Socket> {
    let main = shared.main(remote).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    if remote.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    main.share_port(true)?;
    let bound = socket.bind(&main.address().into());
    main.share_port(false)?;
    bound?;
    socket.connect(&remote.into())?;
    Ok(socket)
}

/// Elsewhere it is not known which of two sockets on one port gets what.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open_line(_shared: &Shared, _remote: SocketAddr) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads a socket for as long as it is open.
async fn read(shared: Arc<Shared>, id: SocketId, io: Arc<UdpSocket>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let mut errors_in_a_row = 0;
    loop {
        match io.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                errors_in_a_row = 0;
                shared.receive(id, SocketAddr::new(from.ip(), from.port()), &buffer[..length]);
            }
            Err(error) => {
                // What a router refuses shows here, and is a loss like any other.
                tracing::trace!(%error, "receiving failed");
                errors_in_a_row += 1;
                if errors_in_a_row >= ERRORS_IN_A_ROW_MAX {
                    tokio::time::sleep(REST_AFTER_ERRORS).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switchboard::Switchboard;
    use crate::virtual_address::VirtualAddresses;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shared() -> Arc<Shared> {
        let board = Switchboard::new(VirtualAddresses::new([1, 2, 3, 4, 5]));
        Arc::new(Shared::bind(None, board).expect("loopback has room"))
    }

    async fn stranger() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.expect("loopback has room")
    }

    /// From which port something comes, and what.
    async fn hear(socket: &UdpSocket) -> (u16, Vec<u8>) {
        let mut buffer = [0; 64];
        let heard = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
        let (length, from) = heard.expect("a datagram").expect("bound");
        (from.port(), buffer[..length].to_vec())
    }

    async fn until(holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it happens");
    }

    #[tokio::test]
    async fn there_are_never_more_extra_sockets_than_allowed() {
        let (shared, sides) = (shared(), SideSockets::default());
        let first = sides.open_extras(&shared, 200);
        assert_eq!(first.len(), 200);
        assert_eq!(sides.open_extras(&shared, 200).len(), EXTRA_SOCKETS_MAX - 200);
        assert_eq!(sides.open_extras(&shared, 1), []);
        sides.close_extras(&first[..50]);
        let again = sides.open_extras(&shared, 60);
        assert_eq!(again.len(), 50);
        assert!(again.iter().all(|socket| !first.contains(socket)), "a number came again");
    }

    #[tokio::test]
    async fn each_extra_socket_has_a_port_of_its_own_and_is_read() {
        let (shared, sides, remote) = (shared(), SideSockets::default(), stranger().await);
        let to = remote.local_addr().expect("bound");
        let [one, other] = sides.open_extras(&shared, 2)[..] else { panic!("two sockets") };
        sides.send(one, to, b"one");
        let (port, bytes) = hear(&remote).await;
        assert_eq!(bytes, b"one");
        assert_ne!(port, shared.port_v4());
        sides.send(other, to, b"other");
        let (other_port, _) = hear(&remote).await;
        assert_ne!(other_port, port);
        remote.send_to(&[0x40; 20], (Ipv4Addr::LOCALHOST, port)).await.expect("sent");
        until(|| shared.board().dropped() == 1).await;
    }

    #[tokio::test]
    async fn a_closed_extra_socket_sends_nothing() {
        let (shared, sides, remote) = (shared(), SideSockets::default(), stranger().await);
        let to = remote.local_addr().expect("bound");
        let [closed, open] = sides.open_extras(&shared, 2)[..] else { panic!("two sockets") };
        sides.close_extras(&[closed]);
        sides.send(closed, to, b"closed");
        sides.send(open, to, b"open");
        assert_eq!(hear(&remote).await.1, b"open");
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn a_line_takes_what_comes_from_its_address_out_of_the_main_socket() {
        let (shared, sides) = (shared(), SideSockets::default());
        let (friend, stranger) = (stranger().await, stranger().await);
        let port = (Ipv4Addr::LOCALHOST, shared.port_v4());
        sides.set_lines(&shared, &[friend.local_addr().expect("bound")].into(), false);
        // Nobody reads the main socket here, so what is looked at came by the line.
        stranger.send_to(&[0x40; 20], port).await.expect("sent");
        friend.send_to(&[0x40; 20], port).await.expect("sent");
        until(|| shared.board().dropped() == 1).await;
        friend.send_to(&[0x40; 20], port).await.expect("sent");
        until(|| shared.board().dropped() == 2).await;
        sides.set_lines(&shared, &BTreeSet::new(), false);
        assert!(lock(&sides.lines).is_empty());
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn lines_have_a_bound_and_are_opened_afresh_where_that_is_asked() {
        let (shared, sides) = (shared(), SideSockets::default());
        let addresses: BTreeSet<SocketAddr> = (1..=40).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect();
        let ports = || lock(&sides.lines).values().map(|line| Arc::as_ptr(&line.io)).collect::<Vec<_>>();
        sides.set_lines(&shared, &addresses, false);
        let first = ports();
        assert_eq!(first.len(), LINES_MAX);
        sides.set_lines(&shared, &addresses, false);
        assert_eq!(ports(), first);
        let kept: BTreeSet<SocketAddr> = addresses.into_iter().take(1).collect();
        sides.set_lines(&shared, &kept, true);
        assert_eq!(ports().len(), 1);
    }
}
