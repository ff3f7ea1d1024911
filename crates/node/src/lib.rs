//! What supernode and relay share: enrolment, certificates, roster, flags.
