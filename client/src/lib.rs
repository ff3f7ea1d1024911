//! The client of Ahoy: the library on which the headless commands, and every other face of the program, stand.
//!
//! ```text
//! cli ──commands──► engine ◄──signals── sessions ◄──► supernodes
//!  ▲                  │ ▲
//!  └────events────────┘ └── links (one for each device of a call) ◄──► relay, peer ──► media (threads)
//! ```
//! The [`engine`] is the one owner of what a call's state is; it carries out the effects of `ahoy-call`. [`sessions`] keep this device
//! known at its supernodes; a [`link`] is the connection with one device of a call; [`media`] is where sound is.
//! Decisions are made in the crates without I/O; what is here waits, sends and stores.

pub mod account;
pub mod calls;
pub mod candidates;
pub mod cli;
pub mod control;
pub mod courier;
pub mod demo;
pub mod devices;
pub mod doctor;
pub mod echo_service;
pub mod engine;
pub mod events;
pub mod home;
pub mod link;
pub mod lookup;
pub mod media;
pub mod power;
pub mod quality;
pub mod reach;
pub mod relays;
pub mod sessions;
pub mod settings;
pub mod signals;
pub mod sound;
