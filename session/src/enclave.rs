//! The enclave's side of M1: each step consumes the one before, in the order that the protocol demands.
//!
//! [`WindowKeys::find`](crate::window::WindowKeys::find) -> lease permit (the caller's) ->
//! [`WindowKeys::open`](crate::window::WindowKeys::open) -> [`AwaitingAuth`] -> [`Claimed`] -> [`AwaitingBody`] ->
//! [`OpenedRequest`].

use cloister_attestation::{
    IdentityKey, PolicyHash, Sha256Digest, UnixTime,
    identity::{SIGNATURE_LEN, sha256},
};
use zeroize::Zeroizing;

use crate::{
    Malformed,
    chunk::{ChunkCipher, Deframer},
    client::REQUEST_KIND,
    credential::{SaltScope, SignedCredential, VerifiedCredential},
    ids::{HeaderHash, KeyId, RequestId, TenantId, TenantRef, tenant_ref},
    inner::{ApiPath, InnerRequest},
    key_config::PaddingProfile,
    limits::{FIRST_CHUNK_UNIT, MAX_CHUNK},
    outer::{Header, OuterRequest},
    response::{ResponseSealer, SealError},
    suite::{self, CryptoError, Dek, Exporter},
    transcript::Transcript,
};

/// A request that is not opened. Carries no reason: whatever is outside must not be able to tell one from another.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("refused")]
pub struct Refused {
    #[cfg(test)]
    pub(crate) reason: Reason,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refused")
    }
}

/// Why: known to the tests of this crate alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    NotLive,
    OtherModel,
    UnknownKey,
    WindowEnded,
    Wrap,
    Commitment,
    Framing,
    AfterFailure,
    Chunk,
    FirstChunk,
    Credential,
    TenantRef,
    ModelNotAllowed,
    Length,
    MemberSignature,
    Inner,
}

impl From<Reason> for Refused {
    #[cfg_attr(not(test), expect(unused_variables, reason = "the reason does not leave this crate"))]
    fn from(reason: Reason) -> Self {
        Self {
            #[cfg(test)]
            reason,
        }
    }
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Reason::Framing.into()
    }
}

impl From<CryptoError> for Refused {
    fn from(_: CryptoError) -> Self {
        Reason::Chunk.into()
    }
}

/// Everything about the request that later steps need.
struct Context {
    header: Header,
    header_hash: HeaderHash,
    key_id: KeyId,
    exporter: Exporter,
    padding: PaddingProfile,
    cipher: ChunkCipher,
    deframer: Deframer,
    hash: Transcript,
}

/// The wrap is open and the DEK is the one that the header commits to; no chunk has been read.
pub struct AwaitingAuth(Context);

impl AwaitingAuth {
    pub(crate) fn new(
        outer: &OuterRequest,
        key_id: KeyId,
        dek: &Dek,
        exporter: Exporter,
        padding: PaddingProfile,
    ) -> Result<Self, Refused> {
        let header_hash = outer.header_hash();
        let prk = suite::request_prk(&header_hash, dek);
        Ok(Self(Context {
            header: outer.header().clone(),
            header_hash,
            key_id,
            exporter,
            padding,
            cipher: ChunkCipher::new(&prk, b"cloister/v1 request key", b"cloister/v1 request nonce")?,
            deframer: Deframer::default(),
            hash: Transcript::request(outer.header_bytes()),
        }))
    }

    /// Takes bytes after the outer part, until the first chunk is whole.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn push(mut self, bytes: &[u8]) -> Result<AuthStep, Refused> {
        self.0.deframer.push(bytes)?;
        let Some(frame) = self.0.deframer.next()? else {
            // The first chunk is never the final one: no more bytes can complete it.
            return if self.0.deframer.in_final() {
                Err(Reason::Framing.into())
            } else {
                Ok(AuthStep::More(self))
            };
        };
        let plaintext = self.0.cipher.open(frame.ciphertext(), false)?;
        self.0.hash.update(&frame.bytes);
        let claims = Claims::parse(&plaintext).ok_or(Reason::FirstChunk)?;
        Ok(AuthStep::Claimed(Claimed {
            context: self.0,
            claims,
        }))
    }
}

