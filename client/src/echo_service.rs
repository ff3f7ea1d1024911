//! The echo service: a user whom people call to hear themselves, run by whoever runs a network.
//!
//! It answers every call, records ten seconds, plays them back, and so on, until the caller hangs up. An engine has one call at a time, as a
//! telephone has; the service has several *lines*, each a device of the account with an engine and a home of its own. Each call is offered to
//! all of them; the first that is free claims it and answers, and when none is, the caller hears that it is busy.

use crate::account::{AccountError, Entrance, enter};
use crate::engine::{self, Claims, Config, Handle};
use crate::events::{Event, Output};
use crate::home::Home;
use crate::media::MediaOptions;
use ahoy_login_client::LoginClientError;
use ahoy_protocol::login::LoginError;
use ahoy_protocol::{Name, NetworkLink};
use ahoy_store::FolderLock;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tracing::debug;

/// Most lines: an account has no more devices than twelve, and its owner may want one.
pub const LINES_MAX: i64 = 10;

/// Lines that are ready to be opened.
#[derive(Debug)]
pub struct EchoService {
    lines: Vec<Handle>,
    /// Each line's home is this process's.
    _locks: Vec<FolderLock>,
}

/// Opens the lines in `dir`. A line that is not part of the account is signed in with the password; where there is no account, it is made.
///
/// # Errors
/// A sentence for whoever runs the network.
pub async fn open(
    dir: &Path,
    name: &Name,
    link: Option<&NetworkLink>,
    lines: u8,
    password: impl Fn() -> Result<String, String>,
    output: Output,
) -> Result<EchoService, String> {
    let mut service = EchoService { lines: Vec::new(), _locks: Vec::new() };
    let claims = Arc::new(Claims::default());
    for number in 1..=lines {
        let home = Home::open(&dir.join(format!("line-{number}"))).map_err(words)?;
        service._locks.push(home.lock().map_err(words)?);
        if !home.has_account().map_err(words)? {
            let link = link.ok_or("nobody is signed in here yet; say with --network LINK which network this is for")?;
            join(&home, name, link, &password()?, number, output).await?;
        }
        service.lines.push(start(home, (claims.clone(), number)).await?);
    }
    Ok(service)
}

/// Signs a line in, or makes the account if the first is told that there is none.
async fn join(home: &Home, name: &Name, link: &NetworkLink, password: &str, number: u8, output: Output) -> Result<(), String> {
    let (reach, _) = home.settings().map_err(words)?.reach_here();
    let label = format!("line {number}");
    if number == 1 {
        match enter(home, Entrance::Register, link, name, password, &label, &reach).await {
            Ok(_) => {
                output.tell(&Event::Registered { name: name.to_string() });
                return Ok(());
            }
            // Somebody has the name: whoever knows its password.
            Err(AccountError::Login(LoginClientError::Refused(LoginError::NameTaken(_)))) => debug!("the account is there"),
            Err(error) => return Err(words(error)),
        }
    }
    enter(home, Entrance::SignIn, link, name, password, &label, &reach).await.map(drop).map_err(words)
}

async fn start(home: Home, claims: (Arc<Claims>, u8)) -> Result<Handle, String> {
    let account = home.account().map_err(words)?;
    let settings = home.settings().map_err(words)?;
    let media = MediaOptions { is_echo: true, ..MediaOptions::default() };
    let config = Config { auto_answer: true, media, reach: settings.reach_here().0, sound: settings.sound(), claims: Some(claims) };
    engine::start(Arc::new(home), account, config).await.map_err(words)
}

impl EchoService {
    /// Answers until `interrupted` is ready.
    pub async fn serve(self, output: Output, interrupted: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        for line in &self.lines {
            tasks.spawn(tell(line.subscribe(), output));
        }
        let ready = async {
            for line in &self.lines {
                line.online().await;
            }
            // One line stands for all: they are one user.
            if let Some(line) = self.lines.first() {
                output.tell(&line.online_event());
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ready => {}
            () = interrupted => {}
        }
        let mut stopping = JoinSet::new();
        for line in self.lines {
            stopping.spawn(async move { line.stop().await });
        }
        while stopping.join_next().await.is_some() {}
        tasks.shutdown().await;
    }
}

/// Tells what happens on a line.
async fn tell(mut events: broadcast::Receiver<Event>, output: Output) {
    loop {
        match events.recv().await {
            Ok(event) => output.tell(&event),
            Err(broadcast::error::RecvError::Lagged(missed)) => debug!(missed, "events were missed"),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
