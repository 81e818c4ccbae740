//! An appraisal as a signed EAR (draft-ietf-rats-ear), and the check of one: so that a relying party need not parse evidence
//! again.
//!
//! The claims have the names that Trustee and Veraison write (`ear.status`, `ear.veraison.annotated-evidence`), and so the
//! profile is theirs. The token is a JWT (RFC 7519) under ES384 or EdDSA. An expiry is always there and always checked, at a
//! time that is an argument.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5912, rfc8410};
use der::Decode;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spki::SubjectPublicKeyInfoRef;

use crate::check::{Trust, TrustVector};
use crate::identity::IdentityKey;
use crate::ids::UnixTime;
use crate::policy::MAX_RESULT_AGE;

/// `eat_profile` of what is written, and the only one that is read.
pub const EAR_PROFILE: &str = "tag:github.com,2023:veraison/ear";
/// Longest token in bytes: the claims of 8 GPUs and 4 switches take about 60 KiB.
pub const MAX_EAR_LEN: usize = 512 * 1024;
/// Most submodules: a CPU and the most devices of a bundle, with room.
pub const MAX_SUBMODULES: usize = 64;
/// Longest key in bytes of PEM.
pub const MAX_KEY_LEN: usize = 8 * 1024;

/// Who wrote it (`ear.verifier-id`).
const DEVELOPER: &str = "cloister";

/// Claims of one result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ear {
    eat_profile: String,
    /// Time of the appraisal.
    pub iat: u64,
    /// From when on it proves nothing.
    pub exp: u64,
    /// Who appraised.
    #[serde(rename = "ear.verifier-id")]
    pub verifier_id: VerifierId,
    /// Tier of the whole, the worst of its submodules.
    #[serde(rename = "ear.status")]
    pub status: Status,
    /// Nonce of the relying party as base64url, if it sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eat_nonce: Option<String>,
    /// `cpu0`, `gpu0`, `switch0` and so on.
    pub submods: BTreeMap<String, EarSubmodule>,
    /// Key that the evidence is bound to (RFC 7800).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// `ear.verifier-id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierId {
    /// Who made the verifier.
    pub developer: String,
    /// Its version.
    pub build: String,
}

/// Appraisal of one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarSubmodule {
    /// Tier of the part.
    #[serde(rename = "ear.status")]
    pub status: Status,
    /// Values of AR4SI's claims, by name.
    #[serde(rename = "ear.trustworthiness-vector")]
    pub vector: BTreeMap<String, i8>,
    /// Policy that it was appraised under: its canonical hash, or `genuine`.
    #[serde(rename = "ear.appraisal-policy-id")]
    pub policy_id: String,
    /// What the part says, under the name of its kind: `snp`, `tdx`, `nvidia`.
    #[serde(rename = "ear.veraison.annotated-evidence")]
    pub evidence: Value,
}

/// `cnf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The key.
    pub jwk: Ed25519Jwk,
}

/// An Ed25519 key as JWK (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ed25519Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The key as base64url.
    pub x: String,
}

/// A [`Trust`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub Trust);

/// A private key that signs results.
pub struct EarSigner {
    algorithm: Algorithm,
    key: EncodingKey,
}

/// A public key that results are checked with.
pub struct EarVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why a key is none that signs or checks results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// Not the PEM of a private key in PKCS #8.
    #[error(
        "key is not the PEM of a private key in PKCS #8 (BEGIN PRIVATE KEY); \
         make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out ear.key"
    )]
    NotPrivate,
    /// Not the PEM of a public key.
    #[error("key is not the PEM of a public key (BEGIN PUBLIC KEY); make it with: openssl pkey -in ear.key -pubout")]
    NotPublic,
    /// Of another kind.
    #[error("key is neither one of ECDSA on P-384 nor one of Ed25519")]
    Kind,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EarRefusal {
    /// More than [`MAX_EAR_LEN`] bytes.
    #[error("result is longer than {MAX_EAR_LEN} bytes")]
    TooLong,
    /// Not a JWT with the claims of an EAR.
    #[error("result is not a JWT with the claims of an EAR: {0}")]
    Malformed(String),
    /// Another algorithm than that of the key, `none` for example, or a header that must be understood and is not.
    #[error("result is signed with another algorithm than the key's, or has a critical header")]
    Algorithm,
    /// The key did not sign it.
    #[error("result is not signed by this key")]
    Signature,
    /// Another profile than [`EAR_PROFILE`].
    #[error("result has profile {0:?}, and {EAR_PROFILE:?} is read")]
    Profile(String),
    /// Its time is over.
    #[error("result expired at {exp}, and it is {now}: ask for a new one")]
    Expired {
        /// End.
        exp: u64,
        /// Time that was asked for.
        now: UnixTime,
    },
    /// Written in the future.
    #[error("result was issued at {iat}, and it is {now}: check the clocks")]
    Future {
        /// Time of the appraisal.
        iat: u64,
        /// Time that was asked for.
        now: UnixTime,
    },
    /// It lives for longer than any policy allows.
    #[error("result lives for longer than {MAX_RESULT_AGE} seconds")]
    LongLived,
    /// It answers another nonce.
    #[error("result answers another nonce: it is stale or replayed")]
    Nonce,
    /// Its status is better than that of one of its parts.
    #[error("result says {status}, and its submodule {submodule} says worse")]
    Status {
        /// Status of the whole.
        status: Trust,
        /// The part.
        submodule: String,
    },
    /// None, or more than [`MAX_SUBMODULES`].
    #[error("result has {0} submodules: 1 to {MAX_SUBMODULES} are read")]
    Submodules(usize),
}

