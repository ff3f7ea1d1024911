//! Chains of certificates: from the hash in the network link to the device that speaks.

use crate::keys::{VerifyError, verify};
use crate::network_id;
use ahoy_protocol::certificate::{DeviceCertificate, DeviceStatement, NetworkDocument, NodeCertificate, RelayGrant, UserCertificate};
use ahoy_protocol::ids::IssuingKey;
use ahoy_protocol::roster::Roster;
use ahoy_protocol::time::CLOCK_AHEAD_MAX;
use ahoy_protocol::{DeviceKey, Name, NetworkId, SealKey, Signable, Signed, UnixMillis, UserKey};
use thiserror::Error;

/// What the signatures of one network are checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Hash of the root key, as in the network link.
    pub id: NetworkId,
    /// Keys that the root key named.
    pub issuing: Vec<IssuingKey>,
}

/// Why a certificate, grant or roster does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChainError {
    /// The root key is not the one in the network link.
    #[error("the root key is not the one that the network link names")]
    OtherNetwork,
    /// No key of the network signed it.
    #[error("no key of this network signed it")]
    Issuer,
    /// The user key did not sign the device.
    #[error("the user's key did not sign this device")]
    Device,
    /// What it says of itself does not fit together.
    #[error("its parts contradict each other")]
    Contradiction,
    /// It was made in the future, by this clock.
    #[error("it is not valid yet; is a clock wrong?")]
    NotYet,
    /// It has lapsed.
    #[error("it has lapsed")]
    Lapsed,
}

/// A device certificate of which both signatures hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDevice {
    /// What the login server signed.
    pub certificate: DeviceCertificate,
    /// What the user key signed.
    pub statement: DeviceStatement,
}

impl VerifiedDevice {
    /// The device's key.
    #[must_use]
    pub fn device(&self) -> DeviceKey {
        self.statement.device
    }

    /// The user's key.
    #[must_use]
    pub fn user(&self) -> UserKey {
        self.certificate.user
    }

    /// The user's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.statement.name
    }

    /// The key to which one seals for the device.
    #[must_use]
    pub fn seal(&self) -> SealKey {
        self.statement.seal
    }
}

impl Network {
    /// The network that a document describes, if it is the one expected.
    ///
    /// # Errors
    /// [`ChainError::OtherNetwork`] or [`ChainError::Issuer`].
    pub fn from_document(document: &NetworkDocument, expected: &NetworkId) -> Result<Self, ChainError> {
        if network_id(&document.root) != *expected {
            return Err(ChainError::OtherNetwork);
        }
        let statement = verify(&document.statement, document.root.as_bytes()).map_err(|_| ChainError::Issuer)?;
        Ok(Self { id: *expected, issuing: statement.issuing.into_vec() })
    }

    /// The value that one of the issuing keys signed. Periods of validity are not looked at.
    ///
    /// # Errors
    /// [`ChainError::Issuer`].
    pub fn verify_issued<T: Signable>(&self, signed: &Signed<T>) -> Result<T, ChainError> {
        self.issuing.iter().find_map(|key| verify(signed, key.as_bytes()).ok()).ok_or(ChainError::Issuer)
    }

    /// A user certificate that counts at `now`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify_user(&self, signed: &Signed<UserCertificate>, now: UnixMillis) -> Result<UserCertificate, ChainError> {
        let certificate = self.verify_issued(signed)?;
        check_period(certificate.issued, certificate.not_after, now)?;
        Ok(certificate)
    }

    /// A device certificate that counts at `now`: signed by the login server, and by the user key that it names.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify_device(&self, signed: &Signed<DeviceCertificate>, now: UnixMillis) -> Result<VerifiedDevice, ChainError> {
        let certificate = self.verify_issued(signed)?;
        check_period(certificate.issued, certificate.not_after, now)?;
        let statement = verify(&certificate.statement, certificate.user.as_bytes()).map_err(|error| match error {
            VerifyError::Signature => ChainError::Device,
            VerifyError::Body(_) => ChainError::Contradiction,
        })?;
        Ok(VerifiedDevice { certificate, statement })
    }

    /// User and device certificate that count at `now` and belong together.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify_pair(
        &self,
        user: &Signed<UserCertificate>,
        device: &Signed<DeviceCertificate>,
        now: UnixMillis,
    ) -> Result<(UserCertificate, VerifiedDevice), ChainError> {
        let user = self.verify_user(user, now)?;
        let device = self.verify_device(device, now)?;
        let one = user.user == device.user() && user.name == *device.name() && user.epoch == device.statement.epoch;
        if one { Ok((user, device)) } else { Err(ChainError::Contradiction) }
    }

    /// A node certificate that counts at `now`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify_node(&self, signed: &Signed<NodeCertificate>, now: UnixMillis) -> Result<NodeCertificate, ChainError> {
        let certificate = self.verify_issued(signed)?;
        check_period(certificate.issued, certificate.not_after, now)?;
        Ok(certificate)
    }

    /// A relay grant of this device that counts at `now`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify_grant(&self, signed: &Signed<RelayGrant>, device: &DeviceKey, now: UnixMillis) -> Result<RelayGrant, ChainError> {
        let grant = self.verify_issued(signed)?;
        check_period(grant.issued, grant.not_after, now)?;
        if grant.device == *device { Ok(grant) } else { Err(ChainError::Contradiction) }
    }

    /// A roster that counts at `now`. That its version does not fall is for the caller to see to.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify_roster(&self, signed: &Signed<Roster>, now: UnixMillis) -> Result<Roster, ChainError> {
        let roster = self.verify_issued(signed)?;
        check_period(roster.issued, roster.not_after, now)?;
        Ok(roster)
    }
}

