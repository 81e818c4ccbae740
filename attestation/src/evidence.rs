//! Evidence as an enclave serves it: JSON, parsed with a cap on every length and without leniency.
//!
//! ```json
//! {"identity_spki": "<base64 DER>", "boot_id": "<hex>", "workload": "<base64 CBOR>", "bundle": {"cpu": ..., "nonce": "<hex>"}}
//! ```
//!
//! The [`bundle`](crate::bundle) holds the CPU's report, those of the devices, and a nonce of 32 bytes. Base64 is the standard
//! alphabet with padding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::binding::{self, NONCE_LEN};
use crate::bundle::{Bundle, BundleError, CpuEvidence, MAX_BUNDLE_LEN, WireBundle};
use crate::identity::IdentityKey;
use crate::ids::{BootId, EnclaveId, Sha256Digest};
use crate::object::Object;
use crate::workload::{Workload, WorkloadError};

/// Longest evidence in bytes of JSON: a bundle's, with a little more beside it.
pub const MAX_EVIDENCE_LEN: usize = MAX_BUNDLE_LEN + 32 * 1024;

/// What one enclave process shows of itself: bytes and claims that nobody has verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Key that the enclave signs with.
    pub identity_key: IdentityKey,
    /// The enclave process.
    pub boot_id: BootId,
    /// What the enclave is fixed to.
    pub workload: Workload,
    /// Reports of its CPU and devices, and the nonce that the enclave says it answers.
    pub bundle: Bundle,
}

