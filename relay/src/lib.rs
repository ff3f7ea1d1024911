//! Joins two legs of a call that cannot reach each other.
