//! Receipts: what the enclave signs of a request that it answered.

use cloister_attestation::{
    BootId, EnclaveId, IdentityKey, ModelDigest, PolicyHash, Sha256Digest, Tee, UnixTime, WorkloadDigest, cbor,
    identity::SIGNATURE_LEN,
};
use minicbor::{Decode, Encode};

use crate::{
    Malformed,
    ids::{KeyId, RequestId, TenantId},
    limits::END_RECORD,
    record::capacity,
    signing::SigningKey,
};

const KIND: &str = "receipt";
const WHAT: Malformed = Malformed(KIND);

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was sealed.
    Complete,
    /// It ended with a sealed error.
    Error,
}

/// What the enclave says of one answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Kind of trusted execution environment.
    pub tee: Tee,
    /// The request.
    pub request_id: RequestId,
    /// When the answer ended.
    pub issued_at: UnixTime,
    /// The enclave.
    pub enclave_id: EnclaveId,
    /// Its boot.
    pub boot_id: BootId,
    /// Lease epoch within the boot.
    pub epoch: u64,
    /// Key that opened the request.
    pub key_id: KeyId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The model.
    pub model: ModelDigest,
    /// What the enclave runs.
    pub workload: WorkloadDigest,
    /// Last check of the enclave's own GPUs; 0: it has none.
    pub gpu_checked_at: UnixTime,
    /// Policy that the client stated.
    pub policy: PolicyHash,
    /// Tenants admitted in the epoch, as the enclave counted.
    pub distinct_tenants: u32,
    /// Hash of the scrub proof that opened the epoch.
    pub scrub_proof: Sha256Digest,
    /// Answers of this epoch, counted from 1.
    pub sequence: u64,
    /// Total tokens, rounded up to a power of two.
    pub usage_bucket: u64,
    /// Hash of M1's header and chunks as sent.
    pub request_hash: Sha256Digest,
    /// Hash of M2 before the final chunk.
    pub response_hash: Sha256Digest,
    /// How it ended.
    pub outcome: Outcome,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u8,
    #[n(1)]
    tee: String,
    #[n(2)]
    request_id: RequestId,
    #[n(3)]
    issued_at: UnixTime,
    #[n(4)]
    enclave_id: EnclaveId,
    #[n(5)]
    boot_id: BootId,
    #[n(6)]
    epoch: u64,
    #[n(7)]
    key_id: KeyId,
    #[n(8)]
    tenant_id: TenantId,
    #[n(9)]
    model: ModelDigest,
    #[n(10)]
    workload: WorkloadDigest,
    #[n(11)]
    gpu_checked_at: UnixTime,
    #[n(12)]
    policy: PolicyHash,
    #[n(13)]
    distinct_tenants: u32,
    #[n(14)]
    scrub_proof: Sha256Digest,
    #[n(15)]
    sequence: u64,
    #[n(16)]
    usage_bucket: u64,
    #[n(17)]
    request_hash: Sha256Digest,
    #[n(18)]
    response_hash: Sha256Digest,
    #[n(19)]
    outcome: String,
}

/// Total tokens rounded up to a power of two; 0 stays 0.
#[must_use]
pub fn usage_bucket(total_tokens: u64) -> u64 {
    if total_tokens == 0 {
        0
    } else {
        total_tokens.checked_next_power_of_two().unwrap_or(u64::MAX)
    }
}

impl Receipt {
    /// Signs with the enclave's identity key, twice: as an object of this protocol and as COSE_Sign1.
    #[must_use]
    pub fn sign(&self, identity: &SigningKey) -> SignedReceipt {
        let payload = cbor::encode(&Wire {
            version: 1,
            tee: self.tee.as_str().to_owned(),
            request_id: self.request_id,
            issued_at: self.issued_at,
            enclave_id: self.enclave_id,
            boot_id: self.boot_id,
            epoch: self.epoch,
            key_id: self.key_id,
            tenant_id: self.tenant_id,
            model: self.model,
            workload: self.workload,
            gpu_checked_at: self.gpu_checked_at,
            policy: self.policy,
            distinct_tenants: self.distinct_tenants,
            scrub_proof: self.scrub_proof,
            sequence: self.sequence,
            usage_bucket: self.usage_bucket,
            request_hash: self.request_hash,
            response_hash: self.response_hash,
            outcome: match self.outcome {
                Outcome::Complete => "complete",
                Outcome::Error => "error",
            }
            .to_owned(),
        });
        SignedReceipt::of_payload(payload, identity)
    }
}

