//! The mail that a supernode keeps, and who may write to it.
