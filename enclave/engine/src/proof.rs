//! The value that a lease needs: what was observed when the engine was emptied.

use aws_lc_rs::digest::{Context, SHA256};
use cloister_attestation::ids::{BootId, Sha256Digest};
use zeroize::Zeroizing;

use crate::dialect::Dialect;

/// Label that separates this digest from every other use of SHA-256.
const LABEL: &[u8] = b"cloister/v1 scrub-proof";

/// What the enclave knows of the epoch that ends.
pub struct ScrubContext {
    /// This boot of the enclave.
    pub boot_id: BootId,
    /// The epoch that ends; 0 before the first.
    pub epoch: u64,
    /// Fresh random bytes: they make the proof unique and the planted prefix unpredictable.
    pub nonce: [u8; 32],
    /// A `cache_salt` that requests of the epoch ran under; none before the first epoch. The probe uses it.
    pub cache_salt: Option<Zeroizing<String>>,
    /// The enclave's count of the epoch's engine calls.
    pub ledger: Ledger,
}

/// The enclave's own count of engine calls in one epoch. A scrub begins only when all have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// Calls that were begun.
    pub begun: u64,
    /// Calls that have ended, one way or another.
    pub ended: u64,
}

impl Ledger {
    /// Whether every call has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.begun == self.ended
    }
}

/// How the engine was emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubMethod {
    /// By the dialect's reset, in the same process.
    Reset,
    /// By a new process.
    Restart,
}

impl ScrubMethod {
    /// The word for it in the workload description and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Restart => "restart",
        }
    }
}

/// Proof that nothing of the epoch is left in the engine. Made only by this crate, by looking.
///
/// The digest goes into the receipts of the epoch that the proof opens.
#[derive(Debug)]
#[must_use = "a scrub that proves nothing opens no lease"]
pub struct ScrubProof {
    boot_id: BootId,
    epoch: u64,
    generation: u64,
    method: ScrubMethod,
    dialect: Dialect,
    digest: Sha256Digest,
}

impl ScrubProof {
    /// The boot it holds for.
    #[must_use]
    pub const fn boot_id(&self) -> &BootId {
        &self.boot_id
    }

    /// The epoch that it closes.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The engine process that it holds for: useless once another one runs.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// How the engine was emptied.
    #[must_use]
    pub const fn method(&self) -> ScrubMethod {
        self.method
    }

    /// The engine's dialect.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// SHA-256 over the context and everything that was observed, in a fixed encoding with a length before every part.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.digest
    }
}

/// Collects what a scrub observed, in order.
///
/// Encoding of the digest: the label, boot id, epoch (u64), nonce, generation (u64) and ledger counts (u64 each); then the
/// method, each observation and last the dialect, as a name and a value. Integers are big-endian; every name and
/// value is preceded by its length as u32, so that no two sequences encode alike.
pub(crate) struct Observations {
    hash: Context,
}

impl Observations {
    pub(crate) fn new(context: &ScrubContext, generation: u64, method: ScrubMethod) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(LABEL);
        hash.update(context.boot_id.as_bytes());
        hash.update(&context.epoch.to_be_bytes());
        hash.update(&context.nonce);
        hash.update(&generation.to_be_bytes());
        hash.update(&context.ledger.begun.to_be_bytes());
        hash.update(&context.ledger.ended.to_be_bytes());
        let mut observations = Self { hash };
        observations.text("method", method.name());
        observations
    }

    /// Adds a value as it was read.
    pub(crate) fn bytes(&mut self, name: &str, value: &[u8]) {
        self.part(name.as_bytes());
        self.part(value);
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.bytes(name, &value.to_be_bytes());
    }

    /// Closes the proof. The caller has made every check.
    pub(crate) fn prove(
        mut self,
        context: &ScrubContext,
        generation: u64,
        method: ScrubMethod,
        dialect: Dialect,
    ) -> ScrubProof {
        self.text("dialect", crate::dialect::name(dialect));
        let digest = self.hash.finish();
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(digest.as_ref());
        ScrubProof {
            boot_id: context.boot_id,
            epoch: context.epoch,
            generation,
            method,
            dialect,
            digest: Sha256Digest::from_bytes(bytes),
        }
    }

    fn part(&mut self, bytes: &[u8]) {
        // Lengths beyond u32 cannot occur: every body that is read is capped far below.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.hash.update(&length.to_be_bytes());
        self.hash.update(bytes);
    }
}
