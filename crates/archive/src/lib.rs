//! What a device keeps: messages with full-text search, what is still to be sent, and the state of chats and ratchets, encrypted.
