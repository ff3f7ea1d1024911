//! Addresses at which this device may be reached, for a call whose other side may know them.

use crate::sessions::Sessions;
use ahoy_protocol::invitation::CANDIDATES_MAX;
use ahoy_protocol::peer::{Candidate, CandidateKind};
use ahoy_transport::ClientEndpoint;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long an observer has for an answer. Later ones are of no use to a call that is waiting.
const OBSERVE_TIME: Duration = Duration::from_millis(700);
/// Two observers tell an endpoint-independent mapping from another kind (RFC 4787, section 4.1).
const OBSERVERS: usize = 2;

/// The addresses of this device's interfaces, and those that supernodes see its packets come from.
pub async fn gather(endpoint: &ClientEndpoint, sessions: &Sessions) -> Vec<Candidate> {
    let observers: Vec<SocketAddr> = sessions.live().into_iter().map(|session| session.address).collect();
    let mut asked = JoinSet::new();
    for observer in observers.into_iter().take(OBSERVERS) {
        let endpoint = endpoint.clone();
        asked.spawn(async move { endpoint.observe(observer, OBSERVE_TIME).await });
    }
    let mut candidates = endpoint.host_candidates();
    while let Some(observed) = asked.join_next().await {
        if let Ok(Some(observation)) = observed {
            candidates.push(Candidate { address: observation.address, kind: CandidateKind::ServerReflexive });
        }
    }
    candidates.sort();
    candidates.dedup_by_key(|candidate| candidate.address);
    // What others see matters most where there are too many.
    candidates.sort_by_key(|candidate| candidate.kind == CandidateKind::Host);
    candidates.truncate(CANDIDATES_MAX);
    candidates
}
