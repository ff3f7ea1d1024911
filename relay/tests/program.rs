//! The program as people start it: what it prints, and how it ends.

mod harness;

use ahoy_login::admin::Admin;
use ahoy_login::{Clock, Config, Server};
use harness::{PATIENCE, any_port};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_serves_and_ends_with_status_0_when_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let login = Server::start(Config::new(folder.path().join("login"), any_port())).await.expect("it starts");
    let admin = Admin::open(&folder.path().join("login"), Clock::default()).await.expect("the folder is there");
    let token = admin.node_token().await.expect("a token");
    let mut relay = serve(&login.link().to_string(), &folder.path().join("relay"), any_port())
        .args(["--token", &token])
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(relay.stdout.take().expect("it is piped")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text").expect("a line");
    let address: SocketAddr = line.strip_prefix("serving ").expect("its word").parse().expect("an address");
    assert_ne!(address.port(), 0);

    let id = relay.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill is there").success());
    assert!(timeout(PATIENCE, relay.wait()).await.expect("in time").expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_stopped_while_it_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = TcpListener::bind(any_port()).await.expect("a free port");
    let link = format!("ahoy://{}#{}", silent.local_addr().expect("it is bound"), "a".repeat(32));
    let mut relay = serve(&link, folder.path(), any_port()).kill_on_drop(true).spawn().expect("it starts");
    let _connection = timeout(PATIENCE, silent.accept()).await.expect("it asks the login server").expect("a connection");
    let id = relay.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill is there").success());
    assert!(timeout(PATIENCE, relay.wait()).await.expect("in time").expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_link_is_one_sentence_and_status_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = ended(serve("ahoy://nowhere", folder.path(), any_port())).await;
    assert_failed(&output, "network link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_server_that_is_down_is_one_sentence_and_status_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = format!("ahoy://127.0.0.1:9#{}", "a".repeat(32));
    assert_failed(&ended(serve(&link, folder.path(), any_port())).await, "cannot reach the login server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_one_sentence_and_status_1() {
    let taken = UdpSocket::bind(any_port()).expect("a free port");
    let folder = tempfile::tempdir().expect("a folder");
    let link = format!("ahoy://127.0.0.1:9#{}", "a".repeat(32));
    let output = ended(serve(&link, folder.path(), taken.local_addr().expect("it is bound"))).await;
    assert_failed(&output, "in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_status_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_ahoy-relay")).args(["serve", "--listen", "here"]).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

fn serve(link: &str, data: &Path, listen: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ahoy-relay"));
    command.args(["serve", "--network", link, "--listen", &listen.to_string(), "--data"]).arg(data);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("AHOY_LOG").env_remove("AHOY_NODE_TOKEN");
    command
}

async fn ended(mut command: Command) -> Output {
    timeout(PATIENCE, command.kill_on_drop(true).output()).await.expect("it ends in time").expect("it runs")
}

fn assert_failed(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(words), "{told}");
}
