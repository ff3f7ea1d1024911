//! Conversations without I/O: logs, order, gaps, receipts, contacts.
