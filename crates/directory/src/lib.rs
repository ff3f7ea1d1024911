//! What makes a record in the directory valid, and which of two wins.
