//! The login server: checks passwords without seeing them, certifies keys, hands out the roster.
//!
//! A request comes in over HTTPS ([`Server`]), is read and bounded (`http`), decided by `accounts` or `nodes`, and kept
//! in the `database`. Keys lie in files of the data folder (`keys`), never in the database, so that whoever has the
//! database alone can neither issue a certificate nor test a password. Answers carry certificates that `issuer` signs,
//! and the roster that `roster` keeps current.
//!
//! What this program does not know: passwords, private keys of users and devices, who calls whom.

mod accounts;
pub mod admin;
pub mod cli;
mod clock;
mod connections;
mod database;
mod error;
mod folder;
mod http;
mod issuer;
mod keys;
mod metrics;
mod nodes;
mod roster;
mod server;
mod state;
mod throttle;
mod ticket;
mod tls;

pub use clock::Clock;
pub use error::ServeError;
pub use server::{Config, Server};
