//! quinn's settings for the two kinds of connection: calls between peers, and control between a client and a node.

use crate::controller::ConstantWindowFactory;
use ahoy_identity::SigningKey;
use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// Voice waiting to be sent: eight to twenty frames. When it is full the oldest go, which is right for voice.
const CALL_DATAGRAMS_SENT_BYTES: usize = 4096;
/// Voice waiting to be read: over a second of it, for a reader that was held up.
const CALL_DATAGRAMS_RECEIVED_BYTES: usize = 64 * 1024;
/// A call's keep-alive: keeps the round-trip time fresh and notices within seconds that the other side is gone.
const CALL_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A call survives this long without a packet, so that a network change or a lost relay does not end it at once.
const CALL_IDLE: Duration = Duration::from_secs(30);
/// First guess of the round-trip time. Most paths are faster than RFC 9002's 333 ms; a first packet that is lost, as
/// happens while the other side is not yet on the relay, is repeated this much sooner.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Packets that a call's receiver may take before it acknowledges: acknowledgements ride in the other direction's voice.
const CALL_ACK_THRESHOLD: u32 = 8;
/// And how long it may wait: longer than between two packets of voice of the longest frames, 120 ms, so that no packet is needed for it alone.
const CALL_ACK_DELAY: Duration = Duration::from_millis(150);
/// Streams a call's side may have open: one for control, the rest for what a call adds.
const CALL_STREAMS: u32 = 4;

/// A control connection is given up after this long in silence: three keep-alives lost. A supernode that died without a word is noticed
/// within it, and its clients are at another.
const CONTROL_IDLE: Duration = Duration::from_secs(36);
/// Keep-alives of control connections come between these: often enough for NATs that forget after 30 s, and spread, so
/// that clients which all came back at once do not all ask at once ever after.
const CONTROL_KEEP_ALIVE_MS: std::ops::Range<u64> = 9_000..12_000;
/// Streams a side of a control connection may have open, each one request.
const CONTROL_STREAMS: u32 = 8;
/// What a control connection may hold unread per stream. No message is longer.
const CONTROL_STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// And in all, either way.
const CONTROL_WINDOW_BYTES: u32 = 256 * 1024;

/// Length of connection identifiers: enough to keep connections apart, four bytes less in every voice packet than usual.
const CONNECTION_ID_BYTES: usize = 4;
/// Of nodes, which have many more connections, and are reset by them.
const NODE_CONNECTION_ID_BYTES: usize = 8;

/// For clients. The fixed bit stays set, here and below: what shares the port is told apart by it.
pub(crate) fn client_endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
    config.cid_generator(|| Box::new(RandomConnectionIds::<CONNECTION_ID_BYTES>));
    config
}

/// For socket number `socket` of the node with this key. The key of stateless resets (RFC 9000, section 10.3) is derived from the node's, so that a
/// node that has begun anew can tell those who still believe in its old connections; the socket's number is in it, so that one socket
/// does not give away another's tokens.
pub(crate) fn node_endpoint(key: &SigningKey, socket: usize) -> EndpointConfig {
    let secret = ahoy_identity::sha256(&[b"ahoy/stateless-reset/1\0", key.seed(), &(socket as u64).to_be_bytes()]);
    let mut config = EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret)));
    config.grease_quic_bit(false);
    config.cid_generator(|| Box::new(RandomConnectionIds::<NODE_CONNECTION_ID_BYTES>));
    config
}

/// For a call between two peers.
pub(crate) fn call() -> Arc<TransportConfig> {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(CALL_ACK_THRESHOLD.into()).max_ack_delay(Some(CALL_ACK_DELAY));
    let mut config = base(CALL_IDLE, CALL_STREAMS);
    config
        .congestion_controller_factory(Arc::new(ConstantWindowFactory))
        .datagram_send_buffer_size(CALL_DATAGRAMS_SENT_BYTES)
        .datagram_receive_buffer_size(Some(CALL_DATAGRAMS_RECEIVED_BYTES))
        .keep_alive_interval(Some(CALL_KEEP_ALIVE))
        .ack_frequency_config(Some(acks));
    Arc::new(config)
}

/// For a connection to a node, on the side that keeps it alive. `chance` is any random number.
pub(crate) fn control_client(chance: u64) -> Arc<TransportConfig> {
    let keep_alive =
        Duration::from_millis(CONTROL_KEEP_ALIVE_MS.start + chance % (CONTROL_KEEP_ALIVE_MS.end - CONTROL_KEEP_ALIVE_MS.start));
    let mut config = control();
    config.keep_alive_interval(Some(keep_alive));
    Arc::new(config)
}

/// For a connection to a node, on the node's side.
pub(crate) fn control_server() -> Arc<TransportConfig> {
    Arc::new(control())
}

fn control() -> TransportConfig {
    let mut config = base(CONTROL_IDLE, CONTROL_STREAMS);
    config
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(CONTROL_STREAM_WINDOW_BYTES.into())
        .receive_window(CONTROL_WINDOW_BYTES.into())
        .send_window(CONTROL_WINDOW_BYTES.into());
    config
}

/// What all have in common. A path's MTU is not probed: a size found on one path would be lost on the next.
fn base(idle: Duration, streams: u32) -> TransportConfig {
    let idle = IdleTimeout::try_from(idle).expect("idle times of seconds fit");
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(streams))
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .initial_rtt(INITIAL_RTT)
        .allow_spin(false);
    config
}

/// Random connection identifiers of so many bytes. None is refused for its looks: one from before a restart has to be answered with a reset.
struct RandomConnectionIds<const BYTES: usize>;

impl<const BYTES: usize> ConnectionIdGenerator for RandomConnectionIds<BYTES> {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&ahoy_identity::random::<BYTES>())
    }

    fn cid_len(&self) -> usize {
        BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
