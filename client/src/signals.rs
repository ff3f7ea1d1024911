//! Signals to devices that are not connected yet: signed by this device, sealed to the other, and checked when they come.

use crate::home::Account;
use ahoy_directory::{Gate, RecordError};
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::certificate::{DeviceCertificate, UserCertificate};
use ahoy_protocol::directory::SealedSignal;
use ahoy_protocol::invitation::{SIGNAL_AGE_MAX, Signal, SignalBody, SignalKind};
use ahoy_protocol::time::CLOCK_AHEAD_MAX;
use ahoy_protocol::{CallId, DeviceKey, SealKey, Signed, UnixMillis, Wire};
use thiserror::Error;

/// Separates what is sealed here from whatever else is ever sealed to the key.
const CONTEXT: &[u8] = b"ahoy/signal/1";

/// Why a signal is dropped. Nobody is told: a stranger learns nothing from silence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignalError {
    /// Not sealed to this device, or not a signal.
    #[error("it cannot be opened")]
    Sealed,
    /// A certificate or a signature does not hold.
    #[error("its sender cannot be trusted: {0}")]
    Sender(String),
    /// For another device.
    #[error("it is for another device")]
    Misdirected,
    /// Too old, or from the future.
    #[error("it is too old, or a clock is wrong")]
    Age,
    /// It names a caller or callee that it does not prove.
    #[error("it names somebody else than it proves")]
    Names,
}

/// A signal that has passed every check.
#[derive(Debug, Clone)]
pub struct Received {
    /// About this call.
    pub call: CallId,
    /// The sender's user.
    pub user: UserCertificate,
    /// The sending device.
    pub device: VerifiedDevice,
    /// What it says.
    pub kind: SignalKind,
}

/// Signs and seals a signal. `None` if it does not fit, or there is no sealing to the key.
#[must_use]
pub fn seal(account: &Account, now: UnixMillis, call: CallId, to: DeviceKey, to_seal: &SealKey, kind: SignalKind) -> Option<SealedSignal> {
    let body = SignalBody { call, from: account.keys.signing.device_key(), to, issued: now, kind };
    let signal = Signal {
        body: account.keys.signing.sign(&body).ok()?,
        user: account.credentials.user.clone(),
        device: account.credentials.device.clone(),
    };
    SealedSignal::new(ahoy_identity::seal(to_seal, CONTEXT, &signal.encode().ok()?)?)
}

/// Opens and checks a signal.
///
/// # Errors
/// See [`SignalError`].
pub fn open(account: &Account, gate: &Gate<'_>, now: UnixMillis, sealed: &[u8]) -> Result<Received, SignalError> {
    let plain = account.keys.seal.open(CONTEXT, sealed).ok_or(SignalError::Sealed)?;
    let signal = Signal::decode(&plain).map_err(|_| SignalError::Sealed)?;
    let (user, device) = check_pair(gate, now, &signal.user, &signal.device)?;
    let body = ahoy_identity::verify(&signal.body, device.device().as_bytes()).map_err(|error| SignalError::Sender(error.to_string()))?;
    if body.to != account.keys.signing.device_key() || body.from != device.device() {
        return Err(SignalError::Misdirected);
    }
    if body.issued > now.plus(CLOCK_AHEAD_MAX) || body.issued.plus(SIGNAL_AGE_MAX) < now {
        return Err(SignalError::Age);
    }
    if let SignalKind::Invite(invitation) = &body.kind
        && (invitation.caller != user.name || invitation.callee != account.name)
    {
        return Err(SignalError::Names);
    }
    Ok(Received { call: body.call, user, device, kind: body.kind })
}

/// User and device that belong together, count at `now`, and are not revoked.
///
/// # Errors
/// [`SignalError::Sender`].
pub fn check_pair(
    gate: &Gate<'_>,
    now: UnixMillis,
    user: &Signed<UserCertificate>,
    device: &Signed<DeviceCertificate>,
) -> Result<(UserCertificate, VerifiedDevice), SignalError> {
    let pair = gate.network.verify_pair(user, device, now).map_err(|error| SignalError::Sender(error.to_string()))?;
    let revoked = |serial| gate.roster.is_revoked(serial);
    if revoked(pair.0.serial) || revoked(pair.1.certificate.serial) {
        return Err(SignalError::Sender(RecordError::Revoked.to_string()));
    }
    Ok(pair)
}