// === impl Ear ===

impl Ear {
    /// A result without submodules yet, which lives from `appraised_at` to `expires_at` and at most [`MAX_RESULT_AGE`].
    #[must_use]
    pub fn new(appraised_at: UnixTime, expires_at: UnixTime, nonce: Option<&[u8]>) -> Self {
        Self {
            eat_profile: EAR_PROFILE.to_owned(),
            iat: appraised_at.0,
            exp: expires_at.min(appraised_at.plus(MAX_RESULT_AGE)).0,
            verifier_id: VerifierId {
                developer: DEVELOPER.to_owned(),
                build: concat!("cloister-attestation ", env!("CARGO_PKG_VERSION")).to_owned(),
            },
            status: Status(Trust::None),
            eat_nonce: nonce.map(|nonce| URL_SAFE_NO_PAD.encode(nonce)),
            submods: BTreeMap::new(),
            cnf: None,
        }
    }

    /// Adds a part; the whole is never better than it. `kind` is `snp`, `tdx` or `nvidia`.
    pub fn submodule(
        &mut self,
        name: &str,
        status: Trust,
        vector: &TrustVector,
        policy_id: &str,
        kind: &str,
        claims: Value,
    ) {
        self.worsen(status);
        let submodule = EarSubmodule {
            status: Status(status),
            vector: by_name(vector),
            policy_id: policy_id.to_owned(),
            evidence: Value::Object(std::iter::once((kind.to_owned(), claims)).collect()),
        };
        self.submods.insert(name.to_owned(), submodule);
    }

    /// Makes the whole no better than `status`.
    pub fn worsen(&mut self, status: Trust) {
        self.status.0 = self.status.0.max(status);
    }

    /// Names the key that the evidence is bound to.
    pub fn confirm(&mut self, key: &IdentityKey) {
        let spki = key.spki_der();
        let raw = spki.last_chunk::<32>().map_or(&[][..], <[u8; 32]>::as_slice);
        self.cnf = Some(Confirmation {
            jwk: Ed25519Jwk {
                kty: "OKP".to_owned(),
                crv: "Ed25519".to_owned(),
                x: URL_SAFE_NO_PAD.encode(raw),
            },
        });
    }

    fn check(&self, nonce: Option<&[u8]>, now: UnixTime) -> Result<(), EarRefusal> {
        if self.eat_profile != EAR_PROFILE {
            return Err(EarRefusal::Profile(self.eat_profile.clone()));
        }
        if self.exp <= now.0 {
            return Err(EarRefusal::Expired { exp: self.exp, now });
        }
        if self.iat > now.0 {
            return Err(EarRefusal::Future { iat: self.iat, now });
        }
        if self.exp.saturating_sub(self.iat) > MAX_RESULT_AGE {
            return Err(EarRefusal::LongLived);
        }
        if nonce.is_some_and(|nonce| self.eat_nonce != Some(URL_SAFE_NO_PAD.encode(nonce))) {
            return Err(EarRefusal::Nonce);
        }
        if !(1..=MAX_SUBMODULES).contains(&self.submods.len()) {
            return Err(EarRefusal::Submodules(self.submods.len()));
        }
        let worse = self.submods.iter().find(|(_, part)| part.status.0 > self.status.0);
        worse.map_or(Ok(()), |(name, _)| {
            Err(EarRefusal::Status {
                status: self.status.0,
                submodule: name.clone(),
            })
        })
    }
}

fn by_name(vector: &TrustVector) -> BTreeMap<String, i8> {
    // A struct of eight numbers of at most 96: it always becomes an object, and no value is out of range.
    let value = serde_json::to_value(vector).unwrap_or_default();
    let claims = value.as_object().into_iter().flatten();
    claims
        .filter_map(|(name, value)| Some((name.clone(), i8::try_from(value.as_i64()?).ok()?)))
        .collect()
}

