//! The enclave's side of M2: seals the records of an answer.

use aws_lc_rs::{digest, hkdf};
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
    record::{self, ErrorCode, Kind, capacity},
    suite::{CryptoError, Exporter},
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

/// Running hash of M2 before its final chunk.
pub(crate) struct ResponseHash(digest::Context);

impl ResponseHash {
    pub(crate) fn new() -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"cloister/v1 response-hash");
        Self(context)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Sha256Digest {
        let mut out = [0u8; 32];
        out.iter_mut()
            .zip(self.0.finish().as_ref())
            .for_each(|(to, from)| *to = *from);
        Sha256Digest::from_bytes(out)
    }
}

/// A record cannot be sealed: the answer is cut here.
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
pub struct ResponseSealer {
    cipher: ChunkCipher,
    hash: ResponseHash,
    padding: PaddingProfile,
    records: u64,
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
        let cipher = response_cipher(exporter, header, key_id, &nonce)?;
        let prefix = [&[VERSION], key_id.as_bytes().as_slice(), &nonce].concat();
        let mut hash = ResponseHash::new();
        hash.update(&prefix);
        Ok((
            Self {
                cipher,
                hash,
                padding,
                records: 0,
            },
            prefix,
        ))
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
        let bucket = u64::from(self.padding.count_bucket).max(1);
        if self.padding.is_on() {
            self.records.next_multiple_of(bucket).saturating_sub(self.records)
        } else {
            0
        }
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
        self.record(Kind::Data, piece)
    }

    /// A record without content; only with padding on.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn dummy(&mut self) -> Result<Vec<u8>, SealError> {
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
        let size = if self.padding.is_on() { END_RECORD } else { 0 };
        let receipt = receipt(self.hash.finish()).to_bytes();
        let mut plaintext = record::encode(Kind::End, &receipt, size)?;
        let mut out = Vec::with_capacity(plaintext.len() + 32);
        self.cipher.seal(&mut plaintext, true, &mut out)?;
        Ok(out)
    }

    fn record(&mut self, kind: Kind, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut plaintext: Zeroizing<Vec<u8>> = record::encode(kind, payload, usize::from(self.padding.record_size))?;
        let mut out = Vec::with_capacity(plaintext.len() + 32);
        self.cipher.seal(&mut plaintext, false, &mut out)?;
        self.hash.update(&out);
        self.records = self.records.saturating_add(1);
        Ok(out)
    }
}