/// Outcome of [`AwaitingAuth::push`].
#[expect(
    clippy::large_enum_variant,
    reason = "moved once per read of a request that is being opened"
)]
pub enum AuthStep {
    /// The first chunk is not whole yet.
    More(AwaitingAuth),
    /// It is.
    Claimed(Claimed),
}

/// What the first chunk says.
struct Claims {
    tenant: TenantId,
    credential: SignedCredential,
    policy: PolicyHash,
    signature: [u8; SIGNATURE_LEN],
}

impl Claims {
    fn parse(plaintext: &[u8]) -> Option<Self> {
        let (tenant, rest) = plaintext.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (credential, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (policy, rest) = rest.split_first_chunk::<32>()?;
        let (signature, padding) = rest.split_first_chunk::<SIGNATURE_LEN>()?;
        // One form for each request: no more padding than it needs, and nothing in it.
        let padded = padding.len() < FIRST_CHUNK_UNIT && plaintext.len().is_multiple_of(FIRST_CHUNK_UNIT);
        if !padded || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(Self {
            tenant: TenantId::from_bytes(*tenant),
            credential: SignedCredential::parse(credential).ok()?,
            policy: PolicyHash::from_bytes(*policy),
            signature: *signature,
        })
    }
}

/// The first chunk is open; nothing it claims has been checked.
pub struct Claimed {
    context: Context,
    claims: Claims,
}

impl Claimed {
    /// Checks the credential, that it is of the tenant that the chunk and the header name, and that it allows the model.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(self, now: UnixTime, cluster_id: &str) -> Result<AwaitingBody, Refused> {
        let Self { context, claims } = self;
        let credential = claims
            .credential
            .verify(now, cluster_id)
            .map_err(|_| Reason::Credential)?;
        let tenant = credential.tenant();
        if tenant != claims.tenant || tenant_ref(cluster_id, &tenant) != context.header.tenant_ref {
            return Err(Reason::TenantRef.into());
        }
        if !credential.allows(&context.header.model) {
            return Err(Reason::ModelNotAllowed.into());
        }
        // Reserved once: a buffer that grows would leave copies of the plaintext behind.
        let padded = Zeroizing::new(Vec::with_capacity(context.header.bucket.size()));
        Ok(AwaitingBody {
            context,
            credential,
            policy: claims.policy,
            signature: claims.signature,
            padded,
            failed: false,
        })
    }
}

/// The tenant is known; the body is being read.
pub struct AwaitingBody {
    context: Context,
    credential: VerifiedCredential,
    policy: PolicyHash,
    signature: [u8; SIGNATURE_LEN],
    padded: Zeroizing<Vec<u8>>,
    failed: bool,
}

