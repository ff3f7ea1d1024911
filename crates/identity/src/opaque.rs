//! Passwords that never leave the client: OPAQUE (RFC 9807) over ristretto255 with triple Diffie-Hellman.
//!
//! The slow hash runs on the client, so a rush of sign-ins costs the login server curve operations only.

use ahoy_protocol::Name;
use ahoy_protocol::login::OpaqueBytes;
use argon2::{Algorithm, Argon2, Params, Version};
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters, CredentialFinalization,
    CredentialRequest, CredentialResponse, Identifiers, RegistrationRequest, RegistrationResponse, RegistrationUpload, ServerLogin,
    ServerLoginParameters, ServerRegistration, TripleDh,
};
use rand_core::OsRng;
use sha2::Sha512;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Memory of the slow hash, in KiB.
const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
/// Passes of the slow hash over its memory.
const ARGON2_PASSES: u32 = 3;
/// Lanes of the slow hash.
const ARGON2_LANES: u32 = 1;

/// The cipher suite of Ahoy's OPAQUE.
pub struct Suite;

impl CipherSuite for Suite {
    type OprfCs = opaque_ke::Ristretto255;
    type KeyExchange = TripleDh<opaque_ke::Ristretto255, Sha512>;
    type Ksf = Argon2<'static>;
}

/// Why a step of OPAQUE failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpaqueError {
    /// The password is wrong, or the name unknown: by design the client cannot tell.
    #[error("wrong name or password")]
    WrongPassword,
    /// A message is malformed, or does not belong to this run.
    #[error("malformed password message")]
    Message,
}

/// What only somebody with the password can compute: the key of the user key's backup.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ExportKey([u8; 64]);

impl ExportKey {
    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl std::fmt::Debug for ExportKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExportKey(…)")
    }
}

fn slow_hash() -> Argon2<'static> {
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, None).expect("the parameters are in Argon2's ranges");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn identifiers(name: &Name) -> Identifiers<'_> {
    Identifiers { client: Some(name.as_str().as_bytes()), server: None }
}

fn message(bytes: &[u8]) -> OpaqueBytes {
    OpaqueBytes::new(bytes.to_vec()).expect("every message of the suite is below the limit")
}

fn export_key(bytes: &[u8]) -> ExportKey {
    ExportKey(bytes.try_into().expect("the suite's hash has 64 bytes"))
}

/// A client in the middle of a registration.
pub struct RegistrationClient(ClientRegistration<Suite>);

impl RegistrationClient {
    /// Begins: the first message.
    ///
    /// # Errors
    /// If the password cannot be hashed to the curve, which no password is known for.
    pub fn start(password: &[u8]) -> Result<(Self, OpaqueBytes), OpaqueError> {
        let start = ClientRegistration::<Suite>::start(&mut OsRng, password).map_err(|_| OpaqueError::Message)?;
        Ok((Self(start.state), message(&start.message.serialize())))
    }

    /// Ends: what the server keeps, and the key of the backup. Takes the time of the slow hash.
    ///
    /// # Errors
    /// [`OpaqueError::Message`] if the response is not one.
    pub fn finish(self, password: &[u8], name: &Name, response: &[u8]) -> Result<(OpaqueBytes, ExportKey), OpaqueError> {
        let response = RegistrationResponse::deserialize(response).map_err(|_| OpaqueError::Message)?;
        let hash = slow_hash();
        let parameters = ClientRegistrationFinishParameters::new(identifiers(name), Some(&hash));
        let finish = self.0.finish(&mut OsRng, password, response, parameters).map_err(|_| OpaqueError::Message)?;
        Ok((message(&finish.message.serialize()), export_key(&finish.export_key)))
    }
}

/// A client in the middle of a sign-in.
pub struct SignInClient(ClientLogin<Suite>);

impl SignInClient {
    /// Begins: the first message (KE1).
    ///
    /// # Errors
    /// If the password cannot be hashed to the curve, which no password is known for.
    pub fn start(password: &[u8]) -> Result<(Self, OpaqueBytes), OpaqueError> {
        let start = ClientLogin::<Suite>::start(&mut OsRng, password).map_err(|_| OpaqueError::Message)?;
        Ok((Self(start.state), message(&start.message.serialize())))
    }

    /// Ends: the last message (KE3), and the key of the backup. Takes the time of the slow hash.
    ///
    /// # Errors
    /// [`OpaqueError::WrongPassword`], also for a name that does not exist.
    pub fn finish(self, password: &[u8], name: &Name, response: &[u8]) -> Result<(OpaqueBytes, ExportKey), OpaqueError> {
        let response = CredentialResponse::deserialize(response).map_err(|_| OpaqueError::Message)?;
        let hash = slow_hash();
        let parameters = ClientLoginFinishParameters::new(Some(CONTEXT), identifiers(name), Some(&hash));
        let finish = self.0.finish(&mut OsRng, password, response, parameters).map_err(|_| OpaqueError::WrongPassword)?;
        Ok((message(&finish.message.serialize()), export_key(&finish.export_key)))
    }
}

/// Application context of the key exchange (RFC 9807, section 6.4).
const CONTEXT: &[u8] = b"ahoy/opaque/1";

/// The server's secrets: OPRF seed and key pair. Without them a password file is worth nothing to a guesser.
#[derive(Clone)]
pub struct ServerSetup(opaque_ke::ServerSetup<Suite>);

impl ServerSetup {
    /// New secrets.
    #[must_use]
    pub fn generate() -> Self {
        Self(opaque_ke::ServerSetup::new(&mut OsRng))
    }

