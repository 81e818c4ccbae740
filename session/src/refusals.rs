//! One test for each refusal.
