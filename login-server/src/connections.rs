//! How many connections the server holds, in all and from one network.

use crate::throttle::NetworkPrefix;
use axum_server::accept::Accept;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most connections at one time: below the 1024 open files that a process may have by default.
const CONNECTIONS_MAX: usize = 900;
/// Most connections from one network, so that one cannot take them all. Loopback is exempt: a proxy in front may be behind it.
const CONNECTIONS_PER_NETWORK_MAX: usize = 200;

/// Accepts connections while there is room and closes the others at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounded {
    open: Arc<Mutex<BTreeMap<NetworkPrefix, usize>>>,
}

impl Bounded {
    fn enter(&self, network: NetworkPrefix) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let from_network = open.get(&network).copied().unwrap_or_default();
        let full = open.values().sum::<usize>() >= CONNECTIONS_MAX;
        if full || (from_network >= CONNECTIONS_PER_NETWORK_MAX && !network.is_loopback()) {
            return None;
        }
        open.insert(network, from_network + 1);
        Some(Place { bounded: self.clone(), network })
    }
}

/// One connection's place. Dropping it makes room.
#[derive(Debug)]
struct Place {
    bounded: Bounded,
    network: NetworkPrefix,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.bounded.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.network)),
        }
    }
}

impl<S> Accept<TcpStream, S> for Bounded {
    type Stream = Placed;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Placed, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let placed = stream.peer_addr().and_then(|peer| {
            stream.set_nodelay(true)?;
            let place = self.enter(NetworkPrefix::of(peer.ip())).ok_or_else(|| io::Error::other("too many connections"))?;
            Ok((Placed { stream, _place: place }, service))
        });
        std::future::ready(placed)
    }
}

/// A connection together with its place.
#[derive(Debug)]
pub(crate) struct Placed {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_leaves_room_for_others_and_all_together_are_bounded() {
        let bounded = Bounded::default();
        let network = |n: u8| NetworkPrefix::of([10, 0, n, 1].into());
        let mut places: Vec<Place> = std::iter::from_fn(|| bounded.enter(network(0))).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_NETWORK_MAX);
        places.extend((1..100).flat_map(|n| std::iter::from_fn(move || Some(n)).take(100)).filter_map(|n| bounded.enter(network(n))));
        assert_eq!(places.len(), CONNECTIONS_MAX);
        drop(places);
        assert!(bounded.enter(network(0)).is_some());
    }
}
