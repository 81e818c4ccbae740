//! RATS core: evidence to claims to attestation result, with no IO and no clock.
