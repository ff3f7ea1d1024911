//! The call state machine, without I/O.
