//! Certificates and grant, kept fresh.

use super::{Inner, lock, random_u64, unix_now};
use crate::home::Account;
use ahoy_protocol::login::Credentials;
use ahoy_protocol::{List, Signed, UnixMillis};
use ahoy_resilience::share_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;
use tracing::info;

/// How often certificates and grant are renewed, though they live longer: a day in which the login server is away must not be noticed.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether a renewal is due.
const RENEWAL_CHECK: Duration = Duration::from_secs(600);
/// How soon a renewal that failed is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(300);

/// Keeps certificates and grant fresh.
pub(super) async fn keep_renewed(inner: Arc<Inner>) {
    let mut retry_at = None;
    loop {
        let now = unix_now();
        if inner.is_renewal_due(now) && retry_at.is_none_or(|at| at <= now) {
            retry_at = None;
            if let Err(reason) = inner.renew().await {
                info!(%reason, "certificates could not be renewed");
                retry_at = Some(now.plus(RENEWAL_RETRY));
            }
        }
        // Short sleeps: a long one stands still while a laptop is suspended.
        sleep(RENEWAL_CHECK / 2 + share_of(RENEWAL_CHECK, random_u64())).await;
    }
}

impl Inner {
    /// True once the grant has half of its life, or a day, behind it.
    fn is_renewal_due(&self, now: UnixMillis) -> bool {
        let account = lock(&self.account).clone();
        let Ok(grant) = account.network.verify_issued(&account.credentials.grant) else { return true };
        let half = grant.not_after.since(grant.issued) / 2;
        now.since(grant.issued) >= half.min(RENEWAL)
    }

    async fn renew(&self) -> Result<(), String> {
        let account = lock(&self.account).clone();
        let login = self.home.login_client(&account).map_err(|error| error.to_string())?;
        let credentials = login.renew(&account.keys.signing).await.map_err(|error| error.to_string())?;
        let renewed = account.network.verify_issued(&credentials.user).map_err(|error| error.to_string())?;
        if renewed.name != account.name {
            return Err("the login server renewed another account than this one".to_owned());
        }
        self.home.save_credentials(&credentials).map_err(|error| error.to_string())?;
        self.adopt_roster(&credentials.roster.clone());
        self.update_account(|account| account.renew_record(&credentials));
        let record = lock(&self.account).record.clone();
        self.home.save_record(&record).map_err(|error| error.to_string())?;
        let sessions = self.connected.borrow().clone();
        for session in sessions {
            session.register_again(&credentials).await;
        }
        self.is_record_new.store(true, Ordering::Relaxed);
        self.republish.notify_one();
        Ok(())
    }
}

impl Account {
    /// Takes renewed credentials over, into the user record too: each device keeps the certificates in it fresh.
    fn renew_record(&mut self, credentials: &Credentials) {
        self.record.certificate = credentials.user.clone();
        let renewed = |old: &Signed<_>| {
            let device = |signed: &Signed<ahoy_protocol::certificate::DeviceCertificate>| {
                signed.claims().ok().and_then(|certificate| certificate.statement.claims().ok()).map(|statement| statement.device)
            };
            let same = credentials.devices.iter().find(|new| device(new).is_some() && device(new) == device(old));
            same.unwrap_or(old).clone()
        };
        self.record.devices = List::first_of(self.record.devices.iter().map(renewed).collect::<Vec<_>>());
        self.credentials = credentials.clone();
    }
}
