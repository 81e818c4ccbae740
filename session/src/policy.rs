//! Appraisal policies that a tenant root signed: what a member may take from somebody else, the cluster included, without
//! trusting them.

use cloister_attestation::policy::{MAX_POLICY_LEN, PolicyError};
use cloister_attestation::{AppraisalPolicy, IdentityKey, UnixTime, cbor, identity::SPKI_LEN};
use minicbor::{Decode, Encode};

use crate::{
    Malformed,
    credential::{TenantRoot, tenant_id},
    ids::TenantId,
    signing::SignedObject,
};

const KIND: &str = "appraisal-policy";
const WHAT: &str = "signed appraisal policy";

/// Longest signed policy in bytes: a policy, and a little around it.
pub const MAX_SIGNED_POLICY: usize = MAX_POLICY_LEN + 1024;

/// A policy as received. It says nothing before [`Self::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct SignedPolicy(SignedObject);

/// As deterministic CBOR: a map {0 version uint, 1 root SPKI bstr, 2 not_before uint, 3 not_after uint, 4 policy YAML text}.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    root: [u8; SPKI_LEN],
    #[n(2)]
    not_before: UnixTime,
    #[n(3)]
    not_after: UnixTime,
    #[n(4)]
    policy: String,
}

/// Why a signed policy does not count.
#[derive(Debug, thiserror::Error)]
pub enum SignedPolicyError {
    /// Not a signed policy.
    #[error("malformed signed policy")]
    Malformed,
    /// Signed by somebody else, the cluster for example.
    #[error("the policy is signed by tenant root {found}, not by {expected}")]
    OtherRoot {
        /// Tenant id of the root that the policy names.
        found: TenantId,
        /// Tenant id that is trusted.
        expected: TenantId,
    },
    /// Not signed by the root that it names.
    #[error("the policy is not signed by the tenant root that it names")]
    Signature,
    /// Not valid yet.
    #[error("the signed policy is not valid yet: check this machine's clock")]
    NotYetValid,
    /// Not valid any more: an older, weaker policy must not come back for ever.
    #[error("the signed policy has expired: ask the tenant's administrator for the current one")]
    Expired,
    /// What is signed is no policy.
    #[error("what the tenant root signed is no policy: {0}")]
    Policy(#[from] PolicyError),
}

impl TenantRoot {
    /// Signs `policy` for its members, from `not_before` until before `not_after`.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy cannot be written.
    pub fn sign_policy(
        &self,
        policy: &AppraisalPolicy,
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Result<SignedPolicy, PolicyError> {
        let wire = Wire {
            version: 1,
            root: self.key().public().spki_der(),
            not_before,
            not_after,
            policy: policy.to_yaml()?,
        };
        Ok(SignedPolicy(self.key().sign_object(KIND, &wire)))
    }
}

impl SignedPolicy {
    /// Parses the outer form only.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        SignedObject::parse_up_to(bytes, MAX_SIGNED_POLICY).map(Self)
    }

