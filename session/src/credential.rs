//! Tenants, their members and the credentials that a tenant root issues to them.

use cloister_attestation::{IdentityKey, ModelDigest, UnixTime, cbor, identity::SPKI_LEN};
use minicbor::{Decode, Encode};

use crate::{
    Malformed,
    ids::TenantId,
    limits::{MAX_CREDENTIAL_LIFE, MAX_CREDENTIAL_MODELS, MAX_NAME},
    signing::{SignedObject, SigningKey},
};

const KIND: &str = "credential";

/// Whose prefix cache a member's requests may hit within an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SaltScope {
    /// Only the same member's.
    Member,
    /// Every member's of the tenant.
    Tenant,
}

impl SaltScope {
    const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Tenant => "tenant",
        }
    }
}

/// What a tenant root says of one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberCredential {
    /// Root key of the tenant.
    pub root: IdentityKey,
    /// Key of the member.
    pub member: IdentityKey,
    /// First second in which it is valid.
    pub not_before: UnixTime,
    /// First second in which it is not any more.
    pub not_after: UnixTime,
    /// Models that the member may use, 1 to 64.
    pub models: Vec<ModelDigest>,
    /// Cluster id for which it was made.
    pub audience: String,
    /// Cache sharing inside the tenant.
    pub salt_scope: SaltScope,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    root: [u8; SPKI_LEN],
    #[cbor(n(2), with = "minicbor::bytes")]
    member: [u8; SPKI_LEN],
    #[n(3)]
    not_before: UnixTime,
    #[n(4)]
    not_after: UnixTime,
    #[n(5)]
    models: Vec<ModelDigest>,
    #[n(6)]
    audience: String,
    #[n(7)]
    salt_scope: String,
}

/// Why a credential does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not a credential.
    #[error("malformed credential")]
    Malformed,
    /// Not signed by the root that it names.
    #[error("the credential is not signed by the tenant root that it names")]
    Signature,
    /// Its life is longer than an hour, or ends before it begins.
    #[error("the credential's life is not between 1 second and 1 hour")]
    Life,
    /// Not valid yet.
    #[error("the credential is not valid yet")]
    NotYetValid,
    /// Not valid any more.
    #[error("the credential has expired")]
    Expired,
    /// Made for another cluster.
    #[error("the credential was made for another cluster")]
    Audience,
}

/// A tenant's root key. Whoever holds it is the tenant.
pub struct TenantRoot(SigningKey);

impl TenantRoot {
    /// Uses `key` as a root.
    #[must_use]
    pub const fn new(key: SigningKey) -> Self {
        Self(key)
    }

    /// The tenant's id.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        tenant_id(&self.0.public())
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self.0
    }

    /// Issues a credential. The `root` of `claims` is set to this key; its life is not checked here: whoever verifies does.
    #[must_use]
    pub fn issue(&self, claims: &MemberCredential) -> SignedCredential {
        let wire = Wire {
            version: 1,
            root: self.0.public().spki_der(),
            member: claims.member.spki_der(),
            not_before: claims.not_before,
            not_after: claims.not_after,
            models: claims.models.clone(),
            audience: claims.audience.clone(),
            salt_scope: claims.salt_scope.name().to_owned(),
        };
        SignedCredential(self.0.sign_object(KIND, &wire))
    }
}

/// The tenant id of a root key.
#[must_use]
pub fn tenant_id(root: &IdentityKey) -> TenantId {
    TenantId::from_bytes(*root.spki_digest().as_bytes())
}

/// A credential as received.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedCredential(SignedObject);

impl SignedCredential {
    /// Parses the outer form only.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        SignedObject::parse(bytes).map(Self)
    }

    /// The encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Checks signature, life and audience.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn verify(&self, now: UnixTime, audience: &str) -> Result<VerifiedCredential, CredentialError> {
        let claims = parse_claims(&self.0.payload)?;
        claims
            .root
            .verify(KIND, &self.0.payload, &self.0.signature)
            .map_err(|_| CredentialError::Signature)?;
        let life = claims
            .not_after
            .0
            .checked_sub(claims.not_before.0)
            .ok_or(CredentialError::Life)?;
        if life == 0 || life > MAX_CREDENTIAL_LIFE {
            return Err(CredentialError::Life);
        }
        if now < claims.not_before {
            return Err(CredentialError::NotYetValid);
        }
        if now >= claims.not_after {
            return Err(CredentialError::Expired);
        }
        if claims.audience != audience {
            return Err(CredentialError::Audience);
        }
        Ok(VerifiedCredential {
            tenant: tenant_id(&claims.root),
            claims,
        })
    }

    /// The claims with nothing verified: for showing a file to its owner.
    ///
    /// # Errors
    /// [`CredentialError::Malformed`].
    pub fn unverified(&self) -> Result<MemberCredential, CredentialError> {
        parse_claims(&self.0.payload)
    }
}

