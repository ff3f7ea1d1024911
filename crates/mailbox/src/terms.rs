//! Terms of a mailbox that are what they claim to be.

use ahoy_identity::{ChainError, Network, VerifyError, verify};
use ahoy_protocol::certificate::DeviceCertificate;
use ahoy_protocol::ids::{DeviceKey, UserKey};
use ahoy_protocol::mail::MailboxTerms;
use ahoy_protocol::time::CLOCK_AHEAD_MAX;
use ahoy_protocol::{Signed, UnixMillis};
use thiserror::Error;

/// Why terms are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TermsError {
    /// The device is none of this network.
    #[error("the device certificate was refused: {0}")]
    Certificate(ChainError),
    /// The device did not sign them.
    #[error("the mailbox terms do not hold: {0}")]
    Signature(VerifyError),
    /// They are of another device or user than the certificate.
    #[error("the mailbox terms are another device's")]
    Contradiction,
    /// Nobody could change them for a long time.
    #[error("the version of the mailbox terms is ahead of the clock")]
    AheadOfClock,
}

/// Terms that a device signed, with the certificate of that device.
#[derive(Debug, Clone)]
pub struct VerifiedTerms {
    pub(crate) terms: MailboxTerms,
    pub(crate) signed: Signed<MailboxTerms>,
    pub(crate) certificate: Signed<DeviceCertificate>,
}

impl VerifiedTerms {
    /// Terms that `certificate` shows to be a device's own.
    ///
    /// # Errors
    /// See [`TermsError`].
    pub fn check(
        network: &Network,
        now: UnixMillis,
        signed: Signed<MailboxTerms>,
        certificate: Signed<DeviceCertificate>,
    ) -> Result<Self, TermsError> {
        let device = network.verify_device(&certificate, now).map_err(TermsError::Certificate)?;
        let terms = verify(&signed, device.device().as_bytes()).map_err(TermsError::Signature)?;
        if terms.device != device.device() || terms.user != device.user() {
            return Err(TermsError::Contradiction);
        }
        if terms.version > now.plus(CLOCK_AHEAD_MAX).0 {
            return Err(TermsError::AheadOfClock);
        }
        Ok(Self { terms, signed, certificate })
    }

    /// What they say.
    #[must_use]
    pub fn terms(&self) -> &MailboxTerms {
        &self.terms
    }

    /// The device that signed them.
    #[must_use]
    pub fn device(&self) -> DeviceKey {
        self.terms.device
    }

    /// Its user.
    #[must_use]
    pub fn user(&self) -> UserKey {
        self.terms.user
    }
}

/// Whether two terms say the same, whichever of the user's devices signed them.
pub(crate) fn agree(one: &MailboxTerms, other: &MailboxTerms) -> bool {
    MailboxTerms { device: other.device, ..one.clone() } == *other
}
