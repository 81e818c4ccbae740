//! Results as signed EARs: what is written is read, and nothing else is.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloister_attestation::check::{Trust, TrustVector};
use cloister_attestation::ear::{EAR_PROFILE, Ear, EarRefusal, EarSigner, EarVerifier, KeyRefusal, MAX_EAR_LEN};
use cloister_attestation::policy::MAX_RESULT_AGE;
use cloister_attestation::{IdentityKey, UnixTime};
use serde_json::{Value, json};

const NOW: UnixTime = UnixTime(1_767_225_600);
const NONCE: &[u8] = &[7; 32];

struct Keys {
    signer: EarSigner,
    verifier: EarVerifier,
    private: String,
    public: String,
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn keys(private: &[u8], public: &[u8]) -> Keys {
    let (private, public) = (pem("PRIVATE KEY", private), pem("PUBLIC KEY", public));
    Keys {
        signer: EarSigner::from_pem(private.as_bytes()).unwrap(),
        verifier: EarVerifier::from_pem(public.as_bytes()).unwrap(),
        private,
        public,
    }
}

fn ecdsa(curve: &'static EcdsaSigningAlgorithm) -> (Vec<u8>, Vec<u8>) {
    let private = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(curve, private.as_ref()).unwrap();
    let public = pair.public_key().as_der().unwrap();
    (private.as_ref().to_vec(), public.as_ref().to_vec())
}

fn p384() -> Keys {
    let (private, public) = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING);
    keys(&private, &public)
}

fn ed25519() -> Keys {
    let pair = Ed25519KeyPair::generate().unwrap();
    let private: Pkcs8V1Der<'static> = pair.as_der().unwrap();
    let public = IdentityKey::from_raw(pair.public_key().as_ref().try_into().unwrap()).spki_der();
    keys(private.as_ref(), &public)
}

fn ear() -> Ear {
    let vector = TrustVector {
        hardware: Trust::Affirming,
        ..TrustVector::default()
    };
    let mut ear = Ear::new(NOW, NOW.plus(60), Some(NONCE));
    ear.submodule("cpu0", Trust::Affirming, &vector, "genuine", "snp", json!({"vmpl": 0}));
    ear.confirm(&IdentityKey::from_raw([3; 32]));
    ear
}

/// The claims with one changed, signed again.
fn signed_with(keys: &Keys, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = serde_json::to_value(ear()).unwrap();
    change(&mut claims);
    let key = jsonwebtoken::EncodingKey::from_ec_pem(keys.private.as_bytes()).unwrap();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES384);
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

fn refusal(keys: &Keys, token: &str) -> EarRefusal {
    keys.verifier.verify(token, Some(NONCE), NOW).unwrap_err()
}

#[test]
fn what_is_signed_is_read_under_both_algorithms() {
    for keys in [p384(), ed25519()] {
        let token = keys.signer.sign(&ear()).unwrap();
        let read = keys.verifier.verify(&token, Some(NONCE), NOW).unwrap();
        assert_eq!(read, ear());
        assert_eq!(keys.verifier.verify(&token, None, NOW), Ok(ear()));
        assert!(keys.verifier.verify(&token, Some(NONCE), NOW.plus(59)).is_ok());
    }
}

#[test]
fn the_claims_have_the_names_of_the_profile() {
    let claims = serde_json::to_value(ear()).unwrap();
    assert_eq!(claims["eat_profile"], EAR_PROFILE);
    assert_eq!((&claims["iat"], &claims["exp"]), (&NOW.0.into(), &(NOW.0 + 60).into()));
    assert_eq!(claims["ear.status"], "affirming");
    assert_eq!(claims["ear.verifier-id"]["developer"], "cloister");
    assert_eq!(claims["eat_nonce"], URL_SAFE_NO_PAD.encode(NONCE));
    assert_eq!(claims["cnf"]["jwk"]["x"], URL_SAFE_NO_PAD.encode([3; 32]));
    let cpu = &claims["submods"]["cpu0"];
    assert_eq!(cpu["ear.status"], "affirming");
    assert_eq!(cpu["ear.trustworthiness-vector"]["hardware"], 2);
    assert_eq!(cpu["ear.trustworthiness-vector"]["executables"], 0);
    assert_eq!(cpu["ear.appraisal-policy-id"], "genuine");
    assert_eq!(cpu["ear.veraison.annotated-evidence"]["snp"]["vmpl"], 0);
}

#[test]
fn a_result_past_its_expiry_is_refused() {
    let keys = p384();
    let token = keys.signer.sign(&ear()).unwrap();
    let now = NOW.plus(60);
    let expired = EarRefusal::Expired { exp: NOW.0 + 60, now };
    assert_eq!(keys.verifier.verify(&token, None, now), Err(expired));
}

#[test]
fn a_result_from_the_future_is_refused() {
    let keys = p384();
    let token = keys.signer.sign(&ear()).unwrap();
    let now = UnixTime(NOW.0 - 1);
    let future = EarRefusal::Future { iat: NOW.0, now };
    assert_eq!(keys.verifier.verify(&token, None, now), Err(future));
}

#[test]
fn a_result_without_a_time_is_refused() {
    let keys = p384();
    for claim in ["exp", "iat", "eat_profile", "submods", "ear.status"] {
        let token = signed_with(&keys, |claims| {
            claims.as_object_mut().unwrap().remove(claim).unwrap();
        });
        assert!(matches!(refusal(&keys, &token), EarRefusal::Malformed(_)), "{claim}");
    }
}

