//! QUIC over one UDP socket of our own: virtual peers, relay frames, observation, probes.
