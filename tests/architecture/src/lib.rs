//! Holds the arrows between the crates to what ARCHITECTURE.md says.