#[test]
fn a_result_that_lives_too_long_is_refused() {
    let keys = p384();
    let token = signed_with(&keys, |claims| claims["exp"] = (NOW.0 + MAX_RESULT_AGE + 1).into());
    assert_eq!(refusal(&keys, &token), EarRefusal::LongLived);
    let capped = Ear::new(NOW, UnixTime(u64::MAX), None);
    assert_eq!(capped.exp, NOW.0 + MAX_RESULT_AGE);
}

#[test]
fn an_unsigned_result_is_refused() {
    let keys = p384();
    let token = keys.signer.sign(&ear()).unwrap();
    let claims = token.split('.').nth(1).unwrap();
    for alg in ["none", "None", "NONE"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
        for signature in ["", "AAAA"] {
            let unsigned = format!("{header}.{claims}.{signature}");
            assert_eq!(refusal(&keys, &unsigned), EarRefusal::Algorithm);
        }
    }
}

#[test]
fn a_result_under_another_algorithm_is_refused() {
    let (keys, other) = (p384(), ed25519());
    let token = other.signer.sign(&ear()).unwrap();
    assert_eq!(refusal(&keys, &token), EarRefusal::Algorithm);
    // The public key as the secret of an HMAC.
    let key = jsonwebtoken::EncodingKey::from_secret(keys.public.as_bytes());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, &ear(), &key).unwrap();
    assert_eq!(refusal(&keys, &token), EarRefusal::Algorithm);
}

#[test]
fn a_result_with_a_critical_header_is_refused() {
    let keys = p384();
    let key = jsonwebtoken::EncodingKey::from_ec_pem(keys.private.as_bytes()).unwrap();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES384);
    header.crit = Some(vec!["b64".to_owned()]);
    let token = jsonwebtoken::encode(&header, &ear(), &key).unwrap();
    assert_eq!(refusal(&keys, &token), EarRefusal::Algorithm);
}

#[test]
fn a_result_of_another_key_is_refused() {
    let (keys, other) = (p384(), p384());
    let token = other.signer.sign(&ear()).unwrap();
    assert_eq!(refusal(&keys, &token), EarRefusal::Signature);
}

#[test]
fn a_changed_result_is_refused() {
    let keys = p384();
    let token = keys.signer.sign(&ear()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    claims["exp"] = (NOW.0 + 3600).into();
    let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
    let token = format!("{}.{changed}.{}", parts[0], parts[2]);
    assert_eq!(refusal(&keys, &token), EarRefusal::Signature);
}

#[test]
fn a_result_of_another_profile_is_refused() {
    let keys = p384();
    let token = signed_with(&keys, |claims| {
        claims["eat_profile"] = "tag:example.com,2026:other".into();
    });
    assert!(matches!(refusal(&keys, &token), EarRefusal::Profile(_)));
}

#[test]
fn a_result_for_another_nonce_is_refused() {
    let keys = p384();
    let token = keys.signer.sign(&ear()).unwrap();
    assert_eq!(
        keys.verifier.verify(&token, Some(&[8; 32]), NOW),
        Err(EarRefusal::Nonce)
    );
    let token = signed_with(&keys, |claims| {
        claims.as_object_mut().unwrap().remove("eat_nonce").unwrap();
    });
    assert_eq!(refusal(&keys, &token), EarRefusal::Nonce);
}

#[test]
fn a_result_that_is_better_than_its_parts_is_refused() {
    let keys = p384();
    let token = signed_with(&keys, |claims| {
        claims["submods"]["cpu0"]["ear.status"] = "contraindicated".into();
    });
    assert!(matches!(refusal(&keys, &token), EarRefusal::Status { .. }));
    let token = signed_with(&keys, |claims| claims["submods"] = json!({}));
    assert_eq!(refusal(&keys, &token), EarRefusal::Submodules(0));
}

#[test]
fn malformed_and_oversized_results_are_refused() {
    let keys = p384();
    for token in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", "\u{fffd}.\0.x"] {
        assert!(matches!(refusal(&keys, token), EarRefusal::Malformed(_)), "{token}");
    }
    assert_eq!(refusal(&keys, &"a".repeat(MAX_EAR_LEN + 1)), EarRefusal::TooLong);
    let whole = keys.signer.sign(&ear()).unwrap();
    for end in 0..whole.len() {
        assert!(keys.verifier.verify(&whole[..end], None, NOW).is_err());
    }
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let (private, public) = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let signer = |pem: &str| EarSigner::from_pem(pem.as_bytes()).err();
    let verifier = |pem: &str| EarVerifier::from_pem(pem.as_bytes()).err();
    assert_eq!(signer(&pem("PRIVATE KEY", &private)), Some(KeyRefusal::Kind));
    assert_eq!(verifier(&pem("PUBLIC KEY", &public)), Some(KeyRefusal::Kind));
    assert_eq!(signer(&pem("EC PRIVATE KEY", &private)), Some(KeyRefusal::NotPrivate));
    assert_eq!(verifier(&pem("PRIVATE KEY", &public)), Some(KeyRefusal::NotPublic));
    assert_eq!(signer("nothing"), Some(KeyRefusal::NotPrivate));
    assert_eq!(verifier(""), Some(KeyRefusal::NotPublic));
    let (p384, ed25519) = (p384(), ed25519());
    assert_eq!(signer(&p384.public), Some(KeyRefusal::NotPrivate));
    assert_eq!(verifier(&ed25519.private), Some(KeyRefusal::NotPublic));
}
