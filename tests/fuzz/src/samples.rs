//! A small network with everything in it, always the same: what the seeds are made of.

use ahoy_identity::{Network, SealSecret, SigningKey, network_id};
use ahoy_protocol::certificate::{
    DeviceCertificate, DeviceStatement, NetworkDocument, NetworkStatement, NodeCertificate, NodeRole, RelayGrant, UserCertificate,
};
use ahoy_protocol::ids::{CallId, CallSecret, Salt};
use ahoy_protocol::invitation::{Invitation, RelayOffer, Signal, SignalBody, SignalKind};
use ahoy_protocol::peer::{Candidate, CandidateKind, EndReason, LegNews};
use ahoy_protocol::record::{PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, USER_STATEMENT_LIFE, UserRecord, UserStatement};
use ahoy_protocol::roster::{ROSTER_LIFE, Roster, RosterNode, SaltPeriod};
use ahoy_protocol::time::DAY;
use ahoy_protocol::{List, Name, NetworkId, Signable, Signed, Text, UnixMillis};
use std::sync::OnceLock;

/// The time at which the samples are valid.
pub const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// One network, one user with one device, and a caller.
#[derive(Debug)]
pub struct Samples {
    /// What signatures are checked against.
    pub network: Network,
    /// Its document.
    pub document: NetworkDocument,
    /// The user key.
    pub user: SigningKey,
    /// The device's key.
    pub device: SigningKey,
    /// A node's key.
    pub node: SigningKey,
    /// The device's secret for what is sealed to it.
    pub seal: SealSecret,
    issuing: SigningKey,
}

/// The samples.
#[must_use]
pub fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let [root, issuing, user, device, node] = [1, 2, 3, 4, 5].map(|seed| SigningKey::from_seed([seed; 32]));
        let statement = NetworkStatement { issuing: List::first_of([issuing.issuing_key()]), issued: NOW };
        let document = NetworkDocument { root: root.root_key(), statement: sign(&root, &statement) };
        let network = Network::from_document(&document, &network_id(&root.root_key())).expect("the document is valid");
        Samples { network, document, user, device, node, seal: SealSecret::from_bytes([6; 32]), issuing }
    })
}

fn sign<T: Signable>(key: &SigningKey, value: &T) -> Signed<T> {
    key.sign(value).expect("samples fit their limits")
}

