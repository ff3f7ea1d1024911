//! Voice packets, the jitter buffer and the sending side of speech, without I/O.
