//! Data folders: versioned, locked, written atomically.
