//! The program as others script against it.

mod common;

use ahoy_identity::SigningKey;
use ahoy_login_client::LoginClient;
use ahoy_protocol::NetworkLink;
use ahoy_protocol::certificate::NodeRole;
use common::{node_request, register, sign_in};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ahoy-login"));
    command.args(args).arg("--data").arg(data);
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    command(data, args).output().expect("runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("is text")
}

/// What a command that fails says: its last line.
fn complaint(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    String::from_utf8_lossy(&output.stderr).lines().last().expect("says why").to_owned()
}

/// A server that runs as a process of its own.
struct Served {
    child: Child,
    link: NetworkLink,
}

impl Served {
    fn start(data: &Path, args: &[&str]) -> Self {
        let mut child = command(data, &["serve"]).args(args).stdout(Stdio::piped()).spawn().expect("runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("reads");
        let link = line.trim().strip_prefix("network ").expect("prints the link").parse().expect("is a link");
        Self { child, link }
    }

    fn stop(mut self, signal: &str) -> Option<i32> {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("runs").success());
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_network_is_served_administered_and_stopped_from_the_command_line() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().join("data");
    let served = Served::start(&data, &["--listen", "127.0.0.1:0"]);
    let client = LoginClient::connect(&served.link).await.expect("connects");
    register(&client, "bob").await;

    let token = stdout(&run(&data, &["node-token"])).lines().last().expect("prints a token").to_owned();
    let key = SigningKey::generate();
    client.enrol(&token, node_request(served.link.network, &key, NodeRole::Relay, "127.0.0.1:4000")).await.expect("enrols");
    assert!(stdout(&run(&data, &["nodes", "list"])).contains(&key.node_key().to_string()));

    let listed = stdout(&run(&data, &["users", "list", "--json"]));
    let user: serde_json::Value = serde_json::from_str(listed.trim()).expect("one object a line");
    assert_eq!((&user["name"], &user["status"], &user["devices"]), (&"bob".into(), &"active".into(), &1.into()));
    stdout(&run(&data, &["users", "disable", "Bob"]));
    assert!(stdout(&run(&data, &["users", "list"])).contains("disabled"));
    assert!(sign_in(&client, "bob", common::PASSWORD).await.is_err());
    stdout(&run(&data, &["users", "enable", "bob"]));
    sign_in(&client, "bob", common::PASSWORD).await.expect("signs in");
    stdout(&run(&data, &["users", "reset", "bob", "--now"]));
    register(&client, "bob").await;

    let link = served.link.clone();
    assert_eq!(served.stop("-TERM"), Some(0));
    let again = Served::start(&data, &["--listen", &link.authority()]);
    assert_eq!(again.link, link);
    assert_eq!(again.stop("-INT"), Some(0));
}

#[test]
fn many_commands_at_once_on_a_folder_that_is_new_all_work() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().join("data");
    let mut children: Vec<Child> =
        (0..8).map(|_| command(&data, &["node-token"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs")).collect();
    let served = Served::start(&data, &["--listen", "127.0.0.1:0"]);
    for child in children.drain(..) {
        let output = child.wait_with_output().expect("ends");
        assert_eq!(stdout(&output).trim().len(), 32);
    }
    assert_eq!(served.stop("-TERM"), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let listen = taken.local_addr().expect("has one").to_string();
    let complaint = complaint(&run(dir.path(), &["serve", "--listen", &listen]), 1);
    assert_eq!(
        complaint,
        format!(
            "ahoy-login: cannot listen on {listen}: the port is in use; stop the program that uses it, or give another port with --listen"
        )
    );
    let metrics = self::complaint(&run(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics", &listen]), 1);
    assert!(metrics.contains(&listen) && metrics.ends_with("or give another port with --metrics"), "{metrics}");
}

#[test]
fn a_data_folder_in_use_unwritable_or_newer_is_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().join("data");
    let served = Served::start(&data, &["--listen", "127.0.0.1:0"]);
    let in_use = complaint(&run(&data, &["serve", "--listen", "127.0.0.1:0"]), 1);
    assert!(in_use.contains("is in use by another ahoy-login; stop that one first"), "{in_use}");
    assert_eq!(served.stop("-TERM"), Some(0));

    let unwritable = complaint(&run(Path::new("/dev/null/data"), &["serve", "--listen", "127.0.0.1:0"]), 1);
    assert!(unwritable.contains("cannot make the data folder /dev/null/data"), "{unwritable}");

    std::fs::write(data.join("format.json"), r#"{"program":"ahoy-login","version":99}"#).expect("writes");
    let newer = complaint(&run(&data, &["serve", "--listen", "127.0.0.1:0"]), 1);
    assert!(newer.contains("was written by a newer ahoy-login"), "{newer}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_to_write() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for listen in ["nonsense", "127.0.0.1", "localhost:1", "127.0.0.1:70000"] {
        let output = run(dir.path(), &["serve", "--listen", listen]);
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("write an address and a port, such as 0.0.0.0:7300"), "{stderr}");
    }
    assert_eq!(run(dir.path(), &["nonsense"]).status.code(), Some(2));
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    assert_eq!(Served::start(dir.path(), &["--listen", "127.0.0.1:0"]).stop("-TERM"), Some(0));
    assert!(complaint(&run(dir.path(), &["users", "disable", "nobody"]), 1).contains("there is no account nobody"));
    let malformed = complaint(&run(dir.path(), &["users", "disable", "no/name"]), 1);
    assert!(malformed.starts_with("ahoy-login: \"no/name\" is not a name: "), "{malformed}");
    assert!(complaint(&run(dir.path(), &["nodes", "remove", "abc"]), 1).contains("there is no node abc"));
    let database = complaint(&run(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--database", "mysql://a:b@c/d"]), 1);
    assert!(database.contains("\"mysql://a@c/d\" is not a database address; write sqlite:PATH"), "{database}");
    let host = complaint(&run(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--public-host", "a b"]), 1);
    assert!(host.contains("--public-host"), "{host}");
}

#[test]
fn a_mistyped_data_folder_is_named_and_not_made() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().join("data");
    let expected = format!("ahoy-login: {} holds no network; give the folder that `ahoy-login serve` uses", data.display());
    for args in [&["users", "list"][..], &["users", "disable", "bob"], &["nodes", "list"], &["nodes", "remove", "abc"]] {
        assert_eq!(complaint(&run(&data, args), 1), expected);
    }
    assert!(!data.exists());
    let token = run(&data, &["node-token"]);
    assert_eq!(stdout(&token).trim().len(), 32);
    assert!(String::from_utf8_lossy(&token.stderr).contains("holds no network yet"));
}

#[test]
fn the_database_that_was_named_is_remembered() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (data, database) = (dir.path().join("data"), dir.path().join("elsewhere #1.db"));
    let served = Served::start(&data, &["--listen", "127.0.0.1:0", "--database", &format!("sqlite:{}", database.display())]);
    assert_eq!(served.stop("-TERM"), Some(0));
    stdout(&run(&data, &["node-token"]));
    assert!(database.is_file());
    assert!(!data.join("accounts.db").exists());
    let other = dir.path().join("other");
    let args = ["serve", "--listen", "127.0.0.1:0", "--database", &format!("sqlite:{}", database.display())];
    assert!(complaint(&run(&other, &args), 1).contains("belongs to another network"));
}

#[test]
fn a_public_host_is_in_the_link_and_metrics_count_answers() {
    let dir = tempfile::tempdir().expect("temporary folder");
    // Bound and let go: the system hands it to nobody else so soon.
    let metrics = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has one").to_string();
    let args = ["--listen", "127.0.0.1:0", "--public-host", "login.example", "--metrics", &metrics];
    let served = Served::start(dir.path(), &args);
    assert_eq!(served.link.host, "login.example");
    let mut stream = TcpStream::connect(&metrics).expect("connects");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads");
    assert!(text.contains("# TYPE ahoy_login_answers_total counter"), "{text}");
}
