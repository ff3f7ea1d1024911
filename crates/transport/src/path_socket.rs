//! A client's one port, as quinn sees it: every remote has a virtual address, and the switchboard knows what is behind.

use crate::TransportError;
use crate::switchboard::Switchboard;
use crate::udp::{AllWritable, UdpSocket};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::Notify;

/// Longest datagram read: what an Ethernet frame carries. Nobody who keeps to the protocol sends a longer one.
const DATAGRAM_BYTES_MAX: usize = 1472;
/// Times that a poll reads and finds nothing for QUIC before it lets other tasks run, so that strangers who flood the
/// port cannot keep the thread.
const FRUITLESS_READS_MAX: usize = 32;
/// Ports tried for one that is free for both families.
const PORT_ATTEMPTS: usize = 8;

/// The sockets and the switchboard, which all that belongs to an endpoint shares.
#[derive(Debug)]
pub(crate) struct Shared {
    v4: Arc<UdpSocket>,
    v6: Option<Arc<UdpSocket>>,
    board: Mutex<Switchboard>,
    /// Wakes whoever serves the deadlines.
    pub(crate) wake_driver: Notify,
}

impl Shared {
    /// Binds `port`, or a free one, for IPv4 and, where the machine has it, IPv6: the same port where it can be had.
    pub(crate) fn bind(port: Option<u16>, board: Switchboard) -> Result<Self, TransportError> {
        let (v4, v6) = match port {
            Some(port) => {
                let v4 = bind_v4(port)?;
                (v4, bind_v6(port).or_else(|| bind_v6(0)))
            }
            None => bind_free()?,
        };
        Ok(Self { v4: Arc::new(v4), v6: v6.map(Arc::new), board: Mutex::new(board), wake_driver: Notify::new() })
    }

    pub(crate) fn port_v4(&self) -> u16 {
        self.v4.address().port()
    }

    pub(crate) fn port_v6(&self) -> Option<u16> {
        self.v6.as_ref().map(|socket| socket.address().port())
    }

    /// Whether there is a socket for `address`.
    pub(crate) fn reaches(&self, address: SocketAddr) -> bool {
        address.is_ipv4() || self.v6.is_some()
    }

    /// Does something with the switchboard that may send, and sees to it that the driver keeps to its deadline.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Switchboard, Instant, &mut dyn FnMut(SocketAddr, &[u8]) -> bool) -> T) -> T {
        let mut board = self.board();
        let result = act(&mut board, Instant::now(), &mut |to, bytes| self.try_send(to, bytes));
        // The driver tells the deadline under the same lock, so none falls between its telling and its sleeping.
        if board.has_earlier_deadline() {
            self.wake_driver.notify_one();
        }
        result
    }

    pub(crate) fn board(&self) -> MutexGuard<'_, Switchboard> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves what is due and says when to come again.
    pub(crate) fn serve_deadlines(&self) -> Option<Instant> {
        let mut board = self.board();
        board.handle_timeout(Instant::now(), &mut |to, bytes| self.try_send(to, bytes));
        board.tell_deadline()
    }

    /// Sends a datagram to a real address; says whether there was room for it.
    fn try_send(&self, to: SocketAddr, bytes: &[u8]) -> bool {
        let Some(socket) = self.socket(to) else { return true };
        let transmit = Transmit { destination: to, ecn: None, contents: bytes, segment_size: None, src_ip: None };
        socket.try_send(&transmit).is_ok()
    }

    /// Sends a datagram to a real address, or loses it.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        if let Some(socket) = self.socket(to) {
            socket.send(to, bytes, None);
        }
    }

    fn socket(&self, to: SocketAddr) -> Option<&UdpSocket> {
        if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_deref() }
    }

    fn sockets(&self) -> Vec<Arc<UdpSocket>> {
        std::iter::once(&self.v4).chain(&self.v6).cloned().collect()
    }
}

fn bind_v4(port: u16) -> Result<UdpSocket, TransportError> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    UdpSocket::bind(address).map_err(|error| TransportError::bind(address, &error))
}

