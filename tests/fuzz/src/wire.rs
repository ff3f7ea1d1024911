//! Every message: it decodes or is refused, and what decodes encodes to something that decodes to the same.

use crate::samples::{NOW, samples};
use crate::{Target, mail};
use ahoy_protocol::certificate::{
    DeviceCertificate, DeviceStatement, NetworkDocument, NetworkStatement, NodeCertificate, NodeRole, RelayGrant, UserCertificate,
};
use ahoy_protocol::ids::{CallId, LegKey};
use ahoy_protocol::invitation::{RelayOffer, Signal, SignalBody};
use ahoy_protocol::login::{
    Account, AddDevice, Credentials, EnrolNode, LoginError, NodeCredentials, NodeRequest, RegisterChallenge, RegisterFinish, RegisterStart,
    Renew, RenewNode, RenewRequest, RosterReply, SignInChallenge, SignInFinish, SignInStart,
};
use ahoy_protocol::peer::{EndReason, LegNews, Mapping, PeerMessage};
use ahoy_protocol::record::{PresenceStatement, Record, UserStatement};
use ahoy_protocol::relay::{Join, LegEvent};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::{Blob, List, Text, Wire, directory};

/// `directory::Request` and its like, under names that say what they are.
type DirectoryRequest = directory::Request;
type DirectoryResponse = directory::Response;
type DirectoryPush = directory::Push;

/// One target a type: `wire_` and the type's name in snake case.
macro_rules! wire_targets {
    ($($name:literal $type:ident $seeds:expr;)*) => {
        pub(crate) fn targets() -> Vec<Target> {
            vec![$(Target { name: $name, run: reads_back::<$type>, seeds: || encoded(&$seeds) },)*]
        }
    };
}

wire_targets! {
    "wire_network_statement" NetworkStatement [samples().document.statement.claims().expect("valid")];
    "wire_network_document" NetworkDocument [samples().document.clone()];
    "wire_user_certificate" UserCertificate [samples().user_certificate().claims().expect("valid")];
    "wire_device_statement" DeviceStatement [samples().device_statement().claims().expect("valid")];
    "wire_device_certificate" DeviceCertificate [samples().device_certificate().claims().expect("valid")];
    "wire_node_certificate" NodeCertificate [samples().node_certificate().claims().expect("valid")];
    "wire_relay_grant" RelayGrant [samples().grant().claims().expect("valid")];
    "wire_roster" Roster [samples().roster_value()];
    "wire_register_start" RegisterStart [RegisterStart { name: samples().name(), opaque: blob(32) }];
    "wire_register_challenge" RegisterChallenge [RegisterChallenge { opaque: blob(64), epoch: 1 }];
    "wire_register_finish" RegisterFinish [register_finish()];
    "wire_sign_in_start" SignInStart [SignInStart { name: samples().name(), opaque: blob(96) }];
    "wire_sign_in_challenge" SignInChallenge [SignInChallenge { opaque: blob(320), ticket: blob(400) }];
    "wire_sign_in_finish" SignInFinish [SignInFinish { ticket: blob(400), opaque: blob(64) }];
    "wire_account" Account [account()];
    "wire_add_device" AddDevice [AddDevice { ticket: blob(200), device: samples().device_statement() }];
    "wire_renew_request" RenewRequest [renew_request()];
    "wire_renew" Renew [Renew { request: samples().signed_by_device(&renew_request()) }];
    "wire_credentials" Credentials [credentials()];
    "wire_roster_reply" RosterReply [RosterReply { roster: None }, RosterReply { roster: Some(samples().roster()) }];
    "wire_node_request" NodeRequest [node_request()];
    "wire_enrol_node" EnrolNode [EnrolNode { token: Text::fitting("token"), request: samples().signed_by_device(&node_request()) }];
    "wire_renew_node" RenewNode [RenewNode { request: samples().signed_by_device(&node_request()) }];
    "wire_node_credentials" NodeCredentials [NodeCredentials { certificate: samples().node_certificate(), roster: samples().roster() }];
    "wire_login_error" LoginError [LoginError::NameTaken(samples().name()), LoginError::SlowDown { retry_after_s: 9 }, LoginError::Refused(Text::fitting("why"))];
    "wire_directory_request" DirectoryRequest directory_requests();
    "wire_directory_response" DirectoryResponse directory_responses();
    "wire_push" DirectoryPush [DirectoryPush::Deliver(blob(200)), DirectoryPush::RosterVersion(4), DirectoryPush::Drain { within_ms: 900 }, DirectoryPush::VaultChanged];
    "wire_record" Record samples().records();
    "wire_user_statement" UserStatement [samples().user_record().statement.claims().expect("valid")];
    "wire_presence_statement" PresenceStatement [samples().presence_record().statement.claims().expect("valid")];
    "wire_signal" Signal samples().signals();
    "wire_signal_body" SignalBody samples().signals().iter().map(|signal| signal.body.claims().expect("valid")).collect::<Vec<_>>();
    "wire_join" Join [Join { call: CallId([3; 16]), peer: samples().device.device_key(), grant: samples().grant() }];
    "wire_leg_event" LegEvent leg_events();
    "wire_peer_message" PeerMessage peer_messages();
}

