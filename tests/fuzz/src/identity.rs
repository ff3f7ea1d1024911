//! Keys, seals, backups, tickets, passwords and chains: nothing forged or broken gets through, and nothing panics.

use crate::Target;
use crate::samples::{NOW, samples};
use ahoy_identity::opaque::{ExportKey, RegistrationClient, ServerSetup, SignInClient};
use ahoy_identity::{Network, aead, backup, public_from_spki, seal, spki};
use ahoy_protocol::Wire;
use ahoy_protocol::certificate::NetworkDocument;
use ahoy_protocol::invitation::Signal;
use ahoy_protocol::login::Credentials;
use std::sync::OnceLock;

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "identity_spki", run: raw_public_key, seeds: || vec![spki(&samples().device.public()).to_vec()] },
        Target { name: "identity_seal", run: sealed, seeds: sealed_seeds },
        Target { name: "identity_ticket", run: ticket, seeds: || vec![aead::seal(&TICKET_KEY, CONTEXT, b"state of a sign-in")] },
        Target { name: "identity_backup", run: sealed_backup, seeds: || vec![backup::seal(&export_key(), &samples().user).to_vec()] },
        Target { name: "identity_network_document", run: network_document, seeds: document_seeds },
        Target { name: "identity_credentials", run: credentials, seeds: credential_seeds },
        Target {
            name: "identity_signal",
            run: signal,
            seeds: || samples().signals().iter().filter_map(|signal| signal.encode().ok()).collect(),
        },
        Target { name: "identity_opaque_server", run: opaque_server, seeds: opaque_server_seeds },
        Target { name: "identity_opaque_client", run: opaque_client, seeds: opaque_client_seeds },
    ]
}

const CONTEXT: &[u8] = b"ahoy/fuzz/1";
const TICKET_KEY: [u8; 32] = [8; 32];

fn raw_public_key(bytes: &[u8]) {
    if let Some(public) = public_from_spki(bytes) {
        assert_eq!(spki(&public), bytes, "one key has one encoding");
    }
}

fn sealed(bytes: &[u8]) {
    if let Some(plain) = samples().seal.open(CONTEXT, bytes) {
        let _ = Signal::decode(&plain);
    }
}

fn sealed_seeds() -> Vec<Vec<u8>> {
    let seal_one = |signal: &Signal| seal(&samples().seal.public(), CONTEXT, &signal.encode().ok()?);
    samples().signals().iter().filter_map(seal_one).collect()
}

fn ticket(bytes: &[u8]) {
    if let Some(plain) = aead::open(&TICKET_KEY, CONTEXT, bytes) {
        // The tag has 128 bits: whatever opens was sealed by the seeds.
        assert_eq!(plain, b"state of a sign-in", "a forged ticket opened");
    }
}

fn export_key() -> ExportKey {
    ExportKey::from_bytes([7; 64])
}

fn sealed_backup(bytes: &[u8]) {
    if let Some(user) = backup::open(&export_key(), bytes) {
        assert_eq!(user.public(), samples().user.public(), "a forged backup opened");
    }
}

fn network_document(bytes: &[u8]) {
    let Ok(document) = NetworkDocument::decode(bytes) else { return };
    if let Ok(network) = Network::from_document(&document, &samples().id()) {
        assert_eq!(network.issuing, samples().network.issuing, "a forged document was believed");
    }
}

fn document_seeds() -> Vec<Vec<u8>> {
    samples().document.encode().into_iter().collect()
}

fn credentials(bytes: &[u8]) {
    let Ok(credentials) = Credentials::decode(bytes) else { return };
    let network = &samples().network;
    if let Ok(user) = network.verify_user(&credentials.user, NOW) {
        assert_eq!(user.user, samples().user.user_key(), "a forged certificate was believed");
    }
    if let Ok(device) = network.verify_device(&credentials.device, NOW) {
        assert_eq!(device.device(), samples().device.device_key(), "a forged device was believed");
    }
    let _ = network.verify_grant(&credentials.grant, &samples().device.device_key(), NOW);
    let _ = network.verify_roster(&credentials.roster, NOW);
}

fn credential_seeds() -> Vec<Vec<u8>> {
    (crate::wire::targets().iter().find(|target| target.name == "wire_credentials").expect("listed").seeds)()
}

fn signal(bytes: &[u8]) {
    let Ok(signal) = Signal::decode(bytes) else { return };
    let Ok(device) = samples().network.verify_device(&signal.device, NOW) else { return };
    if let Ok(body) = ahoy_identity::verify(&signal.body, device.device().as_bytes()) {
        assert_eq!(body.from, samples().device.device_key(), "a forged signal was believed");
    }
}

/// A login server's secrets, and the password file of one account.
fn server() -> &'static (ServerSetup, Vec<u8>) {
    static SERVER: OnceLock<(ServerSetup, Vec<u8>)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let setup = ServerSetup::generate();
        let (client, request) = RegistrationClient::start(b"password").expect("hashes");
        let response = setup.register(&samples().name(), &request).expect("well-formed");
        let (record, _) = client.finish(b"password", &samples().name(), &response).expect("well-formed");
        let file = ServerSetup::accept_record(&record).expect("well-formed");
        (setup, file)
    })
}

/// Everything that a client sends to the server, and the server's own state as it comes back.
fn opaque_server(bytes: &[u8]) {
    let (setup, file) = server();
    let name = samples().name();
    let _ = setup.register(&name, bytes);
    let _ = ServerSetup::accept_record(bytes);
    for file in [None, Some(&file[..])] {
        if let Ok((_, state)) = setup.start_sign_in(&name, file, bytes) {
            assert!(ServerSetup::finish_sign_in(&name, &state, bytes).is_err(), "a sign-in without a password");
        }
    }
    if let Some((state, finalization)) = bytes.split_at_checked(bytes.len().saturating_sub(64)) {
        let _ = ServerSetup::finish_sign_in(&name, state, finalization);
    }
}

fn opaque_server_seeds() -> Vec<Vec<u8>> {
    let (setup, file) = server();
    let (_, registration) = RegistrationClient::start(b"password").expect("hashes");
    let (_, sign_in) = SignInClient::start(b"password").expect("hashes");
    let (_, state) = setup.start_sign_in(&samples().name(), Some(file), &sign_in).expect("well-formed");
    vec![registration.to_vec(), sign_in.to_vec(), file.clone(), [&state[..], &[0; 64]].concat()]
}

/// Everything that the server sends to a client. What is well-formed costs a slow hash.
fn opaque_client(bytes: &[u8]) {
    let name = samples().name();
    let (registration, _) = RegistrationClient::start(b"password").expect("hashes");
    let _ = registration.finish(b"password", &name, bytes);
    let (sign_in, _) = SignInClient::start(b"password").expect("hashes");
    assert!(sign_in.finish(b"password", &name, bytes).is_err(), "an answer to another request was believed");
}

fn opaque_client_seeds() -> Vec<Vec<u8>> {
    let (setup, file) = server();
    let (_, registration) = RegistrationClient::start(b"password").expect("hashes");
    let (_, sign_in) = SignInClient::start(b"password").expect("hashes");
    let (challenge, _) = setup.start_sign_in(&samples().name(), Some(file), &sign_in).expect("well-formed");
    vec![setup.register(&samples().name(), &registration).expect("well-formed").to_vec(), challenge.to_vec()]
}
