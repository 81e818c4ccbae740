//! M0: the key of one tenant in one window of one enclave, signed by that enclave.

use cloister_attestation::{
    AttestedPeer, BootId, EnclaveId, IdentityKey, ModelDigest, SwitchIsolation, Tee, UnixTime, WorkloadDigest, cbor,
    identity::sha256,
};
use minicbor::{Decode, Encode};

use crate::{
    Malformed,
    ids::{KeyId, TenantRef},
    limits::{MAX_CHUNK, MAX_NAME, MIN_RECORD, PUBLIC_KEY_LEN},
    signing::{SignedObject, SigningKey},
    suite::{self, PublicKeyBytes},
};

const KIND: &str = "key-config";

/// How answers are padded; measured configuration of the enclave, the same for every tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PaddingProfile {
    /// Bytes of every record before the end, 256 to 16384; 0: padding is off.
    #[n(0)]
    pub record_size: u16,
    /// Milliseconds between two records of a stream, 1 to 1000.
    #[n(1)]
    pub tick_millis: u16,
    /// The number of records before the end is a multiple of this, 1 to 1024.
    #[n(2)]
    pub count_bucket: u16,
}

impl PaddingProfile {
    /// No padding: sizes and timing of an answer are visible.
    pub const OFF: Self = Self {
        record_size: 0,
        tick_millis: 1,
        count_bucket: 1,
    };
    /// The default.
    pub const DEFAULT: Self = Self {
        record_size: 1024,
        tick_millis: 20,
        count_bucket: 16,
    };

    /// Whether records are padded.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.record_size != 0
    }

    /// Dummies that are missing after `records` until their count is a multiple of the bucket; none with padding off.
    pub(crate) fn missing_records(&self, records: u64) -> u64 {
        let bucket = u64::from(self.count_bucket).max(1);
        if self.is_on() {
            records.next_multiple_of(bucket).saturating_sub(records)
        } else {
            0
        }
    }

    /// Whether every number is inside its bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let size = usize::from(self.record_size);
        (size == 0 || (MIN_RECORD..=MAX_CHUNK).contains(&size))
            && (1..=1000).contains(&self.tick_millis)
            && (1..=1024).contains(&self.count_bucket)
    }
}

/// What an enclave says of one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// Kind of trusted execution environment.
    pub tee: Tee,
    /// Name of the key.
    pub key_id: KeyId,
    /// Public key of the KEM.
    pub public_key: Box<PublicKeyBytes>,
    /// The enclave.
    pub enclave_id: EnclaveId,
    /// Its boot.
    pub boot_id: BootId,
    /// Tenant for whom the key is.
    pub tenant_ref: TenantRef,
    /// Model that the enclave serves.
    pub model: ModelDigest,
    /// Name under which the engine serves it.
    pub served_model_name: String,
    /// What the enclave runs.
    pub workload: WorkloadDigest,
    /// How the engine is cleaned between tenants.
    pub switch_isolation: SwitchIsolation,
    /// Number of the window since boot.
    pub window: u64,
    /// First second in which a client may seal to it.
    pub not_before: UnixTime,
    /// First second in which it may not any more.
    pub not_after: UnixTime,
    /// How answers are padded.
    pub padding: PaddingProfile,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u8,
    #[n(1)]
    tee: String,
    #[n(2)]
    key_id: KeyId,
    #[cbor(n(3), with = "minicbor::bytes")]
    public_key: Vec<u8>,
    #[n(4)]
    enclave_id: EnclaveId,
    #[n(5)]
    boot_id: BootId,
    #[n(6)]
    tenant_ref: TenantRef,
    #[n(7)]
    model: ModelDigest,
    #[n(8)]
    served_model_name: String,
    #[n(9)]
    workload: WorkloadDigest,
    #[n(10)]
    switch_isolation: String,
    #[n(11)]
    window: u64,
    #[n(12)]
    not_before: UnixTime,
    #[n(13)]
    not_after: UnixTime,
    #[n(14)]
    padding: PaddingProfile,
}

impl KeyConfig {
    /// The name that a key has by what it is: see `WIRE.md`.
    #[must_use]
    pub fn derive_key_id(&self) -> KeyId {
        let digest = sha256(&[
            b"cloister/v1 key-id",
            self.enclave_id.as_bytes(),
            self.boot_id.as_bytes(),
            &self.window.to_be_bytes(),
            self.tenant_ref.as_bytes(),
            self.public_key.as_slice(),
        ]);
        let mut short = [0u8; 16];
        short
            .iter_mut()
            .zip(digest.as_bytes())
            .for_each(|(to, from)| *to = *from);
        KeyId::from_bytes(short)
    }

    /// Signs with the enclave's identity key.
    #[must_use]
    pub fn sign(&self, identity: &SigningKey) -> SignedKeyConfig {
        let wire = Wire {
            version: 1,
            tee: self.tee.as_str().to_owned(),
            key_id: self.key_id,
            public_key: self.public_key.to_vec(),
            enclave_id: self.enclave_id,
            boot_id: self.boot_id,
            tenant_ref: self.tenant_ref,
            model: self.model,
            served_model_name: self.served_model_name.clone(),
            workload: self.workload,
            switch_isolation: self.switch_isolation.as_str().to_owned(),
            window: self.window,
            not_before: self.not_before,
            not_after: self.not_after,
            padding: self.padding,
        };
        SignedKeyConfig {
            object: identity.sign_object(KIND, &wire),
            config: self.clone(),
        }
    }
}

