//! The roster a node goes by, and what became of one that somebody offered.

use ahoy_protocol::Signed;
use ahoy_protocol::roster::Roster;

/// A roster whose signature was checked, and the signed bytes to hand on.
#[derive(Debug, Clone)]
pub struct RosterView {
    /// What it says.
    pub roster: Roster,
    /// As it was signed.
    pub signed: Signed<Roster>,
}

/// What became of an offered roster that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is newer and in force.
    Taken,
    /// It is the one at hand.
    Known,
}
