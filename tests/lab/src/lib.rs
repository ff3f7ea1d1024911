//! A laboratory for whole networks: it starts the four programs as processes, on loopback or in network namespaces of its own, and lets a test wait
//! for what they say.
//!
//! It knows the programs by their command lines and their JSON events alone. Everything waits for conditions and has a time limit; whatever it
//! started, it ends when it is dropped. Being made for tests, it panics where something is not as it should be, and shows what the processes said.

mod capture;
mod event;
mod faults;
mod gateway;
mod namespaces;
mod network;
mod process;
mod programs;
mod quiet;
mod router;
mod sockets;
mod system;
pub mod wav;

pub use capture::Capture;
pub use event::Event;
pub use gateway::{PortMapper, Proxy};
pub use namespaces::{Lab, Skipped, in_namespace, lab_or_skip, lab_or_skip_with};
pub use network::{Network, Node, PASSWORD, Person, Plan, Spot};
pub use process::{Finished, Process};
pub use programs::program;
pub use quiet::{alone, best_of_tries};
pub use router::{Nat, Router};
pub use sockets::{Socket, SocketKind, packets_received, sockets_of, wait_until_read};
