//! The client's side of M1: seals a request to its candidates.

use cloister_attestation::{
    PolicyHash, UnixTime,
    identity::{SIGNATURE_LEN, sha256},
};
use zeroize::Zeroizing;

use crate::{
    chunk::ChunkCipher,
    credential::SignedCredential,
    ids::{HeaderHash, KeyId, RequestId, TenantId},
    inner::InnerRequest,
    key_config::VerifiedKeyConfig,
    limits::{DEK_LEN, FIRST_CHUNK_UNIT, MAX_CHUNK, MAX_TTL, MAX_WRAPS, TAG_LEN, VERSION},
    opener::{Candidate, Expected, ResponseOpener},
    outer::Header,
    signing::SigningKey,
    suite::{self, CryptoError, Dek},
    transcript::Transcript,
};

/// Kind under which a member signs a request.
pub(crate) const REQUEST_KIND: &str = "request";

/// Everything that a request is sealed from.
pub struct SealRequest<'a> {
    /// Candidates in order of preference, 1 to 4, all of the same tenant and model.
    pub candidates: &'a [VerifiedKeyConfig],
    /// The tenant, as the credential names it.
    pub tenant: TenantId,
    /// The member's credential.
    pub credential: &'a SignedCredential,
    /// The member's key.
    pub member: &'a SigningKey,
    /// Canonical hash of the policy under which the candidates were appraised.
    pub policy: PolicyHash,
    /// Now.
    pub created: UnixTime,
    /// Seconds in which the request may be opened, 1 to 120.
    pub ttl: u32,
    /// What is asked.
    pub inner: &'a InnerRequest,
}

/// Why a request cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealRequestError {
    /// None, too many, repeated, or of different tenants or models.
    #[error("a request names 1 to 4 different candidates of one tenant and one model")]
    Candidates,
    /// A candidate's key, or the evidence behind it, is not live when the request is made.
    #[error("a candidate's key or evidence is out of date: get its current key and evidence")]
    NotLive,
    /// Time to live outside 1..=120 s.
    #[error("the time to live of a request is 1 to 120 seconds")]
    Ttl,
    /// Larger than 8 MiB.
    #[error("the request is larger than 8 MiB")]
    TooLarge,
    /// A cryptographic operation failed.
    #[error("the request cannot be sealed: a cryptographic operation failed")]
    Crypto,
}

impl From<CryptoError> for SealRequestError {
    fn from(_: CryptoError) -> Self {
        Self::Crypto
    }
}

/// A request ready to be sent: M1.
pub struct SealedRequest {
    /// All of M1.
    pub bytes: Vec<u8>,
    /// Its random name.
    pub request_id: RequestId,
}

/// Seals a request and makes what opens its answer.
///
/// # Errors
/// [`SealRequestError`].
pub fn seal(request: &SealRequest<'_>) -> Result<(SealedRequest, ResponseOpener), SealRequestError> {
    let mut dek: Dek = Zeroizing::new([0; DEK_LEN]);
    let mut request_id = [0u8; 16];
    aws_lc_rs::rand::fill(dek.as_mut_slice()).map_err(|_| SealRequestError::Crypto)?;
    aws_lc_rs::rand::fill(&mut request_id).map_err(|_| SealRequestError::Crypto)?;
    seal_with(request, RequestId::from_bytes(request_id), &dek)
}

