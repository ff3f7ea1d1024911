//! The overlay with more supernodes than a record has keepers, and with strangers at its door.

use super::*;
use crate::lookup::Directory;
use crate::shelf::{Refusal, Trust};
use ahoy_directory::PutError;
use ahoy_identity::{Network, SealSecret, network_id, random};
use ahoy_node::RosterView;
use ahoy_protocol::certificate::{DeviceCertificate, DeviceStatement};
use ahoy_protocol::ids::Salt;
use ahoy_protocol::record::{PresenceRecord, PresenceStatement, Record, Subject};
use ahoy_protocol::roster::{RosterNode, SaltPeriod};
use ahoy_protocol::time::{DAY, HOUR};
use ahoy_protocol::{List, Name, Text, UnixMillis};
use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use libp2p::{SwarmBuilder, noise, ping, tcp, yamux};
use std::time::SystemTime;

const PATIENCE: Duration = Duration::from_secs(30);

struct Member {
    key: SigningKey,
    address: SocketAddr,
    directory: Directory,
    task: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct World {
    issuing: SigningKey,
    members: Vec<Member>,
}

fn now() -> UnixMillis {
    SystemTime::now().into()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("still not: {what}"));
}

impl World {
    async fn new(count: usize) -> Self {
        let mut world = Self { issuing: SigningKey::generate(), members: Vec::new() };
        for _ in 0..count {
            let (key, shelf) = (SigningKey::generate(), Arc::new(Shelf::new()));
            let (overlay, address, task) = Overlay::start(&key, ([127, 0, 0, 1], 0).into(), shelf.clone()).await.expect("starts");
            world.members.push(Member { key, address, directory: Directory { shelf, overlay }, task });
        }
        world.apply_roster().await;
        world.connected().await;
        world
    }

    async fn apply_roster(&self) {
        let roster = self.roster();
        let signed = self.issuing.sign(&roster).expect("fits");
        let view = Arc::new(RosterView { roster, signed });
        let network = Network { id: network_id(&SigningKey::generate().root_key()), issuing: vec![self.issuing.issuing_key()] };
        let trust = Trust { network: Arc::new(network), view };
        for member in &self.members {
            member.directory.shelf.set_trust(now(), trust.clone());
            member.directory.overlay.set_roster(&trust.view.roster, &member.key.node_key()).await;
        }
    }

    fn roster(&self) -> Roster {
        let nodes = self.members.iter().map(|member| RosterNode {
            role: NodeRole::Supernode,
            node: member.key.node_key(),
            udp: List::default(),
            tcp: List::default(),
            overlay: List::first_of([member.address]),
        });
        Roster {
            version: 1,
            issued: now(),
            not_after: now().plus(DAY),
            salts: List::first_of([SaltPeriod { salt: Salt([7; 16]), since: now().minus(DAY) }]),
            nodes: List::first_of(nodes),
            revoked: List::default(),
        }
    }

    async fn connected(&self) {
        let all = self.members.len() - 1;
        eventually("all are connected", || self.members.iter().all(|member| member.directory.overlay.connected() == all)).await;
    }

    /// Where some device is.
    fn presence(&self, seq: u64) -> (Subject, Record) {
        self.presence_of(&SigningKey::generate(), seq)
    }

    fn presence_of(&self, device: &SigningKey, seq: u64) -> (Subject, Record) {
        let (user, now) = (SigningKey::generate(), now());
        let statement = DeviceStatement {
            name: Name::parse("bob").expect("a name"),
            epoch: 1,
            device: device.device_key(),
            seal: SealSecret::generate().public(),
            label: Text::fitting("laptop"),
            added: now,
        };
        let statement = user.sign(&statement).expect("fits");
        let certificate = DeviceCertificate { user: user.user_key(), statement, serial: 1, issued: now, not_after: now.plus(DAY) };
        let statement =
            PresenceStatement { device: device.device_key(), seq, homes: List::default(), issued: now, not_after: now.plus(HOUR) };
        let record = PresenceRecord {
            statement: device.sign(&statement).expect("fits"),
            certificate: self.issuing.sign(&certificate).expect("fits"),
        };
        (Subject::Device(device.device_key()), Record::Presence(record))
    }

    fn holders(&self, subject: &Subject) -> usize {
        self.members.iter().filter(|member| member.directory.shelf.get(now(), subject).is_some()).count()
    }
}

#[tokio::test]
async fn in_a_larger_network_a_record_goes_to_its_keepers_and_is_found_from_everywhere() {
    let world = World::new(14).await;
    let (subject, record) = world.presence(1);
    world.members[0].directory.publish(record).await.expect("is published");
    // On a busy machine the writer does not wait for the last of them.
    eventually("the keepers have it", || (KEEPERS.get() / 2 + 1..=KEEPERS.get() + 1).contains(&world.holders(&subject))).await;
    for member in &world.members {
        let found = member.directory.look_up(&subject).await;
        assert_eq!(found.records.first().expect("found").version().seq, 1);
        assert!(found.asked > 1);
    }
}

#[tokio::test]
async fn who_is_behind_is_brought_up_to_date_by_a_look_up() {
    let world = World::new(3).await;
    let (subject, record) = world.presence(1);
    let behind = &world.members[2].directory;
    let verified = behind.shelf.check(now(), record.clone()).expect("holds");
    world.members[0].directory.shelf.put(now(), verified).expect("stored");
    let found = world.members[1].directory.look_up(&subject).await;
    assert_eq!(found.records.len(), 1);
    assert!(world.holders(&subject) >= 2, "the one that asked keeps it too");
}