fn parse_claims(payload: &[u8]) -> Result<MemberCredential, CredentialError> {
    let wire: Wire = cbor::decode(KIND, payload).map_err(|_| CredentialError::Malformed)?;
    let salt_scope = match wire.salt_scope.as_str() {
        "member" => SaltScope::Member,
        "tenant" => SaltScope::Tenant,
        _ => return Err(CredentialError::Malformed),
    };
    let counts = wire.version == 1
        && (1..=MAX_CREDENTIAL_MODELS).contains(&wire.models.len())
        && (1..=MAX_NAME).contains(&wire.audience.len());
    if !counts {
        return Err(CredentialError::Malformed);
    }
    let key = |der: &[u8]| IdentityKey::from_spki_der(der).map_err(|_| CredentialError::Malformed);
    Ok(MemberCredential {
        root: key(&wire.root)?,
        member: key(&wire.member)?,
        not_before: wire.not_before,
        not_after: wire.not_after,
        models: wire.models,
        audience: wire.audience,
        salt_scope,
    })
}

/// A credential whose signature, life and audience were found good at one moment.
pub struct VerifiedCredential {
    tenant: TenantId,
    claims: MemberCredential,
}

impl VerifiedCredential {
    /// The tenant that issued it.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &MemberCredential {
        &self.claims
    }

    /// Whether the member may use a model.
    #[must_use]
    pub fn allows(&self, model: &ModelDigest) -> bool {
        self.claims.models.contains(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_SIGNED_OBJECT;

    const NOW: UnixTime = UnixTime(1_000_000);

    fn claims(member: IdentityKey) -> MemberCredential {
        MemberCredential {
            root: member,
            member,
            not_before: UnixTime(NOW.0 - 10),
            not_after: UnixTime(NOW.0 + 3590),
            models: vec![ModelDigest::from_bytes([1; 32])],
            audience: "local".into(),
            salt_scope: SaltScope::Member,
        }
    }

    fn root() -> TenantRoot {
        TenantRoot::new(SigningKey::generate().unwrap())
    }

    fn check(change: impl FnOnce(&mut MemberCredential)) -> Option<CredentialError> {
        let member = SigningKey::generate().unwrap();
        let mut claims = claims(member.public());
        change(&mut claims);
        root().issue(&claims).verify(NOW, "local").err()
    }

    #[test]
    fn a_good_credential_names_its_tenant() {
        let root = root();
        let credential = root.issue(&claims(SigningKey::generate().unwrap().public()));
        let parsed = SignedCredential::parse(&credential.to_bytes()).unwrap();
        let verified = parsed.verify(NOW, "local").unwrap();
        assert_eq!(verified.tenant(), root.tenant_id());
        assert!(verified.allows(&ModelDigest::from_bytes([1; 32])));
        assert!(!verified.allows(&ModelDigest::from_bytes([2; 32])));
    }

    #[test]
    fn life_audience_and_counts() {
        assert_eq!(check(|_| ()), None);
        assert_eq!(
            check(|c| c.not_after = UnixTime(NOW.0 + 3591)),
            Some(CredentialError::Life)
        );
        assert_eq!(check(|c| c.not_after = c.not_before), Some(CredentialError::Life));
        assert_eq!(
            check(|c| c.not_after = UnixTime(c.not_before.0 - 1)),
            Some(CredentialError::Life)
        );
        assert_eq!(check(|c| c.not_after = NOW), Some(CredentialError::Expired));
        assert_eq!(
            check(|c| (c.not_before, c.not_after) = (UnixTime(NOW.0 + 1), UnixTime(NOW.0 + 2))),
            Some(CredentialError::NotYetValid)
        );
        assert_eq!(
            check(|c| (c.not_before, c.not_after) = (NOW, UnixTime(NOW.0 + 1))),
            None
        );
        assert_eq!(check(|c| c.audience = "other".into()), Some(CredentialError::Audience));
        assert_eq!(check(|c| c.audience = String::new()), Some(CredentialError::Malformed));
        assert_eq!(check(|c| c.models.clear()), Some(CredentialError::Malformed));
        assert_eq!(
            check(|c| c.models = vec![c.models[0]; 65]),
            Some(CredentialError::Malformed)
        );
        assert_eq!(check(|c| c.models = vec![c.models[0]; 64]), None);
    }

    #[test]
    fn another_version_and_too_many_bytes_are_refused() {
        let root = root();
        let mut signed = root.issue(&claims(root.key().public())).0;
        assert_eq!(signed.payload[..3], [0xa8, 0x00, 0x01]);
        signed.payload[2] = 2;
        signed.signature = root.key().sign(KIND, &signed.payload);
        assert_eq!(
            SignedCredential(signed.clone()).verify(NOW, "local").err(),
            Some(CredentialError::Malformed)
        );
        let mut parses = |length| {
            signed.payload.resize(length, 0);
            SignedCredential::parse(&signed.to_bytes()).is_ok()
        };
        let sizes = [MAX_SIGNED_OBJECT - 70, MAX_SIGNED_OBJECT - 69];
        assert_eq!(sizes.map(&mut parses), [true, false]);
    }

    #[test]
    fn another_roots_signature_is_refused() {
        let member = SigningKey::generate().unwrap();
        let (mut one, other) = (
            root().issue(&claims(member.public())),
            root().issue(&claims(member.public())),
        );
        one.0.signature = other.0.signature;
        assert_eq!(one.verify(NOW, "local").err(), Some(CredentialError::Signature));
    }
}