fn parse_config(payload: &[u8]) -> Result<KeyConfig, Malformed> {
    const WHAT: Malformed = Malformed(KIND);
    let wire: Wire = cbor::decode(KIND, payload).map_err(|_| WHAT)?;
    let public_key: Box<[u8; PUBLIC_KEY_LEN]> = wire.public_key.into_boxed_slice().try_into().map_err(|_| WHAT)?;
    let config = KeyConfig {
        tee: wire.tee.parse().map_err(|_| WHAT)?,
        key_id: wire.key_id,
        public_key,
        enclave_id: wire.enclave_id,
        boot_id: wire.boot_id,
        tenant_ref: wire.tenant_ref,
        model: wire.model,
        served_model_name: wire.served_model_name,
        workload: wire.workload,
        switch_isolation: wire.switch_isolation.parse().map_err(|_| WHAT)?,
        window: wire.window,
        not_before: wire.not_before,
        not_after: wire.not_after,
        padding: wire.padding,
    };
    let sound = wire.version == 1
        && (1..=MAX_NAME).contains(&config.served_model_name.len())
        && config.not_before < config.not_after
        && config.padding.is_valid()
        && suite::is_public_key(&config.public_key)
        && config.derive_key_id() == config.key_id;
    if sound { Ok(config) } else { Err(WHAT) }
}

/// A key configuration as received: well-formed, its signature not yet checked.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedKeyConfig {
    object: SignedObject,
    config: KeyConfig,
}

/// Why a key configuration may not be sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyConfigError {
    /// Not signed by the attested enclave's identity key.
    #[error("the key configuration is not signed by the attested enclave")]
    Signature,
    /// It speaks of another enclave, boot, workload, model or TEE than the evidence.
    #[error("the key configuration does not match the enclave's evidence")]
    OtherEnclave,
    /// For another tenant.
    #[error("the key configuration is for another tenant")]
    OtherTenant,
    /// Not yet, or not any more, within its life.
    #[error("the key configuration is not live")]
    NotLive,
    /// The evidence behind it is out of date.
    #[error("the enclave's evidence is out of date")]
    StaleEvidence,
}

impl SignedKeyConfig {
    /// Parses and checks the form: deterministic CBOR, bounds, key id derived from the content.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let object = SignedObject::parse(bytes)?;
        let config = parse_config(&object.payload)?;
        Ok(Self { object, config })
    }

    /// The encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.object.to_bytes()
    }

    /// What it says, unverified: enough to route by, never to seal to.
    #[must_use]
    pub const fn unverified(&self) -> &KeyConfig {
        &self.config
    }

    /// Checks signature, match with the evidence, tenant and life.
    ///
    /// # Errors
    /// [`KeyConfigError`].
    pub fn verify(
        &self,
        peer: &AttestedPeer,
        tenant: &TenantRef,
        now: UnixTime,
    ) -> Result<VerifiedKeyConfig, KeyConfigError> {
        let result = peer.result();
        if !peer.is_current(now) {
            return Err(KeyConfigError::StaleEvidence);
        }
        result
            .identity_key()
            .verify(KIND, &self.object.payload, &self.object.signature)
            .map_err(|_| KeyConfigError::Signature)?;
        let config = &self.config;
        let workload = result.workload();
        let matches = config.enclave_id == result.enclave_id()
            && config.boot_id == result.boot_id()
            && config.tee == result.tee()
            && config.workload == workload.digest()
            && config.model == workload.model
            && config.served_model_name == workload.served_model_name
            && config.switch_isolation == workload.switch_isolation;
        if !matches {
            return Err(KeyConfigError::OtherEnclave);
        }
        if config.tenant_ref != *tenant {
            return Err(KeyConfigError::OtherTenant);
        }
        if now < config.not_before || now >= config.not_after {
            return Err(KeyConfigError::NotLive);
        }
        Ok(VerifiedKeyConfig {
            config: self.config.clone(),
            hash: self.hash(),
            identity: *result.identity_key(),
            evidence: (result.appraised_at(), result.expires_at()),
        })
    }

    /// SHA-256 of the payload as received.
    pub(crate) fn hash(&self) -> [u8; 32] {
        *sha256(&[&self.object.payload]).as_bytes()
    }
}

/// A key that may be sealed to: signed by an enclave whose evidence was appraised. Only [`SignedKeyConfig::verify`] makes one.
#[derive(Clone)]
pub struct VerifiedKeyConfig {
    config: KeyConfig,
    hash: [u8; 32],
    identity: IdentityKey,
    /// First second in which the evidence counts, and first in which it does not any more.
    evidence: (UnixTime, UnixTime),
}

impl VerifiedKeyConfig {
    /// One that nothing was verified of.
    #[cfg(test)]
    pub(crate) fn unchecked(signed: &SignedKeyConfig, identity: IdentityKey) -> Self {
        Self {
            config: signed.config.clone(),
            hash: signed.hash(),
            identity,
            evidence: (UnixTime(0), UnixTime(u64::MAX)),
        }
    }

    /// Whether both the key and the evidence behind it are live at `now`: sealing asks again.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        let (appraised, expires) = self.evidence;
        self.config.not_before <= now && now < self.config.not_after && appraised <= now && now < expires
    }

    /// What it says.
    #[must_use]
    pub const fn config(&self) -> &KeyConfig {
        &self.config
    }

    /// Identity key of the enclave: it signs the receipts.
    #[must_use]
    pub const fn identity(&self) -> &IdentityKey {
        &self.identity
    }

    /// SHA-256 of the payload as received.
    pub(crate) const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}
