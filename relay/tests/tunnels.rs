//! Legs of devices whose network blocks UDP: the relay takes them through tunnels over TCP, and joins them with any other leg.

mod harness;

use ahoy_identity::{SigningKey, random};
use ahoy_protocol::CallId;
use ahoy_protocol::datagram::Side;
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::relay::{ALPN, Join, LegEvent};
use ahoy_transport::{ClientEndpoint, Connection, NodePlace, Peer, PeerSetup, RecvStream, SendStream, receive, send};
use harness::{Lab, PATIENCE};
use tokio::time::timeout;

/// A device with an endpoint as a real client has it.
struct Device {
    key: SigningKey,
    endpoint: ClientEndpoint,
}

/// Its leg, for as long as this is kept.
struct Joined {
    peer: Peer,
    _connection: Connection,
    _stream: (SendStream, RecvStream),
}

impl Device {
    fn new() -> Self {
        let key = SigningKey::generate();
        let endpoint = ClientEndpoint::bind(None, &key).expect("a free port");
        endpoint.allow_loopback(true);
        Self { key, endpoint }
    }

    /// Joins `other` in `call` through the relay of `lab`, which it reaches at `place`.
    async fn join(&self, lab: &Lab, place: &NodePlace, call: CallId, other: &Self, side: Side) -> Joined {
        let connection = self.endpoint.connect_node(place, &lab.key.node_key(), ALPN).await.expect("the relay answers");
        assert_eq!(connection.is_tunnelled(), place.udp.is_empty());
        let (me, peer) = (self.key.device_key(), other.key.device_key());
        let (mut sending, mut receiving) = connection.open_bi().await.expect("a stream");
        send(&mut sending, &Join { call, peer, grant: lab.authority.grant(me) }).await.expect("the relay reads");
        let answer = timeout(PATIENCE, receive(&mut receiving)).await.expect("in time").expect("an answer").expect("an answer");
        let LegEvent::Joined { channel, key, .. } = answer else { panic!("not joined: {answer:?}") };
        let setup = PeerSetup { call, secret: CallSecret([9; 32]), me, peer, side, birthday: false };
        let peer = self.endpoint.peer(setup).expect("room for a call");
        assert!(peer.set_leg(0, connection.remote_address(), channel, key));
        Joined { peer, _connection: connection, _stream: (sending, receiving) }
    }
}

/// A call through the relay of `lab`, in which each side says something to the other.
async fn call(lab: &Lab, caller_at: &NodePlace, callee_at: &NodePlace) {
    let (alice, bob, call) = (Device::new(), Device::new(), CallId(random()));
    let caller = alice.join(lab, caller_at, call, &bob, Side::Caller).await;
    let callee = bob.join(lab, callee_at, call, &alice, Side::Callee).await;
    let (there, here) = tokio::join!(caller.peer.connect(), callee.peer.accept());
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    there.send_datagram(b"ahoy, bob".to_vec().into()).expect("sent");
    assert_eq!(timeout(PATIENCE, here.read_datagram()).await.expect("in time").expect("heard")[..], *b"ahoy, bob");
    here.send_datagram(b"ahoy, alice".to_vec().into()).expect("sent");
    assert_eq!(timeout(PATIENCE, there.read_datagram()).await.expect("in time").expect("heard")[..], *b"ahoy, alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_run_between_tunnels_and_between_a_tunnel_and_udp() {
    let lab = Lab::new().await;
    let udp = NodePlace::udp(&lab.relay.local_addresses());
    let tcp = NodePlace { udp: Vec::new(), tcp: lab.relay.local_tcp_addresses() };
    call(&lab, &tcp, &udp).await;
    call(&lab, &udp, &tcp).await;
    call(&lab, &tcp, &tcp).await;
    lab.relay.stop().await;
}
