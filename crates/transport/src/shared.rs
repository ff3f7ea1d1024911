//! What all parts of a client's endpoint share: the sockets, the switchboard between them and QUIC, and the tunnels.

use crate::TransportError;
use crate::inbox::Inbox;
use crate::side_sockets::SideSockets;
use crate::switchboard::{Chore, Switchboard};
use crate::tunnel::Tunnels;
use crate::udp::UdpSocket;
use crate::virtual_address::VirtualPrefix;
use ahoy_path::{SocketId, Subnet};
use quinn::udp::{RecvMeta, Transmit};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// Ports tried for one that is free for both families.
const PORT_ATTEMPTS: usize = 8;

/// The sockets and the switchboard, which all that belongs to an endpoint shares.
///
/// Its locks are taken in this order: the switchboard's, then any other. No other is held while one is taken.
#[derive(Debug)]
pub(crate) struct Shared {
    v4: Arc<UdpSocket>,
    v6: Option<Arc<UdpSocket>>,
    prefix: VirtualPrefix,
    board: Mutex<Switchboard>,
    pub(crate) inbox: Inbox,
    sides: SideSockets,
    pub(crate) tunnels: Arc<Tunnels>,
    /// Whether UDP is used at all.
    udp: AtomicBool,
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
        Ok(Self {
            v4: Arc::new(v4),
            v6: v6.map(Arc::new),
            prefix: board.prefix(),
            board: Mutex::new(board),
            inbox: Inbox::default(),
            sides: SideSockets::default(),
            tunnels: Arc::default(),
            udp: AtomicBool::new(true),
            wake_driver: Notify::new(),
        })
    }

    pub(crate) fn port_v4(&self) -> u16 {
        self.v4.address().port()
    }

    pub(crate) fn port_v6(&self) -> Option<u16> {
        self.v6.as_ref().map(|socket| socket.address().port())
    }

    /// Whether there is a socket for `address` that may be used, or a tunnel.
    pub(crate) fn reaches(&self, address: SocketAddr) -> bool {
        self.prefix.is_tunnel(address) || (self.uses_udp() && (address.is_ipv4() || self.v6.is_some()))
    }

    /// What this endpoint's virtual addresses share.
    pub(crate) fn prefix(&self) -> VirtualPrefix {
        self.prefix
    }

    pub(crate) fn board(&self) -> MutexGuard<'_, Switchboard> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the switchboard that may send, and sees to it that the driver keeps to its deadline.
    pub(crate) fn with<T>(
        &self,
        act: impl FnOnce(&mut Switchboard, Instant, &mut dyn FnMut(SocketId, SocketAddr, &[u8]) -> bool) -> T,
    ) -> T {
        let mut board = self.board();
        let result = act(&mut board, Instant::now(), &mut |socket, to, bytes| self.try_send(socket, to, bytes));
        self.keep_deadline(&board);
        result
    }

    /// The driver tells its deadline under the same lock, so none falls between its telling and its sleeping.
    fn keep_deadline(&self, board: &Switchboard) {
        if board.has_earlier_deadline() {
            self.wake_driver.notify_one();
        }
    }

    /// Takes what came from `from` by another socket than the main ones, or out of a tunnel.
    pub(crate) fn receive(&self, socket: SocketId, from: SocketAddr, datagram: &[u8]) {
        let taken = self.sort(socket, |give| give(from, datagram));
        if !taken {
            tracing::trace!("a datagram was dropped");
        }
    }

    /// Takes what a main socket read: into each of `buffers`, the datagrams that `meta` says.
    pub(crate) fn receive_batch<'a>(&self, read: impl Iterator<Item = (&'a [u8], &'a RecvMeta)>) {
        self.sort(SocketId::MAIN, |give| {
            for (buffer, meta) in read {
                let from = SocketAddr::new(meta.addr.ip(), meta.addr.port());
                let length = meta.len.min(buffer.len());
                for datagram in buffer[..length].chunks(meta.stride.max(1)) {
                    give(from, datagram);
                }
            }
        });
    }

    /// Gives datagrams to the switchboard, all of a batch under one lock and by one reading of the clock; says whether any was wanted. Strangers'
    /// datagrams change nothing, so they cost no look at the deadlines either.
    fn sort(&self, socket: SocketId, batch: impl FnOnce(&mut dyn FnMut(SocketAddr, &[u8]))) -> bool {
        let mut board = self.board();
        let now = Instant::now();
        let mut any_taken = false;
        batch(&mut |from, datagram| {
            let deliver = &mut |at, packet: &[u8]| self.inbox.push(at, packet);
            let out = &mut |socket, to, bytes: &[u8]| self.try_send(socket, to, bytes);
            any_taken |= board.receive(now, socket, from, datagram, deliver, out);
        });
        if any_taken {
            self.keep_deadline(&board);
        }
        any_taken
    }

    /// Serves what is due and says when to come again.
    pub(crate) fn serve_deadlines(self: &Arc<Self>) -> Option<Instant> {
        let mut board = self.board();
        board.handle_timeout(Instant::now(), &mut |socket, to, bytes| self.try_send(socket, to, bytes));
        let chores = board.take_chores();
        let deadline = board.tell_deadline();
        drop(board);
        for chore in chores {
            self.carry_out(chore);
        }
        deadline
    }

    /// What the switchboard wants done and cannot do itself, for it opens no sockets.
    fn carry_out(self: &Arc<Self>, chore: Chore) {
        match chore {
            Chore::OpenSockets { peer, count } => {
                let opened = self.sides.open_extras(self, count);
                let taken = self.with(|board, now, out| board.sockets_opened(now, peer, &opened, out));
                if !taken {
                    self.sides.close_extras(&opened);
                }
            }
            Chore::CloseSockets(sockets) => self.sides.close_extras(&sockets),
            Chore::SetLines { wanted, afresh } => self.sides.set_lines(self, &wanted, afresh),
        }
    }

    /// Closes every socket but the main ones, and all tunnels.
    pub(crate) fn close_sides(&self) {
        self.sides.close();
        self.tunnels.close();
    }

    /// Says whether UDP is used; where it is not, what is not for a tunnel is lost.
    pub(crate) fn use_udp(&self, used: bool) {
        self.udp.store(used, Ordering::Relaxed);
    }

    pub(crate) fn uses_udp(&self) -> bool {
        self.udp.load(Ordering::Relaxed)
    }

    /// This machine's addresses changed, or it slept.
    pub(crate) fn handle_network_change(&self, on_link: &[Subnet]) {
        self.with(|board, now, out| board.handle_network_change(now, on_link, out));
    }

    /// Sends a datagram by one of the sockets, or into a tunnel; says whether there was room for it.
    pub(crate) fn try_send(&self, socket: SocketId, to: SocketAddr, bytes: &[u8]) -> bool {
        if self.prefix.is_tunnel(to) {
            self.tunnels.send(to, bytes);
            return true;
        }
        if !self.uses_udp() {
            return true;
        }
        if socket != SocketId::MAIN {
            self.sides.send(socket, to, bytes);
            return true;
        }
        let Some(socket) = self.main(to) else { return true };
        let transmit = Transmit { destination: to, ecn: None, contents: bytes, segment_size: None, src_ip: None };
        socket.try_send(&transmit).is_ok()
    }

    /// Sends a datagram by a main socket or into a tunnel, or loses it.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        if self.prefix.is_tunnel(to) {
            self.tunnels.send(to, bytes);
        } else if let (true, Some(socket)) = (self.uses_udp(), self.main(to)) {
            socket.send(to, bytes, None);
        }
    }

    /// The main socket for this kind of address.
    pub(crate) fn main(&self, to: SocketAddr) -> Option<&UdpSocket> {
        if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_deref() }
    }

    /// The main sockets.
    pub(crate) fn mains(&self) -> Vec<Arc<UdpSocket>> {
        std::iter::once(&self.v4).chain(&self.v6).cloned().collect()
    }
}

fn bind_v4(port: u16) -> Result<UdpSocket, TransportError> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    UdpSocket::bind(address).map_err(|error: io::Error| TransportError::bind(address, &error))
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