#[tokio::test]
async fn a_record_that_does_not_hold_is_refused_by_the_store_and_its_writer_sees_it() {
    let world = World::new(2).await;
    let (subject, record) = world.presence(1);
    let bytes = ahoy_protocol::Wire::encode(&record).expect("fits");
    let to = peer_id(&world.members[1].key.node_key()).expect("a key");
    let overlay = &world.members[0].directory.overlay;
    let key = world.members[0].directory.shelf.keys(now(), &subject)[0];
    let copy = |bytes: &[u8]| Copy { bytes: bytes.to_vec(), kept_until: now().plus(HOUR) };
    let mut forged = bytes.clone();
    forged[40] ^= 1;
    for (key, bytes) in [(key, &forged[..]), (key, b"nonsense"), (RecordKey(random()), &bytes[..])] {
        assert!(!overlay.put(to, key, copy(bytes)).await);
    }
    assert_eq!(world.holders(&subject), 0);
    assert!(overlay.put(to, key, copy(&bytes)).await);
    assert_eq!(world.holders(&subject), 1);
}

#[tokio::test]
async fn who_is_not_in_the_roster_is_turned_away() {
    let mut world = World::new(3).await;
    let mut stranger = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("builds")
        .with_behaviour(|_| ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(100))))
        .expect("builds")
        .build();
    stranger.dial(multiaddr(world.members[0].address)).expect("dials");
    let ended = async {
        loop {
            match stranger.select_next_some().await {
                SwarmEvent::Behaviour(ping::Event { result: Ok(_), .. }) => panic!("a stranger was answered"),
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("is turned away");
    // The same happens to a supernode that leaves the roster.
    let left = world.members.pop().expect("three");
    world.apply_roster().await;
    world.connected().await;
    eventually("who left has lost its connections", || left.directory.overlay.connected() == 0).await;
}

#[tokio::test]
async fn a_writer_learns_of_a_newer_record_that_only_others_have() {
    let world = World::new(4).await;
    let device = SigningKey::generate();
    let (_, newer) = world.presence_of(&device, 2);
    for member in &world.members[1..] {
        let verified = member.directory.shelf.check(now(), newer.clone()).expect("holds");
        member.directory.shelf.put(now(), verified).expect("stored");
    }
    let (_, older) = world.presence_of(&device, 1);
    let outcome = world.members[0].directory.publish(older).await;
    assert!(matches!(outcome, Err(crate::lookup::PublishError::Superseded(held)) if *held == newer));
}

#[tokio::test]
async fn a_thousand_records_are_handed_over_to_who_comes_back() {
    let mut world = World::new(2).await;
    let back = world.members.pop().expect("two");
    world.apply_roster().await;
    let first = &world.members[0].directory;
    eventually("the other has gone", || first.overlay.connected() == 0).await;
    for _ in 0..1000 {
        let verified = first.shelf.check(now(), world.presence(1).1).expect("holds");
        first.shelf.put(now(), verified).expect("stored");
    }
    world.members.push(back);
    world.apply_roster().await;
    eventually("all are handed over", || world.members[1].directory.shelf.records().len() == 1000).await;
}

#[tokio::test]
async fn an_overloaded_overlay_does_not_say_that_nobody_has_a_name() {
    let world = World::new(1).await;
    let ready = &world.members[0].directory;
    let (commands, _waiting) = mpsc::channel(1);
    let (reply, _) = oneshot::channel();
    commands.try_send(Command::Keepers { key: RecordKey(random()), reply }).expect("there is room for one");
    let overloaded = Directory { shelf: ready.shelf.clone(), overlay: Overlay { commands, connected: watch::channel(1).1 } };
    let (subject, record) = world.presence(1);
    assert!(overloaded.look_up(&subject).await.is_unasked());
    assert!(!ready.look_up(&subject).await.is_unasked(), "here nobody has it");
    ready.publish(record).await.expect("is published");
    assert_eq!(overloaded.look_up(&subject).await.records.len(), 1, "what is here is given all the same");
}

#[tokio::test]
async fn what_says_itself_that_it_is_older_is_refused_before_its_signatures_are_checked() {
    let world = World::new(1).await;
    let shelf = &world.members[0].directory.shelf;
    let device = SigningKey::generate();
    let (subject, newer) = world.presence_of(&device, 2);
    shelf.put(now(), shelf.check(now(), newer).expect("holds")).expect("stored");
    let (_, mut older) = world.presence_of(&device, 1);
    let Record::Presence(presence) = &mut older else { panic!("a presence record") };
    let (_, Record::Presence(other)) = world.presence(1) else { panic!("a presence record") };
    presence.certificate = other.certificate;
    let bytes = ahoy_protocol::Wire::encode(&older).expect("fits");
    let refusal = shelf.put_bytes(now(), &shelf.keys(now(), &subject)[0], &bytes, now().plus(HOUR)).expect_err("is older");
    assert!(matches!(refusal, Refusal::Put(PutError::Superseded(_))), "{refusal}");
}

#[tokio::test]
async fn a_look_up_and_a_write_end_when_others_are_gone() {
    let mut world = World::new(3).await;
    let (subject, record) = world.presence(1);
    world.members[0].directory.publish(record).await.expect("is published");
    world.members.truncate(1);
    let alone = &world.members[0].directory;
    assert_eq!(alone.look_up(&subject).await.records.len(), 1);
    let (other, record) = world.presence(1);
    assert!(alone.publish(record).await.is_ok());
    assert_eq!(alone.look_up(&other).await.records.len(), 1);
    assert!(alone.look_up(&world.presence(1).0).await.records.is_empty());
}