/// JSON that is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// More than [`MAX_EVIDENCE_LEN`] bytes.
    #[error("evidence is longer than {MAX_EVIDENCE_LEN} bytes")]
    TooLong,
    /// Not the JSON documented in this module: unknown, repeated or missing fields, or bytes after it.
    #[error("evidence is not the documented JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is not base64, or not of the right length.
    #[error("evidence: {field} is not {expected}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The workload is none.
    #[error("evidence: {0}")]
    Workload(#[from] WorkloadError),
    /// The bundle is none.
    #[error("evidence: {0}")]
    Bundle(#[from] BundleError),
}

impl Evidence {
    /// Evidence of an enclave that has a CPU's report and no devices.
    #[must_use]
    pub fn of_cpu(
        identity_key: IdentityKey,
        boot_id: BootId,
        workload: Workload,
        nonce: &[u8; NONCE_LEN],
        cpu: CpuEvidence,
    ) -> Self {
        Self {
            identity_key,
            boot_id,
            workload,
            bundle: Bundle {
                cpu: Some(cpu),
                devices: Vec::new(),
                nonce: Some(nonce.to_vec()),
            },
        }
    }

    /// Parses the JSON form.
    ///
    /// # Errors
    /// [`EvidenceError`] for anything but the documented form within its bounds.
    pub fn from_json(json: &[u8]) -> Result<Self, EvidenceError> {
        if json.len() > MAX_EVIDENCE_LEN {
            return Err(EvidenceError::TooLong);
        }
        let Object(wire): Object<WireEvidence> = serde_json::from_slice(json)?;
        let spki = from_base64("identity_spki", &wire.identity_spki, crate::identity::SPKI_LEN)?;
        let workload = from_base64("workload", &wire.workload, crate::workload::MAX_WORKLOAD_LEN)?;
        let bundle = Bundle::from_wire(wire.bundle.0)?;
        if bundle.nonce.as_ref().is_none_or(|nonce| nonce.len() != NONCE_LEN) {
            return Err(EvidenceError::Field {
                field: "bundle.nonce",
                expected: "32 bytes of hex",
            });
        }
        Ok(Self {
            identity_key: IdentityKey::from_spki_der(&spki).map_err(|_| EvidenceError::Field {
                field: "identity_spki",
                expected: "the SubjectPublicKeyInfo of an Ed25519 key",
            })?,
            boot_id: wire.boot_id,
            workload: Workload::from_cbor(&workload)?,
            bundle,
        })
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let wire = WireEvidence {
            identity_spki: STANDARD.encode(self.identity_key.spki_der()),
            boot_id: self.boot_id,
            workload: STANDARD.encode(self.workload.to_cbor()),
            bundle: Object(self.bundle.to_wire()),
        };
        // Strings and lists of strings: serialising them has no error.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// The identity that the evidence claims; proven only by an appraisal.
    #[must_use]
    pub fn enclave_id(&self) -> EnclaveId {
        binding::enclave_id(&self.identity_key, &self.boot_id, &self.workload.digest())
    }

    /// Digest of the evidence of its devices.
    #[must_use]
    pub fn devices_digest(&self) -> Sha256Digest {
        self.bundle.devices_digest()
    }
}

fn from_base64(field: &'static str, text: &str, max: usize) -> Result<Vec<u8>, EvidenceError> {
    let bytes = STANDARD.decode(text).map_err(|_| EvidenceError::Field {
        field,
        expected: "base64",
    })?;
    if bytes.len() > max {
        return Err(EvidenceError::Field {
            field,
            expected: "within its longest length",
        });
    }
    Ok(bytes)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEvidence {
    identity_spki: String,
    boot_id: BootId,
    workload: String,
    bundle: Object<WireBundle>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::ModelDigest;
    use crate::workload::{EngineConfinement, SwitchIsolation};

    fn evidence() -> Evidence {
        Evidence::of_cpu(
            IdentityKey::from_raw([1; 32]),
            BootId::from_bytes([2; 16]),
            Workload {
                enclave_version: "1".into(),
                engine_kind: "simulator".into(),
                engine_image: Sha256Digest::from_bytes([3; 32]),
                engine_args: Vec::new(),
                engine_env: BTreeMap::new(),
                model: ModelDigest::from_bytes([4; 32]),
                served_model_name: "m".into(),
                scrub_method: "reset".into(),
                switch_isolation: SwitchIsolation::Reset,
                confinement: EngineConfinement::Full,
            },
            &[5; 32],
            CpuEvidence::Snp {
                report: vec![6; 1184],
                vek: vec![7; 1300],
            },
        )
    }

    fn parse_error(json: &str) -> EvidenceError {
        Evidence::from_json(json.as_bytes()).unwrap_err()
    }

    #[test]
    fn round_trip() {
        let json = evidence().to_json();
        assert!(!json.contains("chain"), "an absent chain is left out");
        assert_eq!(Evidence::from_json(json.as_bytes()).unwrap(), evidence());
    }

    #[test]
    fn truncated_and_trailing_json_is_refused() {
        let json = evidence().to_json();
        assert!(matches!(parse_error(&json[..json.len() - 1]), EvidenceError::Json(_)));
        assert!(matches!(parse_error(&format!("{json}{{}}")), EvidenceError::Json(_)));
    }

    #[test]
    fn unknown_and_repeated_fields_are_refused() {
        let json = evidence().to_json();
        for (from, to) in [
            ("{\"identity_spki\"", "{\"extra\":1,\"identity_spki\""),
            ("{\"tee\"", "{\"extra\":1,\"tee\""),
            ("{\"cpu\"", "{\"extra\":1,\"cpu\""),
            ("{\"tee\":\"snp\"", "{\"tee\":\"simulated\",\"tee\":\"snp\""),
        ] {
            let changed = json.replacen(from, to, 1);
            assert_ne!(changed, json);
            assert!(matches!(parse_error(&changed), EvidenceError::Json(_)), "{to}");
        }
    }

    #[test]
    fn oversized_evidence_is_refused_before_it_is_parsed() {
        let padded = format!("{}{}", evidence().to_json(), " ".repeat(MAX_EVIDENCE_LEN));
        assert!(matches!(parse_error(&padded), EvidenceError::TooLong));
    }

    #[test]
    fn the_workload_has_a_longest_length() {
        let mut long = evidence();
        long.workload.engine_args = vec!["x".repeat(crate::workload::MAX_WORKLOAD_LEN)];
        assert!(matches!(parse_error(&long.to_json()), EvidenceError::Field { .. }));
    }

    #[test]
    fn a_bundle_that_is_none_is_refused() {
        let mut none = evidence();
        none.bundle.cpu = None;
        let error = parse_error(&none.to_json());
        assert!(matches!(error, EvidenceError::Bundle(BundleError::Empty)));
    }

    #[test]
    fn a_nonce_of_another_length_is_refused() {
        let nonce = "05".repeat(32);
        for other in [&nonce[2..], &(nonce.clone() + "05")] {
            let json = evidence().to_json().replacen(&nonce, other, 1);
            let error = parse_error(&json);
            assert!(matches!(
                error,
                EvidenceError::Field {
                    field: "bundle.nonce",
                    ..
                }
            ));
        }
    }

    #[test]
    fn another_kind_of_identity_key_is_refused() {
        let spki = STANDARD.encode(evidence().identity_key.spki_der());
        let json = evidence().to_json().replacen(&spki, &STANDARD.encode([0u8; 44]), 1);
        assert!(matches!(
            parse_error(&json),
            EvidenceError::Field {
                field: "identity_spki",
                ..
            }
        ));
    }
}
