//! Answers "from which address do you see me?".

use crate::DatagramHandler;
use ahoy_protocol::datagram::{Observe, Observed};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A handler that answers observe requests and drops everything else. It keeps nothing about anybody, and never sends
/// more than it received.
#[derive(Debug)]
pub struct ObserveResponder {
    load_percent: Arc<AtomicU8>,
}

impl ObserveResponder {
    /// A responder whose answers carry `load_percent`, which its owner keeps up to date.
    #[must_use]
    pub fn new(load_percent: Arc<AtomicU8>) -> Self {
        Self { load_percent }
    }
}

impl DatagramHandler for ObserveResponder {
    fn handle(&self, from: SocketAddr, datagram: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8])) {
        let Ok(Observe { nonce }) = Observe::decode(datagram) else { return };
        let load_percent = self.load_percent.load(Ordering::Relaxed).min(100);
        out(from, &Observed { nonce, load_percent, address: from }.encode());
    }
}
