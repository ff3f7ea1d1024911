//! The datagrams of the relay's port that are not QUIC: frames and moves go through the [`Forwarder`], observe requests are answered.

use crate::forwarder::{Forwarder, Verdict};
use crate::limits::PAYLOAD_BYTES_MAX;
use ahoy_protocol::datagram::{KIND_RELAY, Kind, RELAY_HEADER_BYTES, classify};
use ahoy_transport::{DatagramHandler, ObserveResponder};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// The forwarder as data plane and control plane share it. The lock is held for one frame or one join at a time.
#[derive(Debug, Clone)]
pub(crate) struct SharedForwarder(Arc<Mutex<Forwarder>>);

impl SharedForwarder {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Forwarder::new(Instant::now()))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Forwarder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles what the endpoint does not take for QUIC.
#[derive(Debug)]
pub(crate) struct DataPlane {
    pub(crate) forwarder: SharedForwarder,
    pub(crate) observe: ObserveResponder,
    /// Channels whose connection is to be looked at for a change of address.
    pub(crate) looks: mpsc::Sender<u32>,
}

impl DatagramHandler for DataPlane {
    fn handle(&self, from: SocketAddr, datagram: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8])) {
        match classify(datagram) {
            Some(Kind::Relay | Kind::Move) => self.forward(from, datagram, out),
            Some(Kind::Observe) => self.observe.handle(from, datagram, out),
            // Probes between peers come in frames, and an answer to a question that no relay asks is for nobody.
            Some(Kind::Observed | Kind::Ping | Kind::Pong | Kind::Quic) | None => {}
        }
    }
}

impl DataPlane {
    fn forward(&self, from: SocketAddr, frame: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8])) {
        let verdict = self.forwarder.lock().handle(Instant::now(), from, frame);
        match verdict {
            Verdict::Forward { to, channel } => {
                let mut bytes = [0; RELAY_HEADER_BYTES + PAYLOAD_BYTES_MAX];
                // The forwarder lets nothing longer pass.
                let Some(bytes) = bytes.get_mut(..frame.len()) else { return };
                bytes.copy_from_slice(frame);
                bytes[0] = KIND_RELAY;
                bytes[1..RELAY_HEADER_BYTES].copy_from_slice(&channel.to_be_bytes());
                out(to, bytes);
            }
            Verdict::Look(channel) => {
                // A full queue means that many looks are under way; the next frame asks again.
                let _ = self.looks.try_send(channel);
            }
            Verdict::KeptAlive | Verdict::Moved | Verdict::Drop(_) => {}
        }
    }
}
