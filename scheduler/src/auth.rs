//! The outer credential: a random bearer token for a list of tenants. It protects resources, never tenancy: that is for the
//! enclave to check, inside the seal.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use cloister_scheduler_core::TenantIndex;
use cloister_session::TenantRef;
use http::{HeaderMap, header};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::{
    config::{CredentialConfig, TenantConfig},
    refusal::Code,
};

/// Longest token that is hashed.
const MAX_TOKEN: usize = 512;

/// The tenants of the configuration, and their place in it.
#[derive(Debug)]
pub(crate) struct Tenants {
    by_ref: HashMap<TenantRef, TenantIndex>,
    refs: Vec<TenantRef>,
    max_queued: Vec<usize>,
}

/// SHA-256 of the tokens, with the tenants that each may ask for.
#[derive(Debug)]
pub(crate) struct Credentials {
    entries: Vec<([u8; 32], Vec<TenantIndex>)>,
}

/// A valid token was shown. Made by [`Credentials::check`] only.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    tenants: &'a [TenantIndex],
}

/// A caller asked for a tenant that is its own. Made by [`Caller::tenant`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authorized {
    pub(crate) tenant: TenantIndex,
    pub(crate) tenant_ref: TenantRef,
}

// === impl Tenants ===

impl Tenants {
    pub(crate) fn new(tenants: &[TenantConfig]) -> Self {
        let refs: Vec<_> = tenants.iter().map(|tenant| tenant.tenant_ref).collect();
        let indexed = refs.iter().enumerate();
        let by_ref = indexed.map(|(index, tenant)| (*tenant, TenantIndex(index))).collect();
        Self {
            by_ref,
            refs,
            max_queued: tenants.iter().map(|tenant| tenant.max_queued).collect(),
        }
    }

    pub(crate) fn index(&self, tenant: &TenantRef) -> Option<TenantIndex> {
        self.by_ref.get(tenant).copied()
    }

    pub(crate) fn tenant_ref(&self, tenant: TenantIndex) -> Option<TenantRef> {
        self.refs.get(tenant.0).copied()
    }

    /// Requests of the tenant that may wait.
    pub(crate) fn max_queued(&self, tenant: TenantIndex) -> Option<usize> {
        self.max_queued.get(tenant.0).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.refs.len()
    }
}

// === impl Credentials ===

impl Credentials {
    pub(crate) fn new(credentials: &[CredentialConfig], tenants: &Tenants) -> Self {
        let entries = credentials.iter().map(|credential| {
            let allowed = credential.tenant_refs.iter().filter_map(|tenant| tenants.index(tenant));
            (*credential.token_sha256.as_bytes(), allowed.collect())
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// Checks `Authorization: Bearer`. Every hash is compared, whichever matches.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Caller<'_>, Code> {
        let token = bearer(headers).ok_or(Code::Unauthorized)?;
        let hash = digest(&SHA256, token);
        let mut found = Choice::from(0);
        let mut place = 0_u64;
        for (index, (expected, _)) in (0_u64..).zip(&self.entries) {
            let matches = expected.as_slice().ct_eq(hash.as_ref());
            place.conditional_assign(&index, matches);
            found |= matches;
        }
        if !bool::from(found) {
            return Err(Code::Unauthorized);
        }
        let entry = usize::try_from(place).ok().and_then(|place| self.entries.get(place));
        let (_, tenants) = entry.ok_or(Code::Unauthorized)?;
        Ok(Caller { tenants })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let valid = scheme.eq_ignore_ascii_case(b"bearer ") && (1..=MAX_TOKEN).contains(&token.len());
    valid.then_some(token)
}

// === impl Caller ===

impl Caller<'_> {
    /// The tenant, if the token is for it. A tenant that is not configured looks the same as another's.
    pub(crate) fn tenant(&self, tenants: &Tenants, tenant_ref: &TenantRef) -> Result<Authorized, Code> {
        let known = tenants.index(tenant_ref);
        match known.filter(|tenant| self.tenants.contains(tenant)) {
            Some(tenant) => Ok(Authorized {
                tenant,
                tenant_ref: *tenant_ref,
            }),
            None => Err(Code::UnknownTenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use cloister_attestation::Sha256Digest;

    use super::*;

    fn tenant(byte: u8) -> TenantRef {
        TenantRef::from_bytes([byte; 16])
    }

    fn hash(token: &str) -> Sha256Digest {
        Sha256Digest::try_from(digest(&SHA256, token.as_bytes()).as_ref()).unwrap()
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    fn fixture() -> (Tenants, Credentials) {
        let configured = |byte| TenantConfig {
            tenant_ref: tenant(byte),
            weight: 1,
            max_queued: 1,
        };
        let tenants = Tenants::new(&[configured(1), configured(2)]);
        let credential = |token: &str, refs: &[u8]| CredentialConfig {
            token_sha256: hash(token),
            tenant_refs: refs.iter().map(|byte| tenant(*byte)).collect(),
        };
        let credentials = Credentials::new(&[credential("one", &[1]), credential("both", &[1, 2, 3])], &tenants);
        (tenants, credentials)
    }

    #[test]
    fn a_token_opens_its_tenants_only() {
        let (tenants, credentials) = fixture();
        let ask = |token: &str, byte| {
            let headers = headers(&format!("Bearer {token}"));
            let caller = credentials.check(&headers)?;
            caller
                .tenant(&tenants, &tenant(byte))
                .map(|authorized| authorized.tenant.0)
        };
        assert_eq!(ask("one", 1), Ok(0));
        assert_eq!(ask("one", 2), Err(Code::UnknownTenant));
        assert_eq!(ask("both", 2), Ok(1));
        assert_eq!(
            ask("both", 3),
            Err(Code::UnknownTenant),
            "listed, but no tenant of the configuration"
        );
        assert_eq!(ask("neither", 1), Err(Code::Unauthorized));
    }

    #[test]
    fn anything_but_one_bearer_token_is_refused() {
        let (_, credentials) = fixture();
        let refused = |headers: &HeaderMap| credentials.check(headers).err() == Some(Code::Unauthorized);
        assert!(refused(&HeaderMap::new()));
        for value in [
            "one",
            "Basic one",
            "Bearer",
            "Bearer ",
            "Bearer  one",
            &format!("Bearer {}", "x".repeat(513)),
        ] {
            assert!(refused(&headers(value)), "{value}");
        }
        let mut two = headers("Bearer one");
        two.append(header::AUTHORIZATION, "Bearer one".parse().unwrap());
        assert!(refused(&two));
        assert!(!refused(&headers("bearer one")), "the scheme has no case");
    }
}
