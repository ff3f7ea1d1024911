//! The path agent: which way a call's packets go, without I/O.
