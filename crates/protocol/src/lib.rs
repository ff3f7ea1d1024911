//! Every type that crosses a socket, with its size limit and version.
//!
//! Nothing else may cross one. Each message implements [`Wire`]: a version byte, then postcard; [`Wire::decode`]
//! refuses what is longer than the type's limit, of another version, or followed by anything. Lists are [`List`]s,
//! which carry their bound in their type, so that a decoded message is already within its limits.
//!
//! What this crate does not do: no sockets, no clocks, no keys. Signatures are carried here ([`Signed`]) and made and
//! checked in `ahoy-identity`.

pub mod certificate;
pub mod datagram;
pub mod directory;
pub mod ids;
pub mod invitation;
pub mod letter;
pub mod link;
pub mod login;
pub mod mail;
pub mod media;
pub mod message;
pub mod name;
pub mod peer;
pub mod record;
pub mod relay;
pub mod roster;
pub mod signed;
pub mod time;
pub mod tunnel;
pub mod vault;
pub mod wire;

pub use ids::{CallId, DeviceKey, NetworkId, NodeKey, SealKey, Signature, UserKey};
pub use link::NetworkLink;
pub use name::Name;
pub use signed::{Signable, Signed};
pub use time::UnixMillis;
pub use wire::{Blob, List, Prose, Text, Wire, WireError};
