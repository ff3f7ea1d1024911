//! A client's one port, as quinn sees it: every remote has a virtual address, and the switchboard knows what is behind.

use crate::shared::Shared;
use crate::udp::{AllWritable, UdpSocket};
use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// Longest datagram read: what an Ethernet frame carries. Nobody who keeps to the protocol sends a longer one.
const DATAGRAM_BYTES_MAX: usize = 1472;
/// Most bytes that the kernel joins in one buffer: the longest IP packet.
const JOINED_BYTES_MAX: usize = 64 * 1024;
/// Times that a poll reads a batch and finds nothing for QUIC before it lets other tasks run, so that strangers who flood the port cannot
/// keep the thread. A batch of theirs takes a few microseconds.
const FRUITLESS_READS_MAX: usize = 4;

/// What the sockets look like to quinn.
#[derive(Debug)]
pub(crate) struct PathSocket {
    shared: Arc<Shared>,
    /// In the order in which they are read; they take turns at being first.
    sockets: Vec<Arc<UdpSocket>>,
    receiver: Mutex<Receiver>,
}

/// Room for what is read at once.
#[derive(Debug)]
struct Receiver {
    /// One after the other, buffers of `buffer_bytes` each. Most of it is never touched and takes no memory.
    buffers: Vec<u8>,
    buffer_bytes: usize,
    turn: usize,
}

impl PathSocket {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let sockets = shared.mains();
        let joins = sockets.iter().any(|socket| socket.receive_segments() > 1);
        let buffer_bytes = if joins { JOINED_BYTES_MAX } else { DATAGRAM_BYTES_MAX };
        let receiver = Receiver { buffers: vec![0; buffer_bytes * BATCH_SIZE], buffer_bytes, turn: 0 };
        Self { shared, sockets, receiver: Mutex::new(receiver) }
    }

    /// Reads one batch from one of the sockets and gives it to the switchboard; [`Poll::Pending`] if all are empty.
    fn read(&self, cx: &mut Context<'_>, receiver: &mut Receiver) -> Poll<()> {
        receiver.turn = receiver.turn.wrapping_add(1);
        for index in 0..self.sockets.len() {
            let socket = &self.sockets[(receiver.turn + index) % self.sockets.len()];
            let mut meta = [RecvMeta::default(); BATCH_SIZE];
            match receiver.read(cx, socket, &mut meta) {
                Poll::Pending => {}
                Poll::Ready(Ok(count)) => {
                    self.shared.receive_batch(receiver.buffers.chunks(receiver.buffer_bytes).zip(&meta).take(count));
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
}

impl Receiver {
    fn read(&mut self, cx: &mut Context<'_>, socket: &UdpSocket, meta: &mut [RecvMeta; BATCH_SIZE]) -> Poll<io::Result<usize>> {
        let mut chunks = self.buffers.chunks_mut(self.buffer_bytes);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("there are as many buffers as a batch has")));
        socket.poll_recv(cx, &mut slices, meta)
    }
}

impl AsyncUdpSocket for PathSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AllWritable::new(self.sockets.clone()))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.shared.with(|board, now, out| board.send(now, transmit.destination, transmit.contents, out));
        if sent { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Each call reads the main sockets once before it empties the inbox, so that neither waits for the other's end.
    fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..FRUITLESS_READS_MAX {
            let was_empty = self.read(cx, &mut receiver).is_pending();
            let count = self.shared.inbox.hand_over(cx, buffers, meta);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if was_empty {
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
