//! A fuzz target for everything that parses.
