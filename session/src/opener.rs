//! The client's side of M2: opens the records of an answer and checks its receipt.

use cloister_attestation::{ModelDigest, PolicyHash, Sha256Digest};
use zeroize::Zeroizing;

use crate::{
    Malformed,
    chunk::{ChunkCipher, Deframer, Frame},
    ids::{HeaderHash, KeyId, RequestId, TenantId},
    inner::ResponseHead,
    key_config::VerifiedKeyConfig,
    limits::{RESPONSE_PREFIX, VERSION},
    receipt::{Outcome, Receipt, ReceiptError, SignedReceipt},
    record::{self, ErrorCode, Kind, Progress, Record},
    response::response_cipher,
    suite::{CryptoError, Exporter},
    transcript::Transcript,
};

/// One candidate and the HPKE context of its wrap.
pub(crate) struct Candidate {
    pub(crate) config: VerifiedKeyConfig,
    pub(crate) exporter: Exporter,
}

/// What the receipt has to say.
pub(crate) struct Expected {
    pub(crate) request_id: RequestId,
    pub(crate) tenant: TenantId,
    pub(crate) model: ModelDigest,
    pub(crate) policy: PolicyHash,
    pub(crate) header_hash: HeaderHash,
    pub(crate) request_hash: Sha256Digest,
}

/// What an authenticated record says.
pub enum Event {
    /// Status and media type; first, once.
    Head(ResponseHead),
    /// Bytes of the body.
    Data(Zeroizing<Vec<u8>>),
    /// The answer failed.
    Error(ErrorCode),
}

/// Why an answer is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Truncated, reordered, forged, from another candidate or for another request: nothing tells which.
    #[error("the answer is truncated or was not sealed by the chosen enclave")]
    Forged,
    /// The receipt is wrong.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

impl From<Malformed> for OpenError {
    fn from(_: Malformed) -> Self {
        Self::Forged
    }
}

impl From<CryptoError> for OpenError {
    fn from(_: CryptoError) -> Self {
        Self::Forged
    }
}

/// How an answer ended, with its receipt checked.
pub struct Ended {
    /// What the enclave says of it.
    pub receipt: Receipt,
    /// As signed.
    pub signed: SignedReceipt,
    /// Key that answered.
    pub key_id: KeyId,
}

/// Opens one answer. Feed it with [`push`](Self::push); success is only what [`finish`](Self::finish) returns.
pub struct ResponseOpener {
    expected: Expected,
    candidates: Vec<Candidate>,
    prefix: Vec<u8>,
    deframer: Deframer,
    open: Option<Open>,
    progress: Progress,
    failed: bool,
}

/// The chosen candidate, once the prefix of M2 has arrived.
struct Open {
    cipher: ChunkCipher,
    hash: Transcript,
    config: VerifiedKeyConfig,
    records: u64,
}

impl ResponseOpener {
    pub(crate) fn new(expected: Expected, candidates: Vec<Candidate>) -> Self {
        Self {
            expected,
            candidates,
            prefix: Vec::with_capacity(RESPONSE_PREFIX),
            deframer: Deframer::default(),
            open: None,
            progress: Progress::default(),
            failed: false,
        }
    }

