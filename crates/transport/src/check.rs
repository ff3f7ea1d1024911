//! Asks a node that was reached over UDP whether it still is, and digs a tunnel beside that where it does not answer.
//!
//! A machine that comes into a network which blocks UDP, or a router that begins to, leaves connections behind that look well until their
//! time-outs end. A call cannot wait for those. One small question tells the two cases apart within a round trip, so where UDP works nothing
//! else is ever sent; and where it does not, the tunnel stands by the time that this is certain.

use crate::TransportError;
use crate::dial::{Dialer, UdpNews};
use crate::shared::Shared;
use crate::{Connection, NodePlace};
use ahoy_identity::random;
use ahoy_protocol::datagram::Observe;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Before a tunnel is begun beside the question, at least, and as a share of the connection's round trip: most nodes have answered by then.
const TUNNEL_AFTER: Duration = Duration::from_millis(200);
const TUNNEL_AFTER_ROUND_TRIPS: f64 = 1.5;
/// Pauses between questions: packets get lost, and networks are not ready at once. The last pause is repeated.
const ASK_PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(150), Duration::from_millis(300)];
/// How long the last question waits for its answer at least and at most, once the tunnel stands. That it stands shows that the network is
/// there, so this silence is UDP's alone.
const LAST_WORD_MIN: Duration = Duration::from_millis(90);
const LAST_WORD_MAX: Duration = Duration::from_millis(400);
/// How often it is asked in that time: where the node was away for a while, the system still reports that, in the place of sending the first.
const LAST_WORDS: u32 = 3;
/// How long all of it may take. What does not answer by then is out of reach for now.
const CHECK_TIME_MAX: Duration = Duration::from_secs(5);

/// How a node is reached.
#[derive(Debug)]
pub enum Reached {
    /// Over UDP, as before.
    Udp,
    /// Through this tunnel alone.
    Tunnel(Connection),
}

/// A node, and the connection over UDP by which it was reached.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) news: &'a UdpNews,
    pub(crate) connection: &'a Connection,
}

impl Check<'_> {
    pub(crate) async fn run(self, dialer: Dialer, place: &NodePlace) -> Result<Reached, TransportError> {
        let (answer, mut answers) = mpsc::channel(1);
        let question = Question { shared: self.shared, address: self.connection.remote_address(), nonce: random() };
        // Without room for a question nobody can tell, and the connection's own time-outs decide.
        if !self.shared.board().add_observation(Instant::now(), question.nonce, question.address, answer) {
            return Ok(Reached::Udp);
        }
        let asking = async {
            let last = ASK_PAUSES[ASK_PAUSES.len() - 1];
            for pause in ASK_PAUSES.into_iter().chain(std::iter::repeat(last)) {
                question.ask();
                sleep(pause).await;
            }
        };
        let checking = async {
            tokio::select! {
                biased;
                Some(_) = answers.recv() => {
                    self.news.got_out();
                    Ok(Reached::Udp)
                }
                tunnel = self.dig(dialer, place, &question) => tunnel.map(Reached::Tunnel),
                () = asking => Err(TransportError::TimedOut { what: "the node" }),
            }
        };
        timeout(CHECK_TIME_MAX, checking).await.unwrap_or(Err(TransportError::TimedOut { what: "the node" }))
    }

    async fn dig(&self, dialer: Dialer, place: &NodePlace, question: &Question<'_>) -> Result<Connection, TransportError> {
        sleep(TUNNEL_AFTER.max(self.connection.rtt().mul_f64(TUNNEL_AFTER_ROUND_TRIPS))).await;
        let tunnels = NodePlace { udp: Vec::new(), tcp: place.tcp.clone() };
        let connection = dialer.connect(&tunnels, self.news).await?;
        let time = connection.rtt().mul_f64(TUNNEL_AFTER_ROUND_TRIPS).clamp(LAST_WORD_MIN, LAST_WORD_MAX);
        for _ in 0..LAST_WORDS {
            question.ask();
            sleep(time / LAST_WORDS).await;
        }
        self.news.stayed_silent();
        Ok(connection)
    }
}

/// One question, asked until it is answered. It goes from the socket and to the address that the connection's packets and those of legs
/// take, so that what answers it lets them through as well.
struct Question<'a> {
    shared: &'a Shared,
    address: SocketAddr,
    nonce: [u8; 8],
}

impl Question<'_> {
    fn ask(&self) {
        self.shared.send(self.address, &Observe { nonce: self.nonce }.encode());
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.shared.board().remove_observation(self.nonce);
    }
}