fn check_period(issued: UnixMillis, not_after: UnixMillis, now: UnixMillis) -> Result<(), ChainError> {
    if issued > now.plus(CLOCK_AHEAD_MAX) {
        return Err(ChainError::NotYet);
    }
    if not_after <= now {
        return Err(ChainError::Lapsed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SealSecret, SigningKey};
    use ahoy_protocol::certificate::NetworkStatement;
    use ahoy_protocol::time::HOUR;
    use ahoy_protocol::{List, Text};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    struct Authority {
        root: SigningKey,
        issuing: SigningKey,
    }

    impl Authority {
        fn new() -> Self {
            Self { root: SigningKey::generate(), issuing: SigningKey::generate() }
        }

        fn document(&self) -> NetworkDocument {
            let statement = NetworkStatement { issuing: List::first_of([self.issuing.issuing_key()]), issued: NOW };
            NetworkDocument { root: self.root.root_key(), statement: self.root.sign(&statement).expect("fits") }
        }

        fn network(&self) -> Network {
            Network::from_document(&self.document(), &network_id(&self.root.root_key())).expect("is ours")
        }

        fn user(&self, name: &str, user: &SigningKey) -> Signed<UserCertificate> {
            let name = Name::parse(name).expect("a name");
            let certificate = UserCertificate { name, user: user.user_key(), epoch: 1, serial: 1, issued: NOW, not_after: NOW.plus(HOUR) };
            self.issuing.sign(&certificate).expect("fits")
        }

        fn device(&self, name: &str, user: &SigningKey, signer: &SigningKey) -> Signed<DeviceCertificate> {
            let statement = DeviceStatement {
                name: Name::parse(name).expect("a name"),
                epoch: 1,
                device: SigningKey::generate().device_key(),
                seal: SealSecret::generate().public(),
                label: Text::fitting("laptop"),
                added: NOW,
            };
            let statement = signer.sign(&statement).expect("fits");
            let certificate = DeviceCertificate { user: user.user_key(), statement, serial: 2, issued: NOW, not_after: NOW.plus(HOUR) };
            self.issuing.sign(&certificate).expect("fits")
        }
    }

    #[test]
    fn a_chain_holds_from_link_to_device() {
        let (authority, bob) = (Authority::new(), SigningKey::generate());
        let network = authority.network();
        let pair = network.verify_pair(&authority.user("bob", &bob), &authority.device("bob", &bob, &bob), NOW);
        assert_eq!(pair.expect("holds").1.user(), bob.user_key());
    }

    #[test]
    fn another_network_is_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let expected = network_id(&ours.root.root_key());
        assert_eq!(Network::from_document(&theirs.document(), &expected), Err(ChainError::OtherNetwork));
        let mut mixed = theirs.document();
        mixed.root = ours.root.root_key();
        assert_eq!(Network::from_document(&mixed, &expected), Err(ChainError::Issuer));
        let bob = SigningKey::generate();
        assert_eq!(ours.network().verify_user(&theirs.user("bob", &bob), NOW), Err(ChainError::Issuer));
    }

    #[test]
    fn a_device_that_the_user_did_not_sign_is_refused() {
        let (authority, bob, eve) = (Authority::new(), SigningKey::generate(), SigningKey::generate());
        let forged = authority.device("bob", &bob, &eve);
        assert_eq!(authority.network().verify_device(&forged, NOW), Err(ChainError::Device));
    }

    #[test]
    fn certificates_of_two_users_do_not_make_a_pair() {
        let (authority, bob, eve) = (Authority::new(), SigningKey::generate(), SigningKey::generate());
        let network = authority.network();
        let user = authority.user("bob", &bob);
        assert_eq!(network.verify_pair(&user, &authority.device("bob", &eve, &eve), NOW).err(), Some(ChainError::Contradiction));
        assert_eq!(network.verify_pair(&user, &authority.device("eve", &bob, &bob), NOW).err(), Some(ChainError::Contradiction));
    }

    #[test]
    fn periods_of_validity_are_kept_to_five_minutes() {
        let (authority, bob) = (Authority::new(), SigningKey::generate());
        let (network, user) = (authority.network(), authority.user("bob", &bob));
        assert_eq!(network.verify_user(&user, NOW.plus(HOUR)), Err(ChainError::Lapsed));
        assert!(network.verify_user(&user, NOW.minus(CLOCK_AHEAD_MAX)).is_ok());
        assert_eq!(network.verify_user(&user, NOW.minus(HOUR)), Err(ChainError::NotYet));
    }
}
