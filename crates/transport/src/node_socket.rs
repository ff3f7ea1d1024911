//! A node's sockets: QUIC goes to quinn, everything else to the node's [`DatagramHandler`].

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

/// Sends datagrams from a node's sockets.
#[derive(Debug, Clone)]
pub struct NodeSender {
    sockets: Arc<NodeSockets>,
}

impl NodeSender {
    /// Sends one datagram, from the socket by which `to` was last heard, else from the first of its family. Where the
    /// system has no room for it, it is lost.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        if let Some(socket) = self.sockets.towards(to) {
            socket.send(to, datagram, None);
        }
    }
}

/// All sockets of a node.
#[derive(Debug)]
pub(crate) struct NodeSockets {
    list: Vec<Arc<UdpSocket>>,
    /// By which socket an address was last heard; kept only where its family does not tell.
    arrivals: Option<Mutex<HashMap<SocketAddr, usize>>>,
}

impl NodeSockets {
    pub(crate) fn new(list: Vec<Arc<UdpSocket>>) -> Self {
        let of_family = |v6| list.iter().filter(|socket| socket.address().is_ipv6() == v6).count();
        let ambiguous = of_family(true) > 1 || of_family(false) > 1;
        Self { list, arrivals: ambiguous.then(Mutex::default) }
    }

    pub(crate) fn sender(self: &Arc<Self>) -> NodeSender {
        NodeSender { sockets: Arc::clone(self) }
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
            } else if let Some(socket) = self.all.towards(to) {
                socket.send(to, bytes, None);
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
