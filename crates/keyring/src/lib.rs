//! Where the key of the archive comes from: the system's key ring, the kernel's, or the password.
