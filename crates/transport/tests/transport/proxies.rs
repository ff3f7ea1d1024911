//! Proxies for the tests: as much of HTTP CONNECT and SOCKS5 as a client of ours uses. What passes can be held up and cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Http,
    Socks5,
}

/// What becomes of the bytes that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Runs,
    /// Nothing is read, so that those who send run into full buffers.
    Stands,
    Cut,
}

/// A proxy that runs until it is dropped.
pub(crate) struct TestProxy {
    pub(crate) address: SocketAddr,
    /// Connections made so far.
    pub(crate) connections: Arc<AtomicUsize>,
    flow: watch::Sender<Flow>,
    _tasks: JoinSet<()>,
}

impl TestProxy {
    /// A proxy that wants this user name and password, or none.
    pub(crate) async fn new(language: Language, credentials: Option<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has room");
        let address = listener.local_addr().expect("bound");
        let (flow, flows) = watch::channel(Flow::Runs);
        let connections = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, language, credentials, Arc::clone(&connections), flows));
        Self { address, connections, flow, _tasks: tasks }
    }

    pub(crate) fn hold_up(&self) {
        self.flow.send_replace(Flow::Stands);
    }

    pub(crate) fn let_go(&self) {
        self.flow.send_replace(Flow::Runs);
    }

    pub(crate) fn cut(&self) {
        self.flow.send_replace(Flow::Cut);
    }
}

async fn serve(
    listener: TcpListener,
    language: Language,
    credentials: Option<(&'static str, &'static str)>,
    connections: Arc<AtomicUsize>,
    flow: watch::Receiver<Flow>,
) {
    let mut clients = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("bound");
        let (connections, flow) = (Arc::clone(&connections), flow.clone());
        clients.spawn(async move {
            let connected = match language {
                Language::Http => connect_http(client, credentials).await,
                Language::Socks5 => connect_socks(client, credentials).await,
            };
            let Some((client, node)) = connected else { return };
            connections.fetch_add(1, Ordering::Relaxed);
            let ((from_client, to_client), (from_node, to_node)) = (client.into_split(), node.into_split());
            tokio::join!(pass(from_client, to_node, flow.clone()), pass(from_node, to_client, flow));
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut buffer = [0; 4096];
    loop {
        if !matches!(flow.wait_for(|flow| *flow != Flow::Stands).await.as_deref(), Ok(Flow::Runs)) {
            return;
        }
        let count = tokio::select! {
            count = from.read(&mut buffer) => count.unwrap_or(0),
            _ = flow.changed() => continue,
        };
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn connect_http(mut client: TcpStream, credentials: Option<(&str, &str)>) -> Option<(TcpStream, TcpStream)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("text");
    let wanted = credentials.map(|(user, password)| {
        let pair = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
        format!("Proxy-Authorization: Basic {pair}\r\n")
    });
    if wanted.is_some_and(|wanted| !head.contains(&wanted)) {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n").await.ok()?;
        return None;
    }
    let to: SocketAddr = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).and_then(|to| to.parse().ok())?;
    match TcpStream::connect(to).await {
        Ok(node) => {
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.ok()?;
            Some((client, node))
        }
        Err(_) => {
            client.write_all(b"HTTP/1.1 502 Bad gateway\r\n\r\nnobody there").await.ok()?;
            None
        }
    }
}

async fn connect_socks(mut client: TcpStream, credentials: Option<(&str, &str)>) -> Option<(TcpStream, TcpStream)> {
    let method: u8 = if credentials.is_some() { 2 } else { 0 };
    assert_eq!(client.read_u8().await.ok()?, 5);
    let methods = read_counted(&mut client).await?;
    if !methods.contains(&method) {
        client.write_all(&[5, 0xff]).await.ok()?;
        return None;
    }
    client.write_all(&[5, method]).await.ok()?;
    if let Some((user, password)) = credentials {
        assert_eq!(client.read_u8().await.ok()?, 1);
        let is_right = read_counted(&mut client).await? == user.as_bytes();
        let is_right = read_counted(&mut client).await? == password.as_bytes() && is_right;
        client.write_all(&[1, u8::from(!is_right)]).await.ok()?;
        if !is_right {
            return None;
        }
    }
    let mut request = [0; 10];
    client.read_exact(&mut request).await.ok()?;
    let [5, 1, 0, 1, a, b, c, d, high, low] = request else { panic!("no request for an IPv4 address: {request:?}") };
    let node = TcpStream::connect(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))).await;
    client.write_all(&[5, u8::from(node.is_err()) * 5, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    Some((client, node.ok()?))
}

async fn read_counted(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; client.read_u8().await.ok()?.into()];
    client.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}
