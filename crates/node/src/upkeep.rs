//! What a node does in the background: it follows the roster, and renews its certificate at half its life.
//!
//! Both loops end only with the node. Whatever fails is tried again after a [`Backoff`].

use crate::addresses::Addresses;
use crate::error::{NodeError, RosterRefused};
use crate::join::{now, signed_request};
use crate::kept::{Expected, Membership};
use crate::node::Shared;
use crate::roster::Offered;
use ahoy_identity::random;
use ahoy_login_client::{LoginClient, LoginClientError};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::certificate::NodeCertificate;
use ahoy_protocol::login::ROSTER_WAIT_S_MAX;
use ahoy_resilience::{Backoff, share_of};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Bound of the first wait after a failed look for a roster.
const ROSTER_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Bound of any: nodes find a login server that is back within a minute.
const ROSTER_RETRY_MOST: Duration = Duration::from_secs(60);
/// Least time between two looks, lest a server that does not wait as asked be asked without pause.
const ROSTER_PAUSE: Duration = Duration::from_secs(1);

/// Bound of the first wait after a failed renewal.
const RENEWAL_RETRY_FIRST: Duration = Duration::from_secs(5);
/// Bound of any: a certificate has half a day left when its renewal begins.
const RENEWAL_RETRY_MOST: Duration = Duration::from_secs(10 * 60);
/// Least time between two renewals that nobody's change of address asked for, should certificates come with half their life gone.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// Part of a certificate's life by which its renewal is put off at random: the nodes of a network were often started at once.
const RENEWAL_JITTER_DIVISOR: u32 = 10;
/// How often the clock is looked at while waiting: a machine that slept must notice.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

/// Asks the login server for each newer roster, for ever.
pub(crate) async fn follow_rosters(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(ROSTER_RETRY_FIRST, ROSTER_RETRY_MOST);
    loop {
        let asked = Instant::now();
        match shared.client().roster(shared.roster_version(), ROSTER_WAIT_S_MAX).await {
            Ok(None) => backoff.after_success(),
            Ok(Some(signed)) => match shared.offer_roster(signed) {
                Ok(offered) => {
                    backoff.after_success();
                    if offered == Offered::Taken {
                        tracing::debug!(version = shared.roster_version(), "roster taken");
                    }
                }
                Err(refused) => {
                    tracing::warn!(%refused, "the login server's roster was not taken");
                    if matches!(refused, RosterRefused::Chain(_)) {
                        refresh_document(&shared).await;
                    }
                    sleep(backoff.after_failure(random_number())).await;
                }
            },
            Err(problem) => {
                tracing::debug!(%problem, "no word of the roster");
                if matches!(problem, LoginClientError::Untrusted { .. }) {
                    refresh_document(&shared).await;
                }
                sleep(backoff.after_failure(random_number())).await;
            }
        }
        sleep_until(asked + ROSTER_PAUSE).await;
    }
}

/// Renews the certificate at half its life, or at once when the addresses change, for ever.
pub(crate) async fn renew(shared: Arc<Shared>, mut addresses: watch::Receiver<Addresses>) {
    let mut backoff = Backoff::new(RENEWAL_RETRY_FIRST, RENEWAL_RETRY_MOST);
    let mut earliest = now();
    loop {
        let due = renewal_due(&shared.certificate(), random_number()).max(earliest);
        while now() < due {
            if timeout(CLOCK_LOOK, addresses.changed()).await.is_ok() {
                break;
            }
        }
        while let Err(problem) = renew_once(&shared).await {
            let lasts = shared.certificate().not_after.since(now());
            tracing::warn!(%problem, lasts_s = lasts.as_secs(), "the certificate was not renewed; trying again");
            refresh_document(&shared).await;
            sleep(backoff.after_failure(random_number())).await;
        }
        backoff.after_success();
        earliest = now().plus(RENEWAL_PAUSE);
    }
}

async fn renew_once(shared: &Shared) -> Result<(), NodeError> {
    let network = shared.network();
    let addresses = shared.addresses.borrow().clone();
    let request = signed_request(&shared.key, shared.role, &network, &addresses)?;
    let credentials = shared.client().renew_node(request).await?;
    let expected = Expected { network: &network, role: shared.role, key: &shared.key };
    let renewed = Membership::fresh(expected, credentials, now())?;
    tracing::info!(lasts_s = renewed.certificate.not_after.since(now()).as_secs(), "certificate renewed");
    shared.take_membership(renewed);
    Ok(())
}

/// The issuing keys may have been replaced: the root key's newest word on them is asked for.
async fn refresh_document(shared: &Shared) {
    match LoginClient::connect(&shared.link).await {
        Ok(client) => shared.take_document(client),
        Err(problem) => tracing::debug!(%problem, "no network document"),
    }
}

/// Half the certificate's life after its issue, and up to a tenth of it later, as `random` says.
fn renewal_due(certificate: &NodeCertificate, random: u64) -> UnixMillis {
    let life = certificate.not_after.since(certificate.issued);
    certificate.issued.plus(life / 2).plus(share_of(life / RENEWAL_JITTER_DIVISOR, random))
}

fn random_number() -> u64 {
    u64::from_be_bytes(random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::NodeKey;
    use ahoy_protocol::certificate::NodeRole;
    use ahoy_protocol::time::{DAY, HOUR};

    #[test]
    fn renewal_is_due_at_half_life_with_a_tenth_of_jitter() {
        let issued = UnixMillis(1_000_000);
        let certificate = NodeCertificate { role: NodeRole::Relay, node: NodeKey([1; 32]), serial: 1, issued, not_after: issued.plus(DAY) };
        assert_eq!(renewal_due(&certificate, 0), issued.plus(12 * HOUR));
        assert_eq!(renewal_due(&certificate, u64::MAX), issued.plus(12 * HOUR + DAY / 10));
    }
}
