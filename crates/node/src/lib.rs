//! What supernode and relay share: flags, data folder, node key, enrolment, certificate, roster, and how a program starts and stops.
//!
//! A program calls [`Node::prepare`], binds its sockets with the key of the [`Preparation`], and then
//! [joins](Preparation::join) with the addresses it got. From then on a [`Node`] keeps the certificate fresh and the
//! roster current in the background until it is dropped; while the login server is away it goes on with what the data
//! folder holds.

mod addresses;
mod admission;
mod args;
mod error;
mod join;
mod kept;
mod metrics;
mod node;
mod process;
mod roster;
#[doc(hidden)]
pub mod testing;
mod upkeep;

pub use addresses::Addresses;
pub use admission::{Admission, Place};
pub use ahoy_resilience::Backoff;
pub use args::ServeArgs;
pub use error::{NodeError, RosterRefused};
pub use join::Preparation;
pub use metrics::MetricsServer;
pub use node::Node;
pub use process::{init_logging, run, until_stopped};
pub use roster::{Offered, RosterView};
