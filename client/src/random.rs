//! Randomness of the operating system.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Random bytes.
///
/// # Panics
///
/// When the operating system has no randomness to give: nothing can be sealed then either.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    assert!(
        SystemRandom::new().fill(&mut bytes).is_ok(),
        "the operating system gives no random bytes"
    );
    bytes
}

/// A number uniform over all of `u32`.
pub(crate) fn u32() -> u32 {
    u32::from_be_bytes(bytes())
}

/// A number uniform below `bound` (0 for a bound of 0): the bias of one in 2^32 / bound does not matter for spreading load.
pub(crate) fn below(bound: usize) -> usize {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX);
    let product = u64::from(u32()).saturating_mul(bound) >> 32;
    usize::try_from(product).unwrap_or(0)
}
