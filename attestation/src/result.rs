//! What an appraisal proves, and for how long.

use std::fmt;

use crate::appraisal::Appraisal;
use crate::identity::IdentityKey;
use crate::ids::{BootId, EnclaveId, PolicyHash, UnixTime};
use crate::policy::{Measurement, PlatformId};
use crate::tee::Tee;
use crate::workload::Workload;

/// Tier of trust, of the AR4SI vocabulary (draft-ietf-rats-ar4si) those that a result can have; what is contraindicated is a
/// [`Refusal`](crate::Refusal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Accepted only because the policy allows what gives less than the full protection: the SIMULATED TEE.
    Warning,
    /// Everything that the policy asks for holds.
    Affirming,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Affirming => "affirming",
        })
    }
}

/// The verdict over one evidence under one policy. Built only by [`appraise`](crate::appraise).
#[derive(Debug, Clone)]
pub struct AttestationResult {
    pub(crate) enclave_id: EnclaveId,
    pub(crate) boot_id: BootId,
    pub(crate) identity_key: IdentityKey,
    pub(crate) workload: Workload,
    pub(crate) tee: Tee,
    pub(crate) measurement: Measurement,
    pub(crate) platform_id: PlatformId,
    pub(crate) policy_hash: PolicyHash,
    pub(crate) appraised_at: UnixTime,
    pub(crate) expires_at: UnixTime,
    pub(crate) tier: Tier,
    pub(crate) appraisal: Appraisal,
}

impl AttestationResult {
    /// The enclave process that the evidence proves.
    #[must_use]
    pub const fn enclave_id(&self) -> EnclaveId {
        self.enclave_id
    }

    /// Its boot.
    #[must_use]
    pub const fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// The key that it signs with.
    #[must_use]
    pub const fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// What it is fixed to.
    #[must_use]
    pub const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Kind of TEE. Show [`Tee::label`] wherever trust is shown.
    #[must_use]
    pub const fn tee(&self) -> Tee {
        self.tee
    }

    /// What the TEE was started with.
    #[must_use]
    pub const fn measurement(&self) -> Measurement {
        self.measurement
    }

    /// The processor, for a policy's `minDistinctPlatforms`.
    #[must_use]
    pub const fn platform_id(&self) -> PlatformId {
        self.platform_id
    }

    /// The policy that it was appraised under.
    #[must_use]
    pub const fn policy_hash(&self) -> PolicyHash {
        self.policy_hash
    }

    /// When it was appraised.
    #[must_use]
    pub const fn appraised_at(&self) -> UnixTime {
        self.appraised_at
    }

    /// From when on it proves nothing: the policy's age, or the first end of a certificate, of collateral or
    /// of a list that it rests on.
    #[must_use]
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// Tier of trust; never above [`Tier::Warning`] for the SIMULATED TEE.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// What was found, part by part: `cpu0`, `gpu0` and so on, with tiers and claims.
    #[must_use]
    pub const fn appraisal(&self) -> &Appraisal {
        &self.appraisal
    }

    /// True from the appraisal until the expiry. A clock that was moved back to before the appraisal makes it false: it would
    /// stretch the result's life.
    #[must_use]
    pub fn is_current(&self, now: UnixTime) -> bool {
        self.appraised_at <= now && now < self.expires_at
    }
}

/// An enclave that was attested, not too long ago: what sealing needs.
#[derive(Debug, Clone)]
pub struct AttestedPeer {
    result: AttestationResult,
}

/// The result is too old to seal on, or from the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "attestation result of enclave {enclave_id} holds from {from} to {until}, not at {now}: ask for fresh evidence"
)]
pub struct Expired {
    /// The enclave.
    pub enclave_id: EnclaveId,
    /// Time of the appraisal.
    pub from: UnixTime,
    /// Time of expiry.
    pub until: UnixTime,
    /// Time that was asked for.
    pub now: UnixTime,
}

impl AttestedPeer {
    /// Takes a result that is current.
    ///
    /// # Errors
    /// [`Expired`] if it is not.
    pub fn new(result: AttestationResult, now: UnixTime) -> Result<Self, Expired> {
        if result.is_current(now) {
            return Ok(Self { result });
        }
        Err(Expired {
            enclave_id: result.enclave_id,
            from: result.appraised_at,
            until: result.expires_at,
            now,
        })
    }

    /// True while sealing may rest on it: ask again before each use.
    #[must_use]
    pub fn is_current(&self, now: UnixTime) -> bool {
        self.result.is_current(now)
    }

    /// What was proven.
    #[must_use]
    pub const fn result(&self) -> &AttestationResult {
        &self.result
    }
}