impl Samples {
    /// The network's id.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.network.id
    }

    /// The user's name.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::parse("bob").expect("a name")
    }

    /// The user's certificate.
    #[must_use]
    pub fn user_certificate(&self) -> Signed<UserCertificate> {
        let user = self.user.user_key();
        let certificate = UserCertificate { name: self.name(), user, epoch: 1, serial: 7, issued: NOW, not_after: NOW.plus(30 * DAY) };
        sign(&self.issuing, &certificate)
    }

    /// What the user says of the device.
    #[must_use]
    pub fn device_statement(&self) -> Signed<DeviceStatement> {
        let (device, seal) = (self.device.device_key(), self.seal.public());
        let statement = DeviceStatement { name: self.name(), epoch: 1, device, seal, label: Text::fitting("telephone"), added: NOW };
        sign(&self.user, &statement)
    }

    /// The device's certificate.
    #[must_use]
    pub fn device_certificate(&self) -> Signed<DeviceCertificate> {
        let (user, statement) = (self.user.user_key(), self.device_statement());
        let certificate = DeviceCertificate { user, statement, serial: 8, issued: NOW, not_after: NOW.plus(30 * DAY) };
        sign(&self.issuing, &certificate)
    }

    /// A node's certificate.
    #[must_use]
    pub fn node_certificate(&self) -> Signed<NodeCertificate> {
        let node = self.node.node_key();
        let certificate = NodeCertificate { role: NodeRole::Relay, node, serial: 9, issued: NOW, not_after: NOW.plus(DAY) };
        sign(&self.issuing, &certificate)
    }

    /// The device's grant.
    #[must_use]
    pub fn grant(&self) -> Signed<RelayGrant> {
        let grant = RelayGrant { device: self.device.device_key(), kbit_per_s: 160, issued: NOW, not_after: NOW.plus(DAY) };
        sign(&self.issuing, &grant)
    }

    /// The roster as it was signed.
    #[must_use]
    pub fn roster(&self) -> Signed<Roster> {
        sign(&self.issuing, &self.roster_value())
    }

    /// The roster.
    #[must_use]
    pub fn roster_value(&self) -> Roster {
        let address = |text: &str| List::first_of([text.parse().expect("an address")]);
        let node = |role| RosterNode {
            role,
            node: self.node.node_key(),
            udp: address("192.0.2.1:4433"),
            tcp: address("[2001:db8::1]:443"),
            overlay: List::default(),
        };
        Roster {
            version: 3,
            issued: NOW,
            not_after: NOW.plus(ROSTER_LIFE),
            salts: List::first_of([
                SaltPeriod { salt: Salt([1; 16]), since: NOW.minus(DAY) },
                SaltPeriod { salt: Salt([2; 16]), since: NOW },
            ]),
            nodes: List::first_of([node(NodeRole::Supernode), node(NodeRole::Relay)]),
            revoked: List::first_of([99]),
        }
    }

    /// The user record.
    #[must_use]
    pub fn user_record(&self) -> UserRecord {
        let statement = UserStatement {
            name: self.name(),
            epoch: 1,
            seq: NOW.0,
            devices: List::first_of([self.device.device_key()]),
            mailboxes: List::default(),
            issued: NOW,
            not_after: NOW.plus(USER_STATEMENT_LIFE),
        };
        UserRecord {
            certificate: self.user_certificate(),
            statement: sign(&self.user, &statement),
            devices: List::first_of([self.device_certificate()]),
        }
    }

    /// The presence record.
    #[must_use]
    pub fn presence_record(&self) -> PresenceRecord {
        let statement = PresenceStatement {
            device: self.device.device_key(),
            seq: NOW.0,
            homes: List::first_of([self.node.node_key()]),
            issued: NOW,
            not_after: NOW.plus(PRESENCE_LIFE),
        };
        PresenceRecord { statement: sign(&self.device, &statement), certificate: self.device_certificate() }
    }

    /// Both records.
    #[must_use]
    pub fn records(&self) -> [Record; 2] {
        [Record::User(self.user_record()), Record::Presence(self.presence_record())]
    }

    /// Signals of every kind.
    #[must_use]
    pub fn signals(&self) -> Vec<Signal> {
        let invitation = Invitation {
            caller: self.name(),
            callee: Name::parse("alice").expect("a name"),
            secret: CallSecret([5; 32]),
            homes: List::first_of([self.node.node_key()]),
            relays: List::first_of([RelayOffer { node: self.node.node_key(), rtt_ms: 20 }]),
            candidates: List::first_of(self.candidates()),
        };
        let kinds = [
            SignalKind::Invite(invitation),
            SignalKind::Ringing { relay: Some(self.node.node_key()) },
            SignalKind::Reject(EndReason::Busy),
            SignalKind::Cancel(EndReason::Cancelled),
            SignalKind::Leg(LegNews::Join { leg: 1, relay: self.node.node_key() }),
        ];
        kinds.into_iter().map(|kind| self.signal(kind)).collect()
    }

    fn signal(&self, kind: SignalKind) -> Signal {
        let device = self.device.device_key();
        let body = SignalBody { call: CallId([3; 16]), from: device, to: device, issued: NOW, kind };
        Signal { body: sign(&self.device, &body), user: self.user_certificate(), device: self.device_certificate() }
    }

    /// Candidate addresses of both families.
    #[must_use]
    pub fn candidates(&self) -> [Candidate; 2] {
        let candidate = |text: &str, kind| Candidate { address: text.parse().expect("an address"), kind };
        [candidate("192.0.2.9:5000", CandidateKind::ServerReflexive), candidate("[2001:db8::9]:5000", CandidateKind::Host)]
    }

    /// A value signed by the device, for types of which there is no sample here.
    #[must_use]
    pub fn signed_by_device<T: Signable>(&self, value: &T) -> Signed<T> {
        sign(&self.device, value)
    }
}