    /// Takes bytes of M2 as they arrive and returns what they say. After an error nothing opens any more, and what was
    /// authenticated of the same bytes is not handed out: feed it in small pieces where every byte of a cut answer counts.
    ///
    /// # Errors
    /// [`OpenError::Forged`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, OpenError> {
        if self.failed {
            return Err(OpenError::Forged);
        }
        let outcome = self.push_inner(bytes);
        self.failed = outcome.is_err();
        outcome
    }

    fn push_inner(&mut self, bytes: &[u8]) -> Result<Vec<Event>, OpenError> {
        let missing = RESPONSE_PREFIX.saturating_sub(self.prefix.len()).min(bytes.len());
        let (head, rest) = bytes.split_at_checked(missing).ok_or(OpenError::Forged)?;
        self.prefix.extend_from_slice(head);
        if self.prefix.len() < RESPONSE_PREFIX {
            return Ok(Vec::new());
        }
        if self.open.is_none() {
            self.open = Some(self.choose()?);
        }
        let mut events = Vec::new();
        self.deframer.push(rest)?;
        while let Some(frame) = self.deframer.next()? {
            if let Some(event) = self.open_record(&frame)? {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Finds the candidate that the prefix names.
    fn choose(&mut self) -> Result<Open, OpenError> {
        let rest = self.prefix.strip_prefix(&[VERSION]).ok_or(OpenError::Forged)?;
        let (key_id, nonce) = rest.split_at_checked(16).ok_or(OpenError::Forged)?;
        let key_id = KeyId::try_from(key_id).map_err(|_| OpenError::Forged)?;
        let nonce = <[u8; 32]>::try_from(nonce).map_err(|_| OpenError::Forged)?;
        let at = self
            .candidates
            .iter()
            .position(|candidate| candidate.config.config().key_id == key_id)
            .ok_or(OpenError::Forged)?;
        let chosen = self.candidates.swap_remove(at);
        // The other candidates' contexts are of no use any more.
        self.candidates.clear();
        let cipher = response_cipher(&chosen.exporter, &self.expected.header_hash, &key_id, &nonce)?;
        Ok(Open {
            cipher,
            hash: Transcript::response(&self.prefix),
            config: chosen.config,
            records: 0,
        })
    }

    fn open_record(&mut self, frame: &Frame) -> Result<Option<Event>, OpenError> {
        let open = self.open.as_mut().ok_or(OpenError::Forged)?;
        let plaintext = open.cipher.open(frame.ciphertext(), false)?;
        open.hash.update(&frame.bytes);
        open.records = open.records.saturating_add(1);
        let size = usize::from(open.config.config().padding.record_size);
        let record = record::decode(&plaintext, size, false)?;
        self.progress = self.progress.after(record.kind()).ok_or(OpenError::Forged)?;
        Ok(match record {
            Record::Head(head) => Some(Event::Head(head)),
            Record::Data(data) => Some(Event::Data(data)),
            Record::Error(code) => Some(Event::Error(code)),
            Record::Dummy | Record::End(_) => None,
        })
    }

    /// The stream has ended: opens the final chunk and checks the receipt against all that was sent and received.
    ///
    /// # Errors
    /// [`OpenError`]; a short answer is one.
    pub fn finish(self) -> Result<Ended, OpenError> {
        let (false, Some(mut open)) = (self.failed, self.open) else {
            return Err(OpenError::Forged);
        };
        let frame = self.deframer.finish()?;
        let plaintext = open.cipher.open(frame.ciphertext(), true)?;
        let padding = open.config.config().padding;
        let Record::End(signed) = record::decode(&plaintext, usize::from(padding.record_size), true)? else {
            return Err(OpenError::Forged);
        };
        let progress = self.progress.after(Kind::End).ok_or(OpenError::Forged)?;
        if padding.missing_records(open.records) != 0 {
            return Err(OpenError::Forged);
        }
        let signed = SignedReceipt::parse(&signed).map_err(ReceiptError::from)?;
        let receipt = signed.verify(open.config.identity())?;
        let outcome = if progress == Progress::Error {
            Outcome::Error
        } else {
            Outcome::Complete
        };
        check_receipt(&receipt, &self.expected, &open.config, outcome)?;
        if receipt.response_hash != open.hash.finish() {
            return Err(ReceiptError::OtherResponse.into());
        }
        Ok(Ended {
            receipt,
            signed,
            key_id: open.config.config().key_id,
        })
    }
}

fn check_receipt(
    receipt: &Receipt,
    expected: &Expected,
    candidate: &VerifiedKeyConfig,
    outcome: Outcome,
) -> Result<(), ReceiptError> {
    let config = candidate.config();
    let same = receipt.request_id == expected.request_id
        && receipt.request_hash == expected.request_hash
        && receipt.tenant_id == expected.tenant
        && receipt.policy == expected.policy
        && receipt.model == expected.model
        && receipt.key_id == config.key_id
        && receipt.enclave_id == config.enclave_id
        && receipt.boot_id == config.boot_id
        && receipt.workload == config.workload
        && receipt.tee == config.tee;
    if !same {
        return Err(ReceiptError::OtherRequest);
    }
    if receipt.outcome != outcome {
        return Err(ReceiptError::OtherResponse);
    }
    if receipt.distinct_tenants != 1 {
        return Err(ReceiptError::NotExclusive);
    }
    Ok(())
}
