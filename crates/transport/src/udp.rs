//! One UDP socket: bound for one family, with quinn's platform code for reading several datagrams at once.

use quinn::UdpPoller;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;

/// What the kernel is asked to hold for us, each way: half a second at 30 Mbit/s. It may give less.
const KERNEL_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// A UDP socket. It belongs to the runtime in which it was bound.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
}

impl UdpSocket {
    /// A socket on `address`. An IPv6 socket is for IPv6 alone, so that an IPv4 socket can have the same port.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // Larger buffers are a help, not a need.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER_BYTES);
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        let address = socket.local_addr()?;
        Ok(Self { io: tokio::net::UdpSocket::from_std(socket)?, state, address })
    }

    /// Says whether another socket, which says so too, may be bound to the same port now.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn share_port(&self, share: bool) -> io::Result<()> {
        socket2::SockRef::from(&self.io).set_reuse_address(share)
    }

    /// Where it is bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Most datagrams that the kernel joins in one buffer.
    pub(crate) fn receive_segments(&self) -> usize {
        self.state.gro_segments().max(1)
    }

    /// Sends one datagram, and says so if there is no room for it. Every other failure is a loss like any on the way.
    pub(crate) fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            result => {
                self.note(result);
                Ok(())
            }
        }
    }

    /// Sends one datagram, or loses it where there is no room for it.
    pub(crate) fn send(&self, to: SocketAddr, contents: &[u8], from: Option<IpAddr>) {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: from };
        // Not through the runtime's readiness, which a fresh socket does not have yet.
        self.note(self.state.try_send((&self.io).into(), &transmit));
    }

    fn note(&self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::trace!(%error, "a datagram was not sent");
        }
    }

    /// Receives into `buffers`, each of which may then hold several datagrams.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            match self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, meta)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    async fn writable(self: Arc<Self>) -> io::Result<()> {
        self.io.writable().await
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Tells when all of an endpoint's sockets have room.
///
/// A send blocks only where every socket it would leave by was full, and which those were is not known here. Waiting
/// for all of them is never too early, so the sender does not spin; and a UDP socket does not stay full.
pub(crate) struct AllWritable {
    sockets: Vec<Arc<UdpSocket>>,
    /// Those still waited for in this round; empty between rounds.
    waits: Vec<Writable>,
}

impl AllWritable {
    pub(crate) fn new(sockets: Vec<Arc<UdpSocket>>) -> Self {
        Self { sockets, waits: Vec::new() }
    }
}

impl std::fmt::Debug for AllWritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AllWritable").finish_non_exhaustive()
    }
}

impl UdpPoller for AllWritable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.waits.is_empty() {
            this.waits = this.sockets.iter().map(|socket| Box::pin(Arc::clone(socket).writable()) as Writable).collect();
        }
        // A socket that cannot even say when it has room shows so when it sends; an error here would end the connection.
        this.waits.retain_mut(|wait| wait.as_mut().poll(cx).is_pending());
        if this.waits.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
