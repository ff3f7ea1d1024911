//! The roster, kept new: from the login server, and from supernodes, which tell of a newer one sooner.

use super::{Inner, REQUEST_TIME, Session, lock, random_u64, registered, unix_now};
use ahoy_protocol::Signed;
use ahoy_protocol::directory::{Request, Response};
use ahoy_protocol::roster::Roster;
use ahoy_resilience::{Backoff, share_of};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// At the start the supernodes have this time to be there, before the login server is asked for others.
const START_TIME: Duration = Duration::from_secs(1);
/// Where they are there, the login server is asked later: a call that was the reason for the start goes first.
const START_PAUSE: Duration = Duration::from_secs(5);
/// How often the login server is asked for a newer roster; supernodes tell of one sooner.
const ROSTER_REFRESH: Duration = Duration::from_secs(600);
/// How soon it is asked, without a supernode, and how rarely after a while.
const ROSTER_SEARCH_FIRST: Duration = Duration::from_secs(2);
const ROSTER_SEARCH_MOST: Duration = Duration::from_secs(60);

/// Keeps the roster new, from the login server: now and then while there are supernodes, which tell of a newer one sooner, and soon while
/// there are none, since they may be elsewhere by now.
pub(super) async fn keep_roster(inner: Arc<Inner>) {
    let mut connected = inner.connected.subscribe();
    let mut backoff = Backoff::new(ROSTER_SEARCH_FIRST, ROSTER_SEARCH_MOST);
    if timeout(START_TIME, async { drop(connected.wait_for(|sessions| !is_alone(sessions)).await) }).await.is_ok() {
        sleep(START_PAUSE).await;
    }
    loop {
        let account = lock(&inner.account).clone();
        if let Ok(login) = inner.home.login_client(&account) {
            let since = inner.roster.borrow().version;
            match login.roster(since, 0).await {
                Ok(Some(roster)) => inner.adopt_roster(&roster),
                Ok(None) => {}
                Err(error) => debug!(%error, "no newer roster from the login server"),
            }
        }
        if is_alone(&connected.borrow_and_update()) {
            sleep(ROSTER_SEARCH_FIRST + backoff.after_failure(random_u64())).await;
        } else {
            backoff.after_success();
            tokio::select! {
                () = sleep(ROSTER_REFRESH - share_of(ROSTER_REFRESH / 5, random_u64())) => {}
                // What it waited for is let go of before the next wait.
                () = async { drop(connected.wait_for(|sessions| is_alone(sessions)).await) } => sleep(share_of(ROSTER_SEARCH_FIRST, random_u64())).await,
            }
        }
    }
}

fn is_alone(sessions: &[Session]) -> bool {
    registered(sessions).next().is_none()
}

impl Inner {
    /// A supernode says that there is a roster of this version.
    pub(super) async fn handle_version(&self, session: &Session, version: u64) {
        if version > self.roster.borrow().version {
            self.fetch_roster(session).await;
        }
    }

    /// Asks a supernode for a newer roster.
    pub(super) async fn fetch_roster(&self, session: &Session) {
        let since = self.roster.borrow().version;
        if let Ok(Response::Roster(Some(roster))) = session.connection.request(&Request::Roster { since }, REQUEST_TIME).await {
            self.adopt_roster(&roster);
        }
    }

    /// Takes a roster over if it is genuine and newer.
    pub(super) fn adopt_roster(&self, signed: &Signed<Roster>) {
        let account = lock(&self.account).clone();
        let Ok(roster) = account.network.verify_roster(signed, unix_now()) else {
            warn!("a roster that this network did not sign was refused");
            return;
        };
        let is_newer = self.roster.send_if_modified(|known| {
            let is_newer = roster.version > known.version;
            if is_newer {
                *known = Arc::new(roster);
            }
            is_newer
        });
        if is_newer && let Err(error) = self.home.save_roster(signed) {
            warn!(%error, "the roster could not be kept");
        }
    }
}
