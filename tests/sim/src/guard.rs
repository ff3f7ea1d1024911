//! What an agent must never do, whatever happens to it: checked on every packet that it sends.

use ahoy_path::{Route, TRANSMITS_PER_SECOND_MAX, Transmit, Way};
use ahoy_protocol::peer::{Candidate, CandidateKind};
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Violations that are kept; the first one is what matters.
const VIOLATIONS_MAX: usize = 8;

/// Watches one agent.
#[derive(Debug, Default)]
pub struct Guard {
    named: BTreeSet<SocketAddr>,
    /// Addresses outside of routers, at which other ports may be guessed.
    guessable: BTreeSet<IpAddr>,
    vouched: BTreeSet<SocketAddr>,
    sent: VecDeque<Duration>,
    most_per_second: usize,
    violations: Vec<String>,
}

impl Guard {
    /// The peer named these.
    pub fn name(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            self.named.insert(candidate.address);
            let is_private = |ip| matches!(ip, IpAddr::V4(ip) if ip.is_private() || ip.is_link_local());
            if !is_private(candidate.address.ip()) && candidate.kind != CandidateKind::VpnHost {
                self.guessable.insert(candidate.address.ip());
            }
        }
    }

    /// An authenticated probe came from here.
    pub fn vouch(&mut self, address: SocketAddr) {
        if self.vouched.insert(address) {
            self.named.insert(address);
            self.guessable.insert(address.ip());
        }
    }

    /// The agent sends this.
    pub fn check_transmit(&mut self, now: Duration, transmit: &Transmit) {
        while self.sent.front().is_some_and(|at| now - *at >= Duration::from_secs(1)) {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
        self.most_per_second = self.most_per_second.max(self.sent.len());
        if self.sent.len() > TRANSMITS_PER_SECOND_MAX {
            self.violate(format!("{} probes within a second at {now:?}", self.sent.len()));
        }
        if let Way::Direct { remote, .. } = transmit.way
            && !self.named.contains(&remote)
            && !self.guessable.contains(&remote.ip())
        {
            self.violate(format!("probe at {now:?} to {remote}, which nobody named or vouched for"));
        }
    }

    /// The call's packets go this way.
    pub fn check_route(&mut self, now: Duration, route: Route, leg_is_up: [bool; 2]) {
        for way in route.ways() {
            match way {
                Way::Leg(leg) if leg_is_up.get(usize::from(leg.0)) != Some(&true) => {
                    self.violate(format!("route at {now:?} over leg {}, which is not up", leg.0));
                }
                Way::Direct { remote, .. } if !self.vouched.contains(&remote) => {
                    self.violate(format!("route at {now:?} to {remote}, which nobody vouched for"));
                }
                Way::Leg(_) | Way::Direct { .. } => {}
            }
        }
    }

    /// Something else went wrong.
    pub fn violate(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The most probes of any second.
    #[must_use]
    pub fn most_per_second(&self) -> usize {
        self.most_per_second
    }
}
