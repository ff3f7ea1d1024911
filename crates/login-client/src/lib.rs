//! Speaks with the login server: register, sign in, renew, roster, enrol.