/// As [`seal`] with a given name and key, which must be used once.
pub(crate) fn seal_with(
    request: &SealRequest<'_>,
    request_id: RequestId,
    dek: &Dek,
) -> Result<(SealedRequest, ResponseOpener), SealRequestError> {
    let first = check_candidates(request)?.config();
    if !(1..=MAX_TTL).contains(&request.ttl) {
        return Err(SealRequestError::Ttl);
    }
    let (padded, bucket) = request.inner.encode().map_err(|_| SealRequestError::TooLarge)?;
    let header = Header {
        request_id,
        created: request.created,
        ttl: request.ttl,
        tenant_ref: first.tenant_ref,
        model: first.model,
        bucket,
        dek_commit: suite::dek_commit(dek)?,
        candidates: request
            .candidates
            .iter()
            .map(|candidate| candidate.config().key_id)
            .collect(),
    };
    let header_bytes = header.to_bytes();
    let header_hash = header.hash();

    let (wraps, candidates) = seal_wraps(request.candidates, &header_hash, dek)?;
    let chunk_bytes = padded.len() + (padded.len() / MAX_CHUNK + 2) * (TAG_LEN + 4) + 1024;
    let mut bytes = Vec::with_capacity(3 + header_bytes.len() + 1 + wraps.len() + chunk_bytes);
    bytes.push(VERSION);
    bytes.extend_from_slice(&(header_bytes.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&header_bytes);
    bytes.push(request.candidates.len() as u8);
    bytes.extend_from_slice(&wraps);
    let chunks_at = bytes.len();
    seal_chunks(request, &header_hash, dek, &padded, &mut bytes)?;

    let mut hash = Transcript::request(&header_bytes);
    hash.update(bytes.get(chunks_at..).unwrap_or_default());
    let expected = Expected {
        request_id: header.request_id,
        tenant: request.tenant,
        model: header.model,
        policy: request.policy,
        header_hash,
        request_hash: hash.finish(),
    };
    Ok((
        SealedRequest {
            bytes,
            request_id: header.request_id,
        },
        ResponseOpener::new(expected, candidates),
    ))
}

fn check_candidates<'a>(request: &SealRequest<'a>) -> Result<&'a VerifiedKeyConfig, SealRequestError> {
    let candidates = request.candidates;
    let first = candidates.first().ok_or(SealRequestError::Candidates)?;
    let mut seen: Vec<KeyId> = Vec::with_capacity(MAX_WRAPS);
    for candidate in candidates {
        let config = candidate.config();
        let same = config.tenant_ref == first.config().tenant_ref && config.model == first.config().model;
        if !same || seen.contains(&config.key_id) || seen.len() == MAX_WRAPS {
            return Err(SealRequestError::Candidates);
        }
        if !candidate.is_live(request.created) {
            return Err(SealRequestError::NotLive);
        }
        seen.push(config.key_id);
    }
    Ok(first)
}

fn seal_wraps(
    candidates: &[VerifiedKeyConfig],
    header: &HeaderHash,
    dek: &Dek,
) -> Result<(Vec<u8>, Vec<Candidate>), SealRequestError> {
    let mut wraps = Vec::new();
    let mut openers = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let (wrap, exporter) = suite::seal_wrap(&candidate.config().public_key, candidate.hash(), header, dek)?;
        wraps.extend_from_slice(candidate.config().key_id.as_bytes());
        wraps.extend_from_slice(&wrap);
        openers.push(Candidate {
            config: candidate.clone(),
            exporter,
        });
    }
    Ok((wraps, openers))
}

/// Plaintext of the first chunk.
fn first_chunk(
    request: &SealRequest<'_>,
    signature: &[u8; SIGNATURE_LEN],
) -> Result<Zeroizing<Vec<u8>>, SealRequestError> {
    let credential = request.credential.to_bytes();
    let length = u16::try_from(credential.len()).map_err(|_| SealRequestError::Crypto)?;
    let mut first = Zeroizing::new(Vec::with_capacity(MAX_CHUNK));
    first.extend_from_slice(request.tenant.as_bytes());
    first.extend_from_slice(&length.to_be_bytes());
    first.extend_from_slice(&credential);
    first.extend_from_slice(request.policy.as_bytes());
    first.extend_from_slice(signature);
    let padded = first.len().next_multiple_of(FIRST_CHUNK_UNIT);
    first.resize(padded, 0);
    Ok(first)
}

fn seal_chunks(
    request: &SealRequest<'_>,
    header: &HeaderHash,
    dek: &Dek,
    padded: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealRequestError> {
    let proof = [header.as_bytes().as_slice(), sha256(&[padded]).as_bytes()].concat();
    let mut first = first_chunk(request, &request.member.sign(REQUEST_KIND, &proof))?;
    let prk = suite::request_prk(header, dek);
    let mut cipher = ChunkCipher::new(&prk, b"cloister/v1 request key", b"cloister/v1 request nonce")?;
    cipher.seal(&mut first, false, out)?;
    let last = padded.len().div_ceil(MAX_CHUNK).saturating_sub(1);
    let mut piece = Zeroizing::new(Vec::with_capacity(MAX_CHUNK));
    for (i, chunk) in padded.chunks(MAX_CHUNK).enumerate() {
        piece.clear();
        piece.extend_from_slice(chunk);
        cipher.seal(&mut piece, i == last, out)?;
    }
    Ok(())
}
