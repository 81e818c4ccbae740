//! The engine that the enclave owns: process, dialects, scrub proof.
