//! A prefix that nobody but the enclave can have sent.

use std::fmt::Write;

use serde_json::Value;

use crate::error::EngineError;
use crate::proof::ScrubContext;

/// Salt of a probe where no request of the epoch had one.
const NO_SALT: &str = "cloister-probe";

/// The prefix that is planted before a reset and looked for after it.
pub(crate) struct Planted {
    long: String,
    short: String,
    salt: String,
}

/// Bytes of the nonce in the short prefix.
const SHORT: usize = 4;

impl Planted {
    /// Text from the context's nonce, under the epoch's own salt.
    pub(crate) fn new(context: &ScrubContext) -> Self {
        let words = |count: usize| {
            context
                .nonce
                .iter()
                .take(count)
                .fold(String::from("probe"), |mut text, byte| {
                    // A string takes every write.
                    let _ = write!(text, " {byte:02x}");
                    text
                })
        };
        let salt = context.cache_salt.as_deref().map_or(NO_SALT, String::as_str);
        Self {
            long: words(context.nonce.len()),
            short: words(SHORT),
            salt: salt.to_owned(),
        }
    }

    /// Long enough for several blocks of a prefix cache that keeps whole blocks.
    pub(super) fn long(&self) -> &str {
        &self.long
    }

    /// For a cache that keeps single tokens, where every slot has to run it.
    pub(super) fn short(&self) -> &str {
        &self.short
    }

    pub(super) fn salt(&self) -> &str {
        &self.salt
    }
}

/// Cached prompt tokens as an answer shows them. An answer that does not show them is an error: silence is no evidence.
pub(super) fn cached_tokens(answer: &Value, route: &'static str) -> Result<u64, EngineError> {
    let details = answer.pointer("/usage/prompt_tokens_details");
    match details.and_then(|details| details.get("cached_tokens")) {
        Some(count) => count.as_u64().ok_or(EngineError::Malformed {
            route,
            reason: "cached tokens are not a count",
        }),
        None => Err(EngineError::Malformed {
            route,
            reason: "it does not show cached tokens",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::Ledger;
    use cloister_attestation::ids::BootId;
    use serde_json::json;
    use zeroize::Zeroizing;

    #[test]
    fn the_prefix_follows_the_nonce_and_the_salt_is_the_epochs() {
        let context = |nonce| ScrubContext {
            boot_id: BootId::from_bytes([1; 16]),
            epoch: 1,
            nonce,
            cache_salt: Some(Zeroizing::new("salt".to_owned())),
            ledger: Ledger { begun: 0, ended: 0 },
        };
        let (one, two) = (Planted::new(&context([1; 32])), Planted::new(&context([2; 32])));
        assert_ne!(one.long(), two.long());
        assert_ne!(one.short(), two.short());
        assert!(one.long().split(' ').count() > 32);
        assert_eq!(one.salt(), "salt");
    }

    #[test]
    fn cached_tokens_that_are_not_shown_are_no_zero() {
        let shown = json!({"usage": {"prompt_tokens_details": {"cached_tokens": 3}}});
        assert_eq!(cached_tokens(&shown, "/x").expect("a count"), 3);
        for answer in [json!({}), json!({"usage": {"prompt_tokens_details": null}})] {
            assert!(cached_tokens(&answer, "/x").is_err());
        }
    }
}
