//! What others vouch for and evidence does not bring along.

/// Endorsements that a verifier was given: none of them is trusted before its signature is verified. The default is none at all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Endorsements {}
