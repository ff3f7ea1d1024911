//! A node's UDP sockets: QUIC goes to quinn, everything else to the node's [`DatagramHandler`].

use crate::tunnel::TunnelServer;
use crate::udp::{AllWritable, UdpSocket};
use ahoy_protocol::datagram::{Kind, classify};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// Addresses of which a node with several sockets of a family remembers by which socket they came. When it is full all
/// are forgotten, and come back with the next packet of each.
const ARRIVALS_MAX: usize = 16 * 1024;

/// Takes the datagrams of a port that are not QUIC. Called where they are received: it must be quick, and may not block.
pub trait DatagramHandler: Send + Sync + Debug + 'static {
    /// A datagram came from `from`. `out` sends another at once, from the socket that knows its receiver; where the
    /// system has no room for it, it is lost.
    fn handle(&self, from: SocketAddr, datagram: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8]));
}

/// Sends datagrams from a node's sockets and through its tunnels.
#[derive(Debug, Clone)]
pub struct NodeSender {
    sockets: Arc<NodeSockets>,
}

impl NodeSender {
    /// Sends one datagram: through the tunnel that `to` stands for, or from the socket by which `to` was last heard, else from the first of
    /// its family. Where there is no room for it, it is lost.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.sockets.send(to, datagram);
    }
}

/// All sockets of a node, and its tunnels.
#[derive(Debug)]
pub(crate) struct NodeSockets {
    list: Vec<Arc<UdpSocket>>,
    /// By which socket an address was last heard; kept only where its family does not tell.
    arrivals: Option<Mutex<HashMap<SocketAddr, usize>>>,
    tunnels: Arc<TunnelServer>,
}

impl NodeSockets {
    pub(crate) fn new(list: Vec<Arc<UdpSocket>>, tunnels: Arc<TunnelServer>) -> Self {
        let of_family = |v6| list.iter().filter(|socket| socket.address().is_ipv6() == v6).count();
        let ambiguous = of_family(true) > 1 || of_family(false) > 1;
        Self { list, arrivals: ambiguous.then(Mutex::default), tunnels }
    }

    pub(crate) fn sender(self: &Arc<Self>) -> NodeSender {
        NodeSender { sockets: Arc::clone(self) }
    }

    /// Sends a datagram by the tunnel that `to` stands for, or by the socket that knows it. Where there is no room for it, it is lost.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) {
        if self.tunnels.owns(to) {
            self.tunnels.send(to, datagram);
        } else if let Some(socket) = self.towards(to) {
            socket.send(to, datagram, None);
        }
    }

    fn heard(&self, from: SocketAddr, index: usize) {
        let Some(arrivals) = &self.arrivals else { return };
        let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() >= ARRIVALS_MAX && !arrivals.contains_key(&from) {
            arrivals.clear();
        }
        arrivals.insert(from, index);
    }

    fn towards(&self, to: SocketAddr) -> Option<&UdpSocket> {
        let arrived = self.arrivals.as_ref().and_then(|arrivals| {
            let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.get(&to).and_then(|index| self.list.get(*index))
        });
        let of_family = || self.list.iter().find(|socket| socket.address().is_ipv6() == to.is_ipv6());
        arrived.or_else(of_family).map(|socket| &**socket)
    }
}

/// One of a node's sockets, as quinn sees it.
#[derive(Debug)]
pub(crate) struct NodeSocket {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) index: usize,
    pub(crate) all: Arc<NodeSockets>,
    pub(crate) handler: Arc<dyn DatagramHandler>,
}

impl NodeSocket {
    /// Hands what is not QUIC to the handler and moves the QUIC datagrams of `buffer` to its front.
    ///
    /// All datagrams of a buffer but the last have the same length, so those that stay still do.
    fn take_ours(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        if self.all.tunnels.owns(meta.addr) {
            // Whoever sends from such an address has forged it.
            meta.len = 0;
            return;
        }
        self.all.heard(meta.addr, self.index);
        let (length, stride) = (meta.len.min(buffer.len()), meta.stride.max(1));
        let (mut start, mut kept) = (0, 0);
        while start < length {
            let end = (start + stride).min(length);
            if classify(&buffer[start..end]) == Some(Kind::Quic) {
                buffer.copy_within(start..end, kept);
                kept += end - start;
            } else {
                self.handle(meta.addr, meta.dst_ip, &buffer[start..end]);
            }
            start = end;
        }
        meta.len = kept;
    }

    fn handle(&self, from: SocketAddr, local: Option<IpAddr>, datagram: &[u8]) {
        let mut out = |to: SocketAddr, bytes: &[u8]| {
            if to == from {
                // An answer leaves from the address that was asked, which a machine with several must say.
                self.socket.send(to, bytes, local);
            } else {
                self.all.send(to, bytes);
            }
        };
        self.handler.handle(from, datagram, &mut out);
    }
}

impl AsyncUdpSocket for NodeSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AllWritable::new(vec![Arc::clone(&self.socket)]))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        match ready!(self.socket.poll_recv(cx, buffers, meta)) {
            Ok(count) => {
                for (buffer, meta) in buffers.iter_mut().zip(meta).take(count) {
                    self.take_ours(buffer, meta);
                }
                // Buffers may be empty; quinn passes over them, and counts them as work, so that it rests in time.
                Poll::Ready(Ok(count))
            }
            Err(error) => {
                // An error here would end the endpoint; those that a datagram causes are not worth that.
                tracing::debug!(%error, "receiving failed");
                Poll::Ready(Ok(0))
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.address())
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.receive_segments()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Taken(Mutex<Vec<Vec<u8>>>);

    impl DatagramHandler for Taken {
        fn handle(&self, _from: SocketAddr, datagram: &[u8], _out: &mut dyn FnMut(SocketAddr, &[u8])) {
            self.0.lock().expect("no panic").push(datagram.to_vec());
        }
    }

    /// What stays in a buffer for quinn, and what the handler gets.
    fn sorted(mut buffer: Vec<u8>, stride: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = Arc::new(UdpSocket::bind(address).expect("loopback has room"));
        let handler = Arc::new(Taken::default());
        let tunnels = TunnelServer::new(Arc::clone(&handler) as _, 1, 1);
        let all = Arc::new(NodeSockets::new(vec![Arc::clone(&socket)], tunnels));
        let node = NodeSocket { socket, index: 0, all, handler: Arc::clone(&handler) as _ };
        let mut meta = RecvMeta { addr: address, len: buffer.len(), stride, ..RecvMeta::default() };
        node.take_ours(&mut buffer, &mut meta);
        buffer.truncate(meta.len);
        let taken = handler.0.lock().expect("no panic").clone();
        (buffer, taken)
    }

    #[tokio::test]
    async fn datagrams_that_came_in_one_buffer_are_told_apart() {
        let (quic, ours) = sorted(b"\x40aa\x10bb\x40cc\x0fdd\x40e".to_vec(), 3);
        assert_eq!(quic, b"\x40aa\x40cc\x40e");
        assert_eq!(ours, [b"\x10bb", b"\x0fdd"]);
    }

    #[tokio::test]
    async fn a_buffer_without_quic_leaves_nothing_and_one_of_quic_stays_whole() {
        assert_eq!(sorted(b"\x10bb\x10c".to_vec(), 3), (vec![], vec![b"\x10bb".to_vec(), b"\x10c".to_vec()]));
        assert_eq!(sorted(b"\x40bb\x40c".to_vec(), 3), (b"\x40bb\x40c".to_vec(), vec![]));
        assert_eq!(sorted(vec![], 0), (vec![], vec![]));
    }
}
