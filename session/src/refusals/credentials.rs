//! Who asks: credential, tenant and member of M1. What makes a credential bad is told apart in `credential`.

use cloister_attestation::{ModelDigest, UnixTime};

use super::fixture::*;
use crate::{credential::MemberCredential, enclave::Reason, key_config::PaddingProfile, limits::MAX_CREDENTIAL_LIFE};

/// Why a request with another credential of the same root is refused.
fn refusal(change: impl FnOnce(&mut MemberCredential)) -> Option<Reason> {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    let mut claims = claims(&tenant.member);
    change(&mut claims);
    draft.credential = tenant.root.issue(&claims).to_bytes();
    enclave.refusal(&draft.m1())
}

#[test]
fn expired_early_or_too_long() {
    assert_eq!(refusal(|_| ()), None);
    assert_eq!(refusal(|c| c.not_after = now()), Some(Reason::Credential));
    assert_eq!(refusal(|c| c.not_before = now().plus(1)), Some(Reason::Credential));
    let life = |c: &mut MemberCredential, seconds| c.not_after = c.not_before.plus(seconds);
    assert_eq!(refusal(|c| life(c, MAX_CREDENTIAL_LIFE)), None);
    assert_eq!(refusal(|c| life(c, MAX_CREDENTIAL_LIFE + 1)), Some(Reason::Credential));
}

#[test]
fn for_another_audience() {
    assert_eq!(refusal(|c| c.audience = "other".into()), Some(Reason::Credential));
}

#[test]
fn unsigned() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    let last = draft.credential.len() - 1;
    draft.credential[last] ^= 1;
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::Credential));
    draft.credential[last - 63..].fill(0);
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::Credential));
}

#[test]
fn for_other_models() {
    let other = ModelDigest::from_bytes([1; 32]);
    assert_eq!(refusal(|c| c.models = vec![other, MODEL]), None);
    assert_eq!(refusal(|c| c.models = vec![other]), Some(Reason::ModelNotAllowed));
}

#[test]
fn for_another_member_than_the_one_who_signs() {
    assert_eq!(refusal(|c| c.member = key().public()), Some(Reason::MemberSignature));
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    draft.signer = key();
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::MemberSignature));
}

#[test]
fn of_another_tenant_than_the_header_names() {
    let (mallory, alice) = (Tenant::new(), Tenant::new());
    let mut enclave = Enclave::new(PaddingProfile::OFF);
    let candidates = [enclave.config(&alice.reference())];
    // Mallory's own credential and signature, sealed to Alice's key to get into Alice's lease.
    let mut draft = Draft::new(&mallory, &candidates, b"{}");
    draft.header.tenant_ref = alice.reference();
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::TenantRef));
}

#[test]
fn of_another_tenant_than_the_first_chunk_names() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    draft.tenant = Tenant::new().id();
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::TenantRef));
}

#[test]
fn for_a_moment_that_is_not_now() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    let mut claims = claims(&tenant.member);
    (claims.not_before, claims.not_after) = (UnixTime(now().0 - 5), now().plus(5));
    draft.credential = tenant.root.issue(&claims).to_bytes();
    let at = |seconds| {
        open(&enclave.keys, &draft.m1(), now().plus(seconds))
            .err()
            .map(|r| r.reason)
    };
    assert_eq!(at(4), None);
    assert_eq!(at(5), Some(Reason::Credential));
}