/// `None` where the machine has no IPv6, or the port is taken.
fn bind_v6(port: u16) -> Option<UdpSocket> {
    UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).ok()
}

fn bind_free() -> Result<(UdpSocket, Option<UdpSocket>), TransportError> {
    for _ in 1..PORT_ATTEMPTS {
        let v4 = bind_v4(0)?;
        if let Some(v6) = bind_v6(v4.address().port()) {
            return Ok((v4, Some(v6)));
        }
    }
    Ok((bind_v4(0)?, bind_v6(0)))
}

/// What the sockets look like to quinn.
#[derive(Debug)]
pub(crate) struct PathSocket {
    shared: Arc<Shared>,
    /// In the order in which they are read; they take turns at being first.
    sockets: Vec<Arc<UdpSocket>>,
    receiver: Mutex<Receiver>,
}

/// Datagrams between the kernel and quinn.
#[derive(Debug)]
struct Receiver {
    buffer: Vec<u8>,
    /// Packets for quinn that it had no room for yet: at most those of one buffer, times the connections each is for.
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    turn: usize,
}

impl PathSocket {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let sockets = shared.sockets();
        let segments = sockets.iter().map(|socket| socket.receive_segments()).max().unwrap_or(1);
        let receiver = Receiver { buffer: vec![0; DATAGRAM_BYTES_MAX * segments], packets: VecDeque::new(), turn: 0 };
        Self { shared, sockets, receiver: Mutex::new(receiver) }
    }

    /// Reads one buffer from one of the sockets; [`Poll::Pending`] if all are empty.
    fn read(&self, cx: &mut Context<'_>, receiver: &mut Receiver) -> Poll<()> {
        receiver.turn = receiver.turn.wrapping_add(1);
        for index in 0..self.sockets.len() {
            let socket = &self.sockets[(receiver.turn + index) % self.sockets.len()];
            let mut meta = [RecvMeta::default()];
            let read = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut receiver.buffer)], &mut meta);
            match read {
                Poll::Pending => {}
                Poll::Ready(Ok(count)) => {
                    if count > 0 {
                        self.sort(receiver, &meta[0]);
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(Err(error)) => {
                    // An error given to quinn would end the endpoint; those that a datagram causes are not worth that.
                    tracing::debug!(%error, "receiving failed");
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Gives each datagram of the buffer to the switchboard.
    fn sort(&self, receiver: &mut Receiver, meta: &RecvMeta) {
        let Receiver { buffer, packets, .. } = receiver;
        let from = SocketAddr::new(meta.addr.ip(), meta.addr.port());
        let length = meta.len.min(buffer.len());
        self.shared.with(|board, now, out| {
            for datagram in buffer[..length].chunks(meta.stride.max(1)) {
                board.receive(now, from, datagram, &mut |at, packet| packets.push_back((at, packet.to_vec())), out);
            }
        });
    }
}

/// Moves packets into quinn's buffers, one in each, and says how many.
fn hand_over(packets: &mut VecDeque<(SocketAddr, Vec<u8>)>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
    let mut count = 0;
    while count < buffers.len().min(meta.len()) {
        let Some((at, packet)) = packets.pop_front() else { break };
        if let Some(buffer) = buffers[count].get_mut(..packet.len()) {
            buffer.copy_from_slice(&packet);
            // ECN marks and the local address are those of one path, and the path is not QUIC's business.
            meta[count] = RecvMeta { addr: at, len: packet.len(), stride: packet.len(), ecn: None, dst_ip: None };
            count += 1;
        }
    }
    count
}

impl AsyncUdpSocket for PathSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AllWritable::new(self.sockets.clone()))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.shared.with(|board, now, out| board.send(now, transmit.destination, transmit.contents, out));
        if sent { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..FRUITLESS_READS_MAX {
            let count = hand_over(&mut receiver.packets, buffers, meta);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if self.read(cx, &mut receiver).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared.board().local())
    }
}
