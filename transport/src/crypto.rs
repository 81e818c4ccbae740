//! The one cryptographic provider of this crate.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Makes aws-lc-rs the process-wide default provider of rustls, for dependencies that ask for a default.
///
/// This crate's own configurations name their provider and do not need it. Call it first in `main`; later calls, and
/// calls after somebody else's, change nothing.
pub fn install_crypto() {
    // The error only says that a default is in place already.
    drop(provider().install_default());
}

/// aws-lc-rs cut down to TLS 1.3, the post-quantum hybrid first: what is recorded today stays sealed later.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

pub(crate) fn shared_provider() -> Arc<CryptoProvider> {
    Arc::new(provider())
}