// === impl Status ===

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        [Trust::None, Trust::Affirming, Trust::Warning, Trust::Contraindicated]
            .into_iter()
            .find(|trust| trust.as_str() == name)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a status is none, affirming, warning or contraindicated"))
    }
}

// === impl EarSigner ===

impl EarSigner {
    /// Takes a private key in PKCS #8: ECDSA on P-384 or Ed25519.
    ///
    /// # Errors
    /// [`KeyRefusal`] for anything else.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyRefusal> {
        if pem.len() > MAX_KEY_LEN {
            return Err(KeyRefusal::NotPrivate);
        }
        let (label, key) = der::pem::decode_vec(pem).map_err(|_| KeyRefusal::NotPrivate)?;
        if label != "PRIVATE KEY" {
            return Err(KeyRefusal::NotPrivate);
        }
        if EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &key).is_ok() {
            let (algorithm, key) = (Algorithm::ES384, EncodingKey::from_ec_der(&key));
            return Ok(Self { algorithm, key });
        }
        if Ed25519KeyPair::from_pkcs8(&key).is_ok() {
            let (algorithm, key) = (Algorithm::EdDSA, EncodingKey::from_ed_der(&key));
            return Ok(Self { algorithm, key });
        }
        Err(KeyRefusal::Kind)
    }

    /// The result as a JWT.
    ///
    /// # Errors
    /// [`KeyRefusal::Kind`] if the key cannot sign after all.
    pub fn sign(&self, ear: &Ear) -> Result<String, KeyRefusal> {
        jsonwebtoken::encode(&Header::new(self.algorithm), ear, &self.key).map_err(|_| KeyRefusal::Kind)
    }
}

// === impl EarVerifier ===

impl EarVerifier {
    /// Takes a public key (SubjectPublicKeyInfo): ECDSA on P-384 or Ed25519.
    ///
    /// # Errors
    /// [`KeyRefusal`] for anything else.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyRefusal> {
        if pem.len() > MAX_KEY_LEN {
            return Err(KeyRefusal::NotPublic);
        }
        let (label, spki) = der::pem::decode_vec(pem).map_err(|_| KeyRefusal::NotPublic)?;
        if label != "PUBLIC KEY" {
            return Err(KeyRefusal::NotPublic);
        }
        let spki = SubjectPublicKeyInfoRef::from_der(&spki).map_err(|_| KeyRefusal::NotPublic)?;
        let key = spki.subject_public_key.as_bytes().ok_or(KeyRefusal::NotPublic)?;
        let curve = spki.algorithm.parameters_oid().ok();
        match (spki.algorithm.oid, curve) {
            (rfc5912::ID_EC_PUBLIC_KEY, Some(SECP_384_R_1)) => Ok(Self {
                algorithm: Algorithm::ES384,
                key: DecodingKey::from_ec_der(key),
            }),
            (rfc8410::ID_ED_25519, None) => Ok(Self {
                algorithm: Algorithm::EdDSA,
                key: DecodingKey::from_ed_der(key),
            }),
            _ => Err(KeyRefusal::Kind),
        }
    }

    /// Checks a JWT: the key's own algorithm and no other, its signature, profile, time, and the nonce if there is one to
    /// compare with.
    ///
    /// # Errors
    /// [`EarRefusal`] names the first thing that does not hold.
    pub fn verify(&self, token: &str, nonce: Option<&[u8]>, now: UnixTime) -> Result<Ear, EarRefusal> {
        use jsonwebtoken::errors::ErrorKind;
        if token.len() > MAX_EAR_LEN {
            return Err(EarRefusal::TooLong);
        }
        let mut validation = Validation::new(self.algorithm);
        // It would ask the machine's clock, with a leeway: the times are checked below, always and against `now`.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let data = jsonwebtoken::decode::<Ear>(token, &self.key, &validation).map_err(|error| match error.kind() {
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => EarRefusal::Algorithm,
            ErrorKind::InvalidSignature => EarRefusal::Signature,
            // `none` is no algorithm that the library can even name.
            _ if says_none(token) => EarRefusal::Algorithm,
            _ => EarRefusal::Malformed(error.to_string()),
        })?;
        if data.header.crit.is_some() {
            return Err(EarRefusal::Algorithm);
        }
        data.claims.check(nonce, now)?;
        Ok(data.claims)
    }
}

const SECP_384_R_1: ObjectIdentifier = rfc5912::SECP_384_R_1;

fn says_none(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let header: Value = serde_json::from_slice(&header).unwrap_or_default();
    header
        .get("alg")
        .and_then(Value::as_str)
        .is_some_and(|name| name.eq_ignore_ascii_case("none"))
}
