//! M0: what a client seals to.

use cloister_attestation::{BootId, EnclaveId, ModelDigest, SwitchIsolation, Tee, UnixTime, WorkloadDigest};

use super::fixture::*;
use crate::{
    client::{SealRequest, SealRequestError, seal},
    ids::{KeyId, TenantRef},
    key_config::{KeyConfig, KeyConfigError, PaddingProfile, SignedKeyConfig, VerifiedKeyConfig},
    limits::MAX_NAME,
    signing::SigningKey,
};

fn good() -> (Enclave, KeyConfig) {
    let (_, enclave, config) = scene(PADDED);
    (enclave, config.config().clone())
}

/// Whether a key configuration parses after a change to what the enclave signs.
fn parses(rename: bool, change: impl FnOnce(&mut KeyConfig)) -> bool {
    let (enclave, mut config) = good();
    change(&mut config);
    if rename {
        config.key_id = config.derive_key_id();
    }
    SignedKeyConfig::parse(&config.sign(&enclave.identity).to_bytes()).is_ok()
}

#[test]
fn a_key_by_another_name() {
    assert!(parses(false, |_| ()));
    assert!(!parses(false, |c| c.key_id = KeyId::from_bytes([0; 16])));
    // Whatever the name is made of cannot be swapped under it.
    let other = || Enclave::new(PADDED).config(&TenantRef::from_bytes([9; 16]));
    let public_key = other().config().public_key.clone();
    assert!(!parses(false, |c| c.public_key = public_key.clone()));
    assert!(parses(true, |c| c.public_key = public_key));
    assert!(!parses(false, |c| c.enclave_id = EnclaveId::from_bytes([0; 32])));
    assert!(!parses(false, |c| c.boot_id = BootId::from_bytes([0; 16])));
    assert!(!parses(false, |c| c.tenant_ref = TenantRef::from_bytes([0; 16])));
    assert!(!parses(false, |c| c.window += 1));
}

#[test]
fn a_public_key_that_is_none() {
    // Coefficients of ML-KEM above its modulus.
    assert!(!parses(true, |c| c.public_key[..384].fill(0xff)));
}

#[test]
fn values_out_of_bounds() {
    assert!(!parses(true, |c| c.served_model_name = String::new()));
    assert!(parses(true, |c| c.served_model_name = "m".repeat(MAX_NAME)));
    assert!(!parses(true, |c| c.served_model_name = "m".repeat(MAX_NAME + 1)));
    assert!(!parses(true, |c| c.not_after = c.not_before));
    for (record_size, tick_millis, count_bucket, sound) in [
        (0, 1, 1, true),
        (256, 1, 1, true),
        (16384, 1000, 1024, true),
        (255, 1, 1, false),
        (16385, 1, 1, false),
        (256, 0, 1, false),
        (256, 1001, 1, false),
        (256, 1, 0, false),
        (256, 1, 1025, false),
    ] {
        let padding = PaddingProfile {
            record_size,
            tick_millis,
            count_bucket,
        };
        assert_eq!(parses(true, |c| c.padding = padding), sound, "{padding:?}");
    }
}

