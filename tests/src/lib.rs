//! Test harness: real processes, lying schedulers, canaries.
