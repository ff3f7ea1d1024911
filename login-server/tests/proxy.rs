//! Clients that reach the login server through a proxy.

mod common;

use ahoy_login_client::{LoginClient, LoginClientError};
use common::{LOOPBACK, Network, register};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// A proxy that speaks HTTP CONNECT, and wants a user name and password.
async fn http_proxy() -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("loopback has room");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client));
        }
    });
    address
}

async fn pass(mut client: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    // alice:secret
    if !head.contains("proxy-authorization: basic ywxpy2u6c2vjcmv0") {
        client.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n").await.ok()?;
        return None;
    }
    let to = head.strip_prefix("connect ")?.split(' ').next()?;
    let mut server = TcpStream::connect(to).await.ok()?;
    client.write_all(b"HTTP/1.1 200 Go on\r\n\r\n").await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}

#[tokio::test]
async fn a_client_registers_through_a_proxy() {
    let (network, proxy) = (Network::start().await, http_proxy().await);
    let url = format!("http://alice:secret@{proxy}");
    let client = LoginClient::connect_through(network.link(), Some(&url)).await.expect("the proxy leads to the server");
    register(&client, "alice").await;
    let document = client.document().clone();
    let client = LoginClient::with_network_through(network.link(), document, Some(&url)).expect("it is the network's");
    client.roster(0, 0).await.expect("answers");
}

#[tokio::test]
async fn a_proxy_that_does_not_help_is_an_unreachable_server() {
    let (network, proxy) = (Network::start().await, http_proxy().await);
    let refused = LoginClient::connect_through(network.link(), Some(&format!("http://eve:guess@{proxy}"))).await;
    let refused = refused.expect_err("the proxy refuses");
    assert!(refused.is_temporary() && !refused.to_string().contains("guess"), "{refused}");
    let nonsense = LoginClient::connect_through(network.link(), Some("no proxy at all")).await;
    assert_eq!(nonsense.expect_err("no URL"), LoginClientError::Proxy);
}
