//! The enclave's side of M2: seals the records of an answer.

use aws_lc_rs::hkdf;
use cloister_attestation::Sha256Digest;
use zeroize::Zeroizing;

use crate::{
    Malformed,
    chunk::ChunkCipher,
    ids::{HeaderHash, KeyId},
    inner::ResponseHead,
    key_config::PaddingProfile,
    limits::{END_RECORD, MAX_CHUNK, VERSION},
    receipt::SignedReceipt,
    record::{self, ErrorCode, Kind, Progress, capacity},
    suite::{CryptoError, Exporter},
    transcript::Transcript,
};

/// Derives the cipher of a response from the context of the chosen wrap.
pub(crate) fn response_cipher(
    exporter: &Exporter,
    header: &HeaderHash,
    key_id: &KeyId,
    nonce: &[u8; 32],
) -> Result<ChunkCipher, CryptoError> {
    let secret = exporter.response_secret(header, key_id, nonce)?;
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret.as_slice());
    ChunkCipher::new(&prk, b"cloister/v1 response key", b"cloister/v1 response nonce")
}

/// A record cannot be sealed, or may not come here: the answer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record cannot be sealed")]
pub struct SealError;

impl From<CryptoError> for SealError {
    fn from(_: CryptoError) -> Self {
        Self
    }
}

impl From<Malformed> for SealError {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// Seals the records of one answer. Each call returns bytes of M2 to send on, in order.
///
/// `head`, any number of `data`, and `end`; `error` instead of `head` or after it, and then only `end`. With padding on a
/// `dummy` may come anywhere after `head` or `error`, and [`missing_dummies`](Self::missing_dummies) have to come before
/// `end`. Anything else is a [`SealError`], since no client would take it.
pub struct ResponseSealer {
    cipher: ChunkCipher,
    hash: Transcript,
    padding: PaddingProfile,
    records: u64,
    progress: Progress,
}

impl ResponseSealer {
    pub(crate) fn new(
        exporter: &Exporter,
        header: &HeaderHash,
        key_id: &KeyId,
        padding: PaddingProfile,
    ) -> Result<(Self, Vec<u8>), SealError> {
        let mut nonce = [0u8; 32];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SealError)?;
        Self::with_nonce(exporter, header, key_id, padding, &nonce)
    }

    /// As [`new`](Self::new) with a given nonce, which must be used once: two answers under one would share key and nonces.
    pub(crate) fn with_nonce(
        exporter: &Exporter,
        header: &HeaderHash,
        key_id: &KeyId,
        padding: PaddingProfile,
        nonce: &[u8; 32],
    ) -> Result<(Self, Vec<u8>), SealError> {
        let prefix = [&[VERSION], key_id.as_bytes().as_slice(), nonce].concat();
        let sealer = Self {
            cipher: response_cipher(exporter, header, key_id, nonce)?,
            hash: Transcript::response(&prefix),
            padding,
            records: 0,
            progress: Progress::default(),
        };
        Ok((sealer, prefix))
    }

    /// Bytes of an answer's body that one data record holds.
    #[must_use]
    pub fn data_capacity(&self) -> usize {
        capacity(if self.padding.is_on() {
            usize::from(self.padding.record_size)
        } else {
            MAX_CHUNK
        })
    }

    /// Records that are missing until their count is a multiple of the profile's bucket.
    #[must_use]
    pub fn missing_dummies(&self) -> u64 {
        self.padding.missing_records(self.records)
    }

    /// Status and media type: the first record.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn head(&mut self, head: &ResponseHead) -> Result<Vec<u8>, SealError> {
        self.record(Kind::Head, &head.encode())
    }

    /// A piece of the body, 1 to [`data_capacity`](Self::data_capacity) bytes.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn data(&mut self, piece: &[u8]) -> Result<Vec<u8>, SealError> {
        if piece.is_empty() {
            return Err(SealError);
        }
        self.record(Kind::Data, piece)
    }

    /// A record without content; only with padding on.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn dummy(&mut self) -> Result<Vec<u8>, SealError> {
        if !self.padding.is_on() {
            return Err(SealError);
        }
        self.record(Kind::Dummy, &[])
    }

    /// The answer failed; the end record still follows.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn error(&mut self, code: ErrorCode) -> Result<Vec<u8>, SealError> {
        self.record(Kind::Error, &record::encode_error(code))
    }

    /// The end: `receipt` is called with the hash of all that was sealed before.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn end(mut self, receipt: impl FnOnce(Sha256Digest) -> SignedReceipt) -> Result<Vec<u8>, SealError> {
        self.progress.after(Kind::End).ok_or(SealError)?;
        if self.missing_dummies() != 0 {
            return Err(SealError);
        }
        let size = if self.padding.is_on() { END_RECORD } else { 0 };
        let receipt = receipt(self.hash.finish()).to_bytes();
        let mut plaintext = record::encode(Kind::End, &receipt, size)?;
        let mut out = Vec::with_capacity(plaintext.len() + 32);
        self.cipher.seal(&mut plaintext, true, &mut out)?;
        Ok(out)
    }

    /// Seals any plaintext as a chunk, in any order: for answers that have to be refused.
    #[cfg(test)]
    pub(crate) fn raw(&mut self, plaintext: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.cipher.seal_any(&mut plaintext.to_vec(), last, &mut out).unwrap();
        if !last {
            self.hash.update(&out);
        }
        out
    }

    /// Hash of what was sealed so far.
    #[cfg(test)]
    pub(crate) fn hash(&self) -> Sha256Digest {
        self.hash.clone().finish()
    }

    fn record(&mut self, kind: Kind, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let progress = self.progress.after(kind).ok_or(SealError)?;
        let mut plaintext: Zeroizing<Vec<u8>> = record::encode(kind, payload, usize::from(self.padding.record_size))?;
        let mut out = Vec::with_capacity(plaintext.len() + 32);
        self.cipher.seal(&mut plaintext, false, &mut out)?;
        self.hash.update(&out);
        self.records = self.records.saturating_add(1);
        self.progress = progress;
        Ok(out)
    }
}