pub(crate) fn reads_back<T: Wire + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = T::decode(bytes) else { return };
    let again = value.encode().expect("what was within its limit stays within it");
    assert_eq!(T::decode(&again).as_ref(), Ok(&value), "a {} does not read back", T::NAME);
}

pub(crate) fn encoded<T: Wire>(values: &[T]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.encode().expect("samples fit their limits")).collect()
}

pub(crate) fn blob<const N: usize>(len: usize) -> Blob<N> {
    Blob::new((0..len).map(|index| index as u8).collect()).expect("samples fit their limits")
}

fn register_finish() -> RegisterFinish {
    let (name, user, device) = (samples().name(), samples().user.user_key(), samples().device_statement());
    RegisterFinish { name, opaque: blob(192), user, backup: blob(60), device }
}

fn account() -> Account {
    let devices = List::first_of([samples().device_certificate()]);
    Account { ticket: blob(200), certificate: samples().user_certificate(), backup: blob(60), devices }
}

fn renew_request() -> RenewRequest {
    RenewRequest { network: samples().id(), device: samples().device.device_key(), issued: NOW }
}

fn credentials() -> Credentials {
    Credentials {
        user: samples().user_certificate(),
        device: samples().device_certificate(),
        devices: List::first_of([samples().device_certificate()]),
        grant: samples().grant(),
        roster: samples().roster(),
    }
}

fn node_request() -> NodeRequest {
    let address = |text: &str| List::first_of([text.parse().expect("an address")]);
    NodeRequest {
        network: samples().id(),
        role: NodeRole::Supernode,
        node: samples().node.node_key(),
        udp: address("192.0.2.1:4433"),
        tcp: address("[2001:db8::1]:443"),
        overlay: address("192.0.2.1:4434"),
        issued: NOW,
    }
}

fn directory_requests() -> Vec<DirectoryRequest> {
    let (node, device) = (samples().node.node_key(), samples().device.device_key());
    let [user, presence] = samples().records();
    vec![
        DirectoryRequest::Register { user: samples().user_certificate(), device: samples().device_certificate() },
        DirectoryRequest::Publish(user),
        DirectoryRequest::Publish(presence),
        DirectoryRequest::Find(samples().name()),
        DirectoryRequest::Signal { to: device, homes: List::first_of([node]), sealed: blob(300) },
        DirectoryRequest::Relays,
        DirectoryRequest::Roster { since: 2 },
        DirectoryRequest::Forward { to: device, sealed: blob(300) },
        DirectoryRequest::RelayStatus { load_percent: 5 },
        DirectoryRequest::Mail(Box::new(mail::mail_requests().swap_remove(1))),
        DirectoryRequest::ForwardMail(Box::new(mail::forwards().swap_remove(0))),
    ]
}

fn directory_responses() -> Vec<DirectoryResponse> {
    let node = samples().node.node_key();
    let found = directory::Found {
        users: List::first_of([samples().user_record()]),
        presence: List::first_of([samples().presence_record()]),
        supernodes_asked: 3,
    };
    vec![
        DirectoryResponse::Done,
        DirectoryResponse::Published { stored: 3 },
        DirectoryResponse::Superseded(samples().records()[1].clone()),
        DirectoryResponse::Found(found),
        DirectoryResponse::Delivered { devices: 1 },
        DirectoryResponse::Relays(List::first_of([directory::RelayLoad { node, load_percent: 5 }])),
        DirectoryResponse::Roster(Some(samples().roster())),
        DirectoryResponse::Busy { retry_after_ms: 700, alternatives: List::first_of([node]) },
        DirectoryResponse::Refused(Text::fitting("why")),
        DirectoryResponse::Mail(Box::new(mail::mail_responses().swap_remove(2))),
    ]
}

fn leg_events() -> Vec<LegEvent> {
    vec![
        LegEvent::Joined { channel: 0x0102_0304, key: LegKey([7; 32]), peer_present: true },
        LegEvent::PeerJoined,
        LegEvent::PeerLeft,
        LegEvent::Busy { retry_after_ms: 700, alternatives: List::first_of([samples().node.node_key()]) },
        LegEvent::Refused(Text::fitting("why")),
    ]
}

fn peer_messages() -> Vec<PeerMessage> {
    vec![
        PeerMessage::Hello { call: CallId([3; 16]), user: samples().user_certificate(), device: samples().device_certificate() },
        PeerMessage::Answer,
        PeerMessage::Confirm,
        PeerMessage::Network { candidates: List::first_of(samples().candidates()), mapping: Mapping::EndpointIndependent },
        PeerMessage::Relays(List::first_of([RelayOffer { node: samples().node.node_key(), rtt_ms: 20 }])),
        PeerMessage::Leg(LegNews::Join { leg: 1, relay: samples().node.node_key() }),
        PeerMessage::Leg(LegNews::Gone { leg: 0 }),
        PeerMessage::End(EndReason::HungUp),
        PeerMessage::Hold(true),
    ]
}
