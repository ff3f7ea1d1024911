//! Peer-to-peer voice and chat: the application and its headless commands.