fn parse(payload: &[u8]) -> Result<Receipt, Malformed> {
    let wire: Wire = cbor::decode(KIND, payload).map_err(|_| WHAT)?;
    if wire.version != 1 {
        return Err(WHAT);
    }
    Ok(Receipt {
        tee: wire.tee.parse().map_err(|_| WHAT)?,
        request_id: wire.request_id,
        issued_at: wire.issued_at,
        enclave_id: wire.enclave_id,
        boot_id: wire.boot_id,
        epoch: wire.epoch,
        key_id: wire.key_id,
        tenant_id: wire.tenant_id,
        model: wire.model,
        workload: wire.workload,
        gpu_checked_at: wire.gpu_checked_at,
        policy: wire.policy,
        distinct_tenants: wire.distinct_tenants,
        scrub_proof: wire.scrub_proof,
        sequence: wire.sequence,
        usage_bucket: wire.usage_bucket,
        request_hash: wire.request_hash,
        response_hash: wire.response_hash,
        outcome: match wire.outcome.as_str() {
            "complete" => Outcome::Complete,
            "error" => Outcome::Error,
            _ => return Err(WHAT),
        },
    })
}

/// A receipt as received: `[payload, signature, COSE signature]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    payload: Vec<u8>,
    signature: [u8; SIGNATURE_LEN],
    cose_signature: [u8; SIGNATURE_LEN],
}

#[derive(Encode, Decode)]
struct SignedWire {
    #[cbor(n(0), with = "minicbor::bytes")]
    payload: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; SIGNATURE_LEN],
    #[cbor(n(2), with = "minicbor::bytes")]
    cose_signature: [u8; SIGNATURE_LEN],
}

/// Protected header `{1: -8}`: EdDSA (RFC 9053 section 2.2).
const COSE_PROTECTED: [u8; 3] = [0xa1, 0x01, 0x27];

#[derive(Encode)]
struct SigStructure<'a> {
    #[n(0)]
    context: &'a str,
    #[cbor(n(1), with = "minicbor::bytes")]
    protected: &'a [u8],
    #[cbor(n(2), with = "minicbor::bytes")]
    external_aad: &'a [u8],
    #[cbor(n(3), with = "minicbor::bytes")]
    payload: &'a [u8],
}

/// `Sig_structure` (RFC 9052 section 4.4).
fn cose_to_be_signed(payload: &[u8]) -> Vec<u8> {
    cbor::encode(&SigStructure {
        context: "Signature1",
        protected: &COSE_PROTECTED,
        external_aad: &[],
        payload,
    })
}

impl SignedReceipt {
    pub(crate) fn of_payload(payload: Vec<u8>, identity: &SigningKey) -> Self {
        Self {
            signature: identity.sign(KIND, &payload),
            cose_signature: identity.sign_raw(&cose_to_be_signed(&payload)),
            payload,
        }
    }

    /// The signed bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Parses the outer form.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > capacity(END_RECORD) {
            return Err(WHAT);
        }
        let wire: SignedWire = cbor::decode(KIND, bytes).map_err(|_| WHAT)?;
        Ok(Self {
            payload: wire.payload,
            signature: wire.signature,
            cose_signature: wire.cose_signature,
        })
    }

    /// The encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(&SignedWire {
            payload: self.payload.clone(),
            signature: self.signature,
            cose_signature: self.cose_signature,
        })
    }

    /// The receipt as a tagged COSE_Sign1 message (RFC 9052 section 4.2), for other tools.
    #[must_use]
    pub fn to_cose(&self) -> Vec<u8> {
        // Tag 18, array of four, protected header, empty unprotected header.
        let mut out = vec![0xd2, 0x84];
        for part in [COSE_PROTECTED.as_slice(), &[], &self.payload, &self.cose_signature] {
            if part.is_empty() {
                out.push(0xa0);
            } else {
                out.extend_from_slice(&cbor::encode(&minicbor::bytes::ByteVec::from(part.to_vec())));
            }
        }
        out
    }

    /// Checks both signatures.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(&self, identity: &IdentityKey) -> Result<Receipt, ReceiptError> {
        let receipt = parse(&self.payload)?;
        identity
            .verify(KIND, &self.payload, &self.signature)
            .map_err(|_| ReceiptError::Signature)?;
        identity
            .verify_raw(&cose_to_be_signed(&self.payload), &self.cose_signature)
            .map_err(|_| ReceiptError::Signature)?;
        Ok(receipt)
    }
}

/// Why a receipt does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not a receipt.
    #[error("malformed receipt")]
    Malformed,
    /// Not signed by the enclave.
    #[error("the receipt is not signed by the enclave")]
    Signature,
    /// It speaks of another request, key, enclave, model, tenant or policy.
    #[error("the receipt is of another request")]
    OtherRequest,
    /// It speaks of another answer.
    #[error("the receipt is of another answer")]
    OtherResponse,
    /// It does not say that one tenant was served.
    #[error("the receipt does not say that the epoch had one tenant")]
    NotExclusive,
}

impl From<Malformed> for ReceiptError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}
