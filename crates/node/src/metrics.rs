//! Counters for whoever runs the node: plain HTTP, one page, in the text format that Prometheus reads.
//!
//! One request at a time, each with a deadline: it is for one collector on a private address, not for the world.

use crate::error::NodeError;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Longest head of a request; collectors send a few hundred bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long one request may take in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept, such as one for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Listens for requests for counters.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
}

impl MetricsServer {
    /// Listens at `address`.
    ///
    /// # Errors
    /// [`NodeError::Metrics`].
    pub async fn bind(address: SocketAddr) -> Result<Self, NodeError> {
        let listener = TcpListener::bind(address).await.map_err(|source| NodeError::Metrics { address, source })?;
        Ok(Self { listener })
    }

    /// Where it listens, if the system says so.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers `GET /metrics` with what `page` returns, for ever.
    pub async fn serve(self, page: impl Fn() -> String) {
        loop {
            match self.listener.accept().await {
                // A collector that is slow or gone asks again.
                Ok((stream, _)) => drop(timeout(REQUEST_TIMEOUT, answer(stream, &page)).await),
                Err(problem) => {
                    tracing::debug!(%problem, "a request for metrics was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn answer(mut stream: TcpStream, page: &impl Fn() -> String) -> std::io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) =
        if head.starts_with(b"GET /metrics ") { ("200 OK", page()) } else { ("404 Not Found", "see /metrics\n".to_owned()) };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Bytes up to the empty line, or as many as are looked at.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part).await? {
            0 => break,
            length => head.extend_from_slice(&part[..length]),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(request: &str) -> String {
        let server = MetricsServer::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = server.local_address().expect("it is bound");
        let serving = tokio::spawn(server.serve(|| "legs 2\n".to_owned()));
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn counters_are_one_get_away() {
        let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nlegs 2\n"), "{answer}");
    }

    #[tokio::test]
    async fn anything_else_is_not_there() {
        assert!(ask("POST / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    }
}
