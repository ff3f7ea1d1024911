//! The programs against each other on loopback.