impl AwaitingBody {
    /// The tenant: what the lease's epoch is held against.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.credential.tenant()
    }

    /// Takes further bytes. After an error nothing opens any more.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.check_not_failed()?;
        let outcome = self.take(bytes);
        self.failed = outcome.is_err();
        outcome
    }

    fn check_not_failed(&self) -> Result<(), Refused> {
        if self.failed {
            Err(Reason::AfterFailure.into())
        } else {
            Ok(())
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.context.deframer.push(bytes)?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Refused> {
        while let Some(frame) = self.context.deframer.next()? {
            let plaintext = self.context.cipher.open(frame.ciphertext(), false)?;
            if plaintext.len() != MAX_CHUNK {
                return Err(Reason::Length.into());
            }
            self.context.hash.update(&frame.bytes);
            self.append(&plaintext)?;
        }
        Ok(())
    }

    fn append(&mut self, plaintext: &[u8]) -> Result<(), Refused> {
        if self.padded.len().saturating_add(plaintext.len()) > self.context.header.bucket.size() {
            return Err(Reason::Length.into());
        }
        self.padded.extend_from_slice(plaintext);
        Ok(())
    }

    /// The upload has ended: opens the final chunk, checks the length and the member's signature, reads the message.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn finish(mut self) -> Result<OpenedRequest, Refused> {
        self.check_not_failed()?;
        self.drain()?;
        let frame = std::mem::take(&mut self.context.deframer).finish()?;
        let plaintext = self.context.cipher.open(frame.ciphertext(), true)?;
        self.context.hash.update(&frame.bytes);
        self.append(&plaintext)?;
        if self.padded.len() != self.context.header.bucket.size() {
            return Err(Reason::Length.into());
        }
        let proof = [
            self.context.header_hash.as_bytes().as_slice(),
            sha256(&[&self.padded]).as_bytes(),
        ]
        .concat();
        let member = self.credential.claims().member;
        member
            .verify(REQUEST_KIND, &proof, &self.signature)
            .map_err(|_| Reason::MemberSignature)?;
        let (path, body) = InnerRequest::decode(&self.padded).map_err(|_| Reason::Inner)?;
        let context = self.context;
        Ok(OpenedRequest {
            header: context.header,
            header_hash: context.header_hash,
            key_id: context.key_id,
            exporter: context.exporter,
            padding: context.padding,
            tenant: self.credential.tenant(),
            member,
            salt_scope: self.credential.claims().salt_scope,
            policy: self.policy,
            request_hash: context.hash.finish(),
            path,
            padded: self.padded,
            body,
        })
    }
}

/// A request that is authenticated to its last byte. It has not been held against the replay cache yet.
pub struct OpenedRequest {
    header: Header,
    header_hash: HeaderHash,
    key_id: KeyId,
    exporter: Exporter,
    padding: PaddingProfile,
    tenant: TenantId,
    member: IdentityKey,
    salt_scope: SaltScope,
    policy: PolicyHash,
    request_hash: Sha256Digest,
    path: ApiPath,
    padded: Zeroizing<Vec<u8>>,
    body: std::ops::Range<usize>,
}

impl OpenedRequest {
    /// Path of the API.
    #[must_use]
    pub const fn path(&self) -> ApiPath {
        self.path
    }

    /// The tenant's reference, as the header names it.
    pub(crate) const fn tenant_ref(&self) -> &TenantRef {
        &self.header.tenant_ref
    }

    /// The client's JSON.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.padded.get(self.body.clone()).unwrap_or_default()
    }

    /// Name of the request.
    #[must_use]
    pub const fn request_id(&self) -> RequestId {
        self.header.request_id
    }

    /// Hash of the header: with the tenant, what the replay cache knows the request by.
    #[must_use]
    pub const fn header_hash(&self) -> HeaderHash {
        self.header_hash
    }

    /// Key that opened it.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Key of the member who asks.
    #[must_use]
    pub const fn member(&self) -> IdentityKey {
        self.member
    }

    /// Cache sharing inside the tenant.
    #[must_use]
    pub const fn salt_scope(&self) -> SaltScope {
        self.salt_scope
    }

    /// Policy that the client states.
    #[must_use]
    pub const fn policy(&self) -> PolicyHash {
        self.policy
    }

    /// Hash of header and chunks as received.
    #[must_use]
    pub const fn request_hash(&self) -> Sha256Digest {
        self.request_hash
    }

    /// An answer in any candidate's name, with a nonce that is given: what a lying enclave can make.
    #[cfg(test)]
    pub(crate) fn respond_with(&self, key_id: &KeyId, nonce: &[u8; 32]) -> (ResponseSealer, Vec<u8>) {
        ResponseSealer::with_nonce(&self.exporter, &self.header_hash, key_id, self.padding, nonce).unwrap()
    }

    /// Starts the answer: what seals it, and its first bytes.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn respond(&self) -> Result<(ResponseSealer, Vec<u8>), SealError> {
        ResponseSealer::new(&self.exporter, &self.header_hash, &self.key_id, self.padding)
    }
}