#[test]
fn another_version_and_another_encoding() {
    let (enclave, config) = good();
    let bytes = config.sign(&enclave.identity).to_bytes();
    assert!(SignedKeyConfig::parse(&bytes).is_ok());
    let version = bytes.windows(3).position(|w| w == [0xaf, 0x00, 0x01]).unwrap() + 2;
    let mut other = bytes.clone();
    other[version] = 2;
    assert!(SignedKeyConfig::parse(&other).is_err());
    assert!(SignedKeyConfig::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    assert!(SignedKeyConfig::parse(&bytes[..bytes.len() - 1]).is_err());
}

/// Why a well-formed key configuration of `signer` does not count.
fn refusal_by(
    signer: Option<&SigningKey>,
    at: UnixTime,
    change: impl FnOnce(&mut KeyConfig),
) -> Option<KeyConfigError> {
    let (enclave, mut config) = good();
    let tenant = config.tenant_ref;
    change(&mut config);
    config.key_id = config.derive_key_id();
    let signed = config.sign(signer.unwrap_or(&enclave.identity));
    let parsed = SignedKeyConfig::parse(&signed.to_bytes()).unwrap();
    parsed.verify(&enclave.peer, &tenant, at).err()
}

fn refusal(change: impl FnOnce(&mut KeyConfig)) -> Option<KeyConfigError> {
    refusal_by(None, now(), change)
}

#[test]
fn signed_by_another_key() {
    assert_eq!(refusal(|_| ()), None);
    assert_eq!(refusal_by(Some(&key()), now(), |_| ()), Some(KeyConfigError::Signature));
}

#[test]
fn of_another_enclave_boot_workload_or_model() {
    let other = Some(KeyConfigError::OtherEnclave);
    assert_eq!(refusal(|c| c.enclave_id = EnclaveId::from_bytes([0; 32])), other);
    assert_eq!(refusal(|c| c.boot_id = BootId::from_bytes([0; 16])), other);
    assert_eq!(refusal(|c| c.workload = WorkloadDigest::from_bytes([0; 32])), other);
    assert_eq!(refusal(|c| c.model = ModelDigest::from_bytes([0; 32])), other);
    assert_eq!(refusal(|c| c.served_model_name = "other".into()), other);
    assert_eq!(refusal(|c| c.switch_isolation = SwitchIsolation::Restart), other);
    assert_eq!(refusal(|c| c.tee = Tee::Snp), other);
}

#[test]
fn for_another_tenant() {
    assert_eq!(
        refusal(|c| c.tenant_ref = TenantRef::from_bytes([0; 16])),
        Some(KeyConfigError::OtherTenant)
    );
}

#[test]
fn not_live() {
    assert_eq!(refusal(|c| c.not_before = now().plus(1)), Some(KeyConfigError::NotLive));
    assert_eq!(
        refusal(|c| (c.not_before, c.not_after) = (UnixTime(now().0 - 1), now())),
        Some(KeyConfigError::NotLive)
    );
}

#[test]
fn behind_evidence_that_is_out_of_date() {
    let year = 366 * 86_400;
    let long_life = |c: &mut KeyConfig| {
        c.not_before = UnixTime(0);
        c.not_after = now().plus(2 * year);
    };
    assert_eq!(refusal_by(None, now(), long_life), None);
    let stale = Some(KeyConfigError::StaleEvidence);
    assert_eq!(refusal_by(None, now().plus(year), long_life), stale);
    assert_eq!(refusal_by(None, UnixTime(now().0 - 1), long_life), stale);
}

fn seal_error(candidates: &[VerifiedKeyConfig], created: UnixTime, ttl: u32, body: usize) -> Option<SealRequestError> {
    let tenant = Tenant::new();
    seal(&SealRequest {
        candidates,
        tenant: tenant.id(),
        credential: &tenant.credential,
        member: &tenant.member,
        policy: POLICY,
        created,
        ttl,
        inner: &inner(&vec![b' '; body]),
    })
    .err()
}

#[test]
fn sealing_to_none_too_many_repeated_or_mixed_candidates() {
    let tenant = TenantRef::from_bytes([1; 16]);
    let keys: Vec<_> = (0..5).map(|_| Enclave::new(PADDED).config(&tenant)).collect();
    let sealed = |candidates: &[VerifiedKeyConfig]| seal_error(candidates, now(), 120, 2);
    assert_eq!(sealed(&keys[..1]), None);
    assert_eq!(sealed(&keys[..4]), None);
    let refused = Some(SealRequestError::Candidates);
    assert_eq!(sealed(&[]), refused);
    assert_eq!(sealed(&keys), refused);
    assert_eq!(sealed(&[keys[0].clone(), keys[0].clone()]), refused);
    let other = Enclave::new(PADDED).config(&TenantRef::from_bytes([2; 16]));
    assert_eq!(sealed(&[keys[0].clone(), other]), refused);
}

#[test]
fn sealing_to_a_key_or_on_evidence_that_has_ended() {
    let (_, enclave, config) = scene(PADDED);
    let end = config.config().not_after;
    let candidates = [config];
    let at = |time| seal_error(&candidates, time, 120, 2);
    assert_eq!(at(UnixTime(end.0 - 1)), None);
    assert_eq!(at(end), Some(SealRequestError::NotLive));
    assert_eq!(at(UnixTime(now().0 - 1)), Some(SealRequestError::NotLive));

    let mut long = candidates[0].config().clone();
    long.not_after = now().plus(366 * 86_400);
    let long = long
        .sign(&enclave.identity)
        .verify(&enclave.peer, &long.tenant_ref, now())
        .unwrap();
    let candidates = [long];
    let expiry = enclave.peer.result().expires_at();
    let at = |time| seal_error(&candidates, time, 120, 2);
    assert_eq!(at(UnixTime(expiry.0 - 1)), None);
    assert_eq!(at(expiry), Some(SealRequestError::NotLive));
}

#[test]
fn sealing_for_no_time_or_too_long_and_too_much() {
    let (_, _, config) = scene(PADDED);
    let candidates = [config];
    for (ttl, expected) in [
        (0, Some(SealRequestError::Ttl)),
        (1, None),
        (120, None),
        (121, Some(SealRequestError::Ttl)),
    ] {
        assert_eq!(seal_error(&candidates, now(), ttl, 2), expected);
    }
    assert_eq!(
        seal_error(&candidates, now(), 120, 8 << 20),
        Some(SealRequestError::TooLarge)
    );
}
