//! Rooms for tests and benches: a loudspeaker, its echo, and a microphone, made from seeds.

mod room;
mod scene;

pub use room::Room;
pub use scene::{DelayJump, Hint, Recording, Scene};
