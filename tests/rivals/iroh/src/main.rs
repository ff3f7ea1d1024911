//! How long iroh takes to open a connection to a peer that it knows, printed in milliseconds, one line a connection.
//!
//! ```text
//! iroh-rival relay IP              serves a relay without TLS, which spares the rival round trips; prints `relay URL`
//! iroh-rival listen URL            waits for connections; prints `peer ID` once it is online
//! iroh-rival connect URL ID COUNT  prints `cold MS` (from making the endpoint) and `warm MS` (from an endpoint that is online) for each
//! ```

use iroh::endpoint::presets::Minimal;
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMap, RelayMode, RelayUrl};
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use std::error::Error;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const ALPN: &[u8] = b"rival/1";
/// One connection may take this long.
const TIME_MAX: Duration = Duration::from_secs(20);
/// What a listener says first, so that both ends are known to have the connection.
const GREETING: &[u8] = b"ahoy";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["relay", ip] => relay(ip.parse()?).await,
        ["listen", url] => listen(url.parse()?).await,
        ["connect", url, id, count] => connect(&url.parse()?, id.parse()?, count.parse()?).await,
        _ => Err("usage: iroh-rival relay IP | listen URL | connect URL ID COUNT".into()),
    }
}

fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

async fn relay(ip: IpAddr) -> Result<()> {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(SocketAddr::new(ip, 0)));
    let server = Server::spawn(config).await?;
    let at = server.http_addr().ok_or("the relay has no address")?;
    say(&format!("relay http://{at}"));
    std::future::pending().await
}

async fn endpoint(url: &RelayUrl) -> Result<Endpoint> {
    let relays = RelayMode::Custom(RelayMap::from_iter([url.clone()]));
    Ok(Endpoint::builder(Minimal).alpns(vec![ALPN.to_vec()]).relay_mode(relays).bind().await?)
}

async fn listen(url: RelayUrl) -> Result<()> {
    let endpoint = endpoint(&url).await?;
    endpoint.online().await;
    say(&format!("peer {}", endpoint.id()));
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            let mut stream = connection.open_uni().await?;
            stream.write_all(GREETING).await?;
            stream.finish()?;
            connection.closed().await;
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }
    Ok(())
}

async fn connect(url: &RelayUrl, id: EndpointId, count: usize) -> Result<()> {
    for _ in 0..count {
        let began = Instant::now();
        let cold = endpoint(url).await?;
        say(&format!("cold {:.1}", reach(&cold, url, id, began).await?));
        cold.close().await;
        let warm = endpoint(url).await?;
        tokio::time::timeout(TIME_MAX, warm.online()).await?;
        say(&format!("warm {:.1}", reach(&warm, url, id, Instant::now()).await?));
        warm.close().await;
    }
    Ok(())
}

/// Connects and waits for the greeting; the time since `began` until the connection stands, in milliseconds.
async fn reach(endpoint: &Endpoint, url: &RelayUrl, id: EndpointId, began: Instant) -> Result<f64> {
    let peer = EndpointAddr::new(id).with_relay_url(url.clone());
    let connection = tokio::time::timeout(TIME_MAX, endpoint.connect(peer, ALPN)).await??;
    let took = began.elapsed();
    let mut stream = tokio::time::timeout(TIME_MAX, connection.accept_uni()).await??;
    let greeting = stream.read_to_end(GREETING.len()).await?;
    if greeting != GREETING {
        return Err("the peer said something else".into());
    }
    connection.close(0u32.into(), b"");
    Ok(took.as_secs_f64() * 1_000.0)
}
