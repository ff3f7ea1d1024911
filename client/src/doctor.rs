//! The doctor: looks at what this computer's network lets through, and says what that means for calls and what to do.
//!
//! [`facts`] are gathered by asking around, bounded in time whatever happens; [`diagnosis`] draws the conclusions without I/O; a
//! [`Report`] is both, for people and for scripts. It uses ports and a key of its own, so that it disturbs no ahoy that runs.

pub mod diagnosis;
pub mod facts;
mod gather;
mod report;

pub use report::Report;

use crate::home::Home;
use ahoy_protocol::NetworkLink;

/// Looks at the network of the account in `home`, or at that of `link`. Takes ten seconds at most.
pub async fn examine(home: &Home, link: Option<NetworkLink>) -> Report {
    let facts = gather::gather(home, link).await;
    let diagnosis = diagnosis::diagnose(&facts);
    Report::new(&facts, diagnosis)
}