    /// The encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// The policy, if the root of tenant `expected` signed it and it is valid at `now`.
    ///
    /// # Errors
    /// [`SignedPolicyError`] names the first thing that does not hold.
    pub fn verify(&self, expected: &TenantId, now: UnixTime) -> Result<AppraisalPolicy, SignedPolicyError> {
        let wire: Wire = cbor::decode(WHAT, self.0.payload()).map_err(|_| SignedPolicyError::Malformed)?;
        let root = IdentityKey::from_spki_der(&wire.root).map_err(|_| SignedPolicyError::Malformed)?;
        let found = tenant_id(&root);
        if found != *expected {
            return Err(SignedPolicyError::OtherRoot {
                found,
                expected: *expected,
            });
        }
        root.verify(KIND, self.0.payload(), &self.0.signature)
            .map_err(|_| SignedPolicyError::Signature)?;
        if wire.version != 1 {
            return Err(SignedPolicyError::Malformed);
        }
        if now < wire.not_before {
            return Err(SignedPolicyError::NotYetValid);
        }
        if now >= wire.not_after {
            return Err(SignedPolicyError::Expired);
        }
        Ok(AppraisalPolicy::from_yaml(&wire.policy)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SigningKey;

    const FROM: UnixTime = UnixTime(1_000);
    const UNTIL: UnixTime = UnixTime(2_000);

    fn root() -> TenantRoot {
        TenantRoot::new(SigningKey::generate().unwrap())
    }

    fn policy() -> AppraisalPolicy {
        AppraisalPolicy::from_yaml("tees: [snp]\nmaxAgeSeconds: 60\n").unwrap()
    }

    fn signed(root: &TenantRoot) -> SignedPolicy {
        root.sign_policy(&policy(), FROM, UNTIL).unwrap()
    }

    #[test]
    fn a_policy_of_the_tenants_root_is_taken_while_it_is_valid() {
        let root = root();
        let again = SignedPolicy::parse(&signed(&root).to_bytes()).unwrap();
        assert_eq!(again.verify(&root.tenant_id(), FROM).unwrap(), policy());
        let at = |now| again.verify(&root.tenant_id(), UnixTime(now));
        assert!(matches!(at(999), Err(SignedPolicyError::NotYetValid)));
        assert!(at(1_999).is_ok());
        assert!(matches!(at(2_000), Err(SignedPolicyError::Expired)));
    }

    #[test]
    fn a_policy_of_another_root_is_refused() {
        let (tenant, cluster) = (root(), root());
        let error = signed(&cluster).verify(&tenant.tenant_id(), FROM).unwrap_err();
        assert!(matches!(error, SignedPolicyError::OtherRoot { .. }));
        // Signed by the cluster in the name of the tenant.
        let wire = Wire {
            version: 1,
            root: tenant.key().public().spki_der(),
            not_before: FROM,
            not_after: UNTIL,
            policy: policy().to_yaml().unwrap(),
        };
        let forged = SignedPolicy(cluster.key().sign_object(KIND, &wire));
        let error = forged.verify(&tenant.tenant_id(), FROM).unwrap_err();
        assert!(matches!(error, SignedPolicyError::Signature));
        // Signed by the tenant as something else.
        let other = SignedPolicy(tenant.key().sign_object("receipt", &wire));
        assert!(matches!(
            other.verify(&tenant.tenant_id(), FROM),
            Err(SignedPolicyError::Signature)
        ));
    }

    #[test]
    fn a_changed_oversized_or_bare_policy_is_refused() {
        let root = root();
        let mut changed = signed(&root);
        let last = changed.0.payload.len() - 2;
        changed.0.payload[last] ^= 1;
        assert!(matches!(
            changed.verify(&root.tenant_id(), FROM),
            Err(SignedPolicyError::Signature)
        ));
        assert!(SignedPolicy::parse(&vec![0; MAX_SIGNED_POLICY + 1]).is_err());
        assert!(SignedPolicy::parse(b"tees: [snp]\n").is_err());
        let trailing = [signed(&root).to_bytes(), vec![0]].concat();
        assert!(SignedPolicy::parse(&trailing).is_err());
    }

    #[test]
    fn what_is_signed_must_be_a_policy() {
        let root = root();
        let wire = |version, policy: &str| Wire {
            version,
            root: root.key().public().spki_der(),
            not_before: FROM,
            not_after: UNTIL,
            policy: policy.into(),
        };
        let unknown = SignedPolicy(root.key().sign_object(KIND, &wire(1, "anything: goes")));
        assert!(matches!(
            unknown.verify(&root.tenant_id(), FROM),
            Err(SignedPolicyError::Policy(_))
        ));
        let newer = SignedPolicy(root.key().sign_object(KIND, &wire(2, "{}")));
        assert!(matches!(
            newer.verify(&root.tenant_id(), FROM),
            Err(SignedPolicyError::Malformed)
        ));
    }
}
