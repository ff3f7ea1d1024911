//! Hosts the directory and carries invitations.