    /// The secrets as bytes, to be stored apart from the password files.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize().to_vec())
    }

    /// The secrets that `bytes` stand for.
    ///
    /// # Errors
    /// [`OpaqueError::Message`] if they stand for none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OpaqueError> {
        opaque_ke::ServerSetup::deserialize(bytes).map(Self).map_err(|_| OpaqueError::Message)
    }

    /// Answers the first message of a registration.
    ///
    /// # Errors
    /// [`OpaqueError::Message`].
    pub fn register(&self, name: &Name, request: &[u8]) -> Result<OpaqueBytes, OpaqueError> {
        let request = RegistrationRequest::deserialize(request).map_err(|_| OpaqueError::Message)?;
        let start = ServerRegistration::start(&self.0, request, name.as_str().as_bytes()).map_err(|_| OpaqueError::Message)?;
        Ok(message(&start.message.serialize()))
    }

    /// The password file in the last message of a registration, to be stored.
    ///
    /// # Errors
    /// [`OpaqueError::Message`].
    pub fn accept_record(record: &[u8]) -> Result<Vec<u8>, OpaqueError> {
        let upload = RegistrationUpload::<Suite>::deserialize(record).map_err(|_| OpaqueError::Message)?;
        Ok(ServerRegistration::finish(upload).serialize().to_vec())
    }

    /// Answers the first message of a sign-in with the second (KE2), and gives the state that the last one needs. Without a
    /// password file the answer is one that no password opens, and that looks like any other.
    ///
    /// # Errors
    /// [`OpaqueError::Message`].
    pub fn start_sign_in(&self, name: &Name, password_file: Option<&[u8]>, request: &[u8]) -> Result<(OpaqueBytes, Vec<u8>), OpaqueError> {
        let file = password_file.map(ServerRegistration::<Suite>::deserialize).transpose().map_err(|_| OpaqueError::Message)?;
        let request = CredentialRequest::deserialize(request).map_err(|_| OpaqueError::Message)?;
        let start = ServerLogin::start(&mut OsRng, &self.0, file, request, name.as_str().as_bytes(), parameters(name))
            .map_err(|_| OpaqueError::Message)?;
        Ok((message(&start.message.serialize()), start.state.serialize().to_vec()))
    }

    /// Checks the last message of a sign-in (KE3): `Ok` proves that the client knew the password.
    ///
    /// # Errors
    /// [`OpaqueError::WrongPassword`], or [`OpaqueError::Message`] for what is no message.
    pub fn finish_sign_in(name: &Name, state: &[u8], finalization: &[u8]) -> Result<(), OpaqueError> {
        let state = ServerLogin::<Suite>::deserialize(state).map_err(|_| OpaqueError::Message)?;
        let finalization = CredentialFinalization::deserialize(finalization).map_err(|_| OpaqueError::Message)?;
        state.finish(finalization, parameters(name)).map(|_| ()).map_err(|_| OpaqueError::WrongPassword)
    }
}

fn parameters(name: &Name) -> ServerLoginParameters<'_, '_> {
    ServerLoginParameters { context: Some(CONTEXT), identifiers: identifiers(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::parse("bob").expect("a name")
    }

    fn register(setup: &ServerSetup, password: &[u8]) -> (Vec<u8>, ExportKey) {
        let (client, request) = RegistrationClient::start(password).expect("starts");
        let response = setup.register(&name(), &request).expect("answers");
        let (record, export) = client.finish(password, &name(), &response).expect("finishes");
        (ServerSetup::accept_record(&record).expect("a record"), export)
    }

    fn sign_in(setup: &ServerSetup, file: Option<&[u8]>, password: &[u8]) -> Result<ExportKey, OpaqueError> {
        let (client, request) = SignInClient::start(password)?;
        let (response, state) = setup.start_sign_in(&name(), file, &request)?;
        let (last, export) = client.finish(password, &name(), &response)?;
        ServerSetup::finish_sign_in(&name(), &state, &last)?;
        Ok(export)
    }

    #[test]
    fn the_right_password_gives_the_key_of_the_backup() {
        let setup = ServerSetup::generate();
        let (file, export) = register(&setup, b"correct-lantern");
        let restarted = ServerSetup::from_bytes(&setup.to_bytes()).expect("reads back");
        assert_eq!(sign_in(&restarted, Some(&file), b"correct-lantern").expect("right").as_bytes(), export.as_bytes());
    }

    #[test]
    fn a_wrong_password_and_an_unknown_name_fail_alike() {
        let setup = ServerSetup::generate();
        let (file, _) = register(&setup, b"correct-lantern");
        assert_eq!(sign_in(&setup, Some(&file), b"wrong").err(), Some(OpaqueError::WrongPassword));
        assert_eq!(sign_in(&setup, None, b"correct-lantern").err(), Some(OpaqueError::WrongPassword));
    }

    #[test]
    fn a_password_file_is_worth_nothing_under_other_secrets() {
        let (file, _) = register(&ServerSetup::generate(), b"correct-lantern");
        assert!(sign_in(&ServerSetup::generate(), Some(&file), b"correct-lantern").is_err());
    }

    #[test]
    fn malformed_messages_are_refused() {
        let setup = ServerSetup::generate();
        for len in [0, 1, 31, 32, 33, 64, 96, 200, 512] {
            let junk = vec![0xff; len];
            assert!(setup.register(&name(), &junk).is_err());
            assert!(setup.start_sign_in(&name(), None, &junk).is_err());
            assert!(ServerSetup::accept_record(&junk).is_err());
            assert!(ServerSetup::finish_sign_in(&name(), &vec![0; len], &junk).is_err());
        }
    }
}
