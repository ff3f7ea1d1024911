//! What an emulated link does to packets, apart from the sockets of `ahoy-link` and from its clock: [`Shape`] decides the fate of each packet, [`Figures`] counts
//! them, and [`Order`] is what the program is told on its standard input.

mod figures;
mod order;
mod shape;

pub use figures::{DROPPED_US, Figures, LOST_US, Marks, Row, Summary};
pub use order::{Order, Reply, What};
pub use shape::{Fate, Shape, ShapeSettings};
