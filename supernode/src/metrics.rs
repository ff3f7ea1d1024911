//! Counters for whoever watches the supernode, as text over HTTP. Nothing in them names anybody.

use crate::plane::Plane;
use ahoy_transport::NodeEndpoint;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request is read and answered within this time. They are answered one after the other: there is one reader.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(2);
/// Bytes of a request that are read; what it asks for does not matter.
const REQUEST_BYTES_MAX: usize = 4096;

pub(crate) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

pub(crate) async fn serve(listener: TcpListener, plane: Arc<Plane>, endpoint: Arc<NodeEndpoint>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let text = text(&plane, &endpoint);
                if let Ok(Err(error)) = tokio::time::timeout(EXCHANGE_TIME_MAX, answer(stream, &text)).await {
                    tracing::debug!(%error, "counters could not be sent");
                }
            }
            // Out of file descriptors, most likely: trying at once would be a busy loop.
            Err(error) => {
                tracing::debug!(%error, "counters cannot be asked for");
                tokio::time::sleep(EXCHANGE_TIME_MAX).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn text(plane: &Plane, endpoint: &NodeEndpoint) -> String {
    let gauges = [
        ("sessions", plane.sessions.len()),
        ("connections", endpoint.connections()),
        ("records", plane.directory.shelf.records().len()),
        ("overlay_connected", plane.directory.overlay.connected()),
        ("requests_free", plane.requests.available_permits()),
        ("load_percent", plane.load_percent.load(Ordering::Relaxed).into()),
    ];
    let lines = gauges.iter().map(|(name, value)| format!("# TYPE ahoy_supernode_{name} gauge\nahoy_supernode_{name} {value}\n"));
    lines.collect()
}
