//! Keys, signatures, sealing, passwords and the chains of certificates.
