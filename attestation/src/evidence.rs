//! Evidence as an enclave serves it: JSON, parsed with a cap on every length and without leniency.
//!
//! ```json
//! {"identity_spki": "<base64 DER>", "boot_id": "<hex>", "workload": "<base64 CBOR>",
//!  "bundle": {"cpu": {"tee": "snp", "report": "<base64>", "vek": "<base64 DER>"}, "devices": [], "nonce": "<hex>"}}
//! ```
//!
//! `cpu.chain` is there for the simulated TEE only: PEM of the intermediate (ASK), then of the root (ARK). Base64 is the
//! standard alphabet with padding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::binding::{self, NONCE_LEN};
use crate::identity::IdentityKey;
use crate::ids::{BootId, EnclaveId, Sha256Digest};
use crate::tee::Tee;
use crate::workload::{Workload, WorkloadError};

/// Longest evidence in bytes of JSON: a CPU's report, its certificate and a simulated chain are about 10 KiB.
pub const MAX_EVIDENCE_LEN: usize = 64 * 1024;
/// Longest report of a CPU in bytes; one of SEV-SNP has 1184.
pub const MAX_REPORT_LEN: usize = 8 * 1024;
/// Longest certificate of a CPU's signing key in bytes of DER; real ones have about 1360.
pub const MAX_VEK_LEN: usize = 4 * 1024;
/// Longest simulated chain in bytes of PEM.
pub const MAX_CHAIN_LEN: usize = 16 * 1024;

/// What one enclave process shows of itself: bytes and claims that nobody has verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Key that the enclave signs with.
    pub identity_key: IdentityKey,
    /// The enclave process.
    pub boot_id: BootId,
    /// What the enclave is fixed to.
    pub workload: Workload,
    /// Nonce that the enclave says it answers; the CPU's report is what binds it.
    pub nonce: [u8; NONCE_LEN],
    /// Report of the CPU.
    pub cpu: CpuEvidence,
}

/// A CPU's report with what is needed to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuEvidence {
    /// Kind of TEE that the evidence claims to be of.
    pub tee: Tee,
    /// The report as the TEE gave it.
    pub report: Vec<u8>,
    /// DER certificate of the key that signed the report.
    pub vek: Vec<u8>,
    /// SIMULATED TEE only: PEM of its intermediate, then of its root.
    pub chain: Option<String>,
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
    /// A field is not base64, or not hex, of the right length.
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
    /// Evidence of devices, of which no kind is known.
    #[error("evidence holds devices of an unknown kind: only CPU evidence is understood")]
    UnknownDevice,
}

impl Evidence {
    /// Parses the JSON form.
    ///
    /// # Errors
    /// [`EvidenceError`] for anything but the documented form within its bounds.
    pub fn from_json(json: &[u8]) -> Result<Self, EvidenceError> {
        if json.len() > MAX_EVIDENCE_LEN {
            return Err(EvidenceError::TooLong);
        }
        let wire: WireEvidence = serde_json::from_slice(json)?;
        if !wire.bundle.devices.is_empty() {
            return Err(EvidenceError::UnknownDevice);
        }
        let spki = from_base64("identity_spki", &wire.identity_spki, crate::identity::SPKI_LEN)?;
        let workload = from_base64("workload", &wire.workload, crate::workload::MAX_WORKLOAD_LEN)?;
        let cpu = wire.bundle.cpu;
        if cpu.chain.as_ref().is_some_and(|chain| chain.len() > MAX_CHAIN_LEN) {
            return Err(too_long("bundle.cpu.chain"));
        }
        Ok(Self {
            identity_key: IdentityKey::from_spki_der(&spki).map_err(|_| EvidenceError::Field {
                field: "identity_spki",
                expected: "the SubjectPublicKeyInfo of an Ed25519 key",
            })?,
            boot_id: wire.boot_id,
            workload: Workload::from_cbor(&workload)?,
            nonce: *wire.bundle.nonce.as_bytes(),
            cpu: CpuEvidence {
                tee: cpu.tee,
                report: from_base64("bundle.cpu.report", &cpu.report, MAX_REPORT_LEN)?,
                vek: from_base64("bundle.cpu.vek", &cpu.vek, MAX_VEK_LEN)?,
                chain: cpu.chain,
            },
        })
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let wire = WireEvidence {
            identity_spki: STANDARD.encode(self.identity_key.spki_der()),
            boot_id: self.boot_id,
            workload: STANDARD.encode(self.workload.to_cbor()),
            bundle: WireBundle {
                cpu: WireCpu {
                    tee: self.cpu.tee,
                    report: STANDARD.encode(&self.cpu.report),
                    vek: STANDARD.encode(&self.cpu.vek),
                    chain: self.cpu.chain.clone(),
                },
                devices: Vec::new(),
                nonce: Sha256Digest::from_bytes(self.nonce),
            },
        };
        // Strings and lists of strings: serialising them has no error.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// The identity that the evidence claims; proven only by an appraisal.
    #[must_use]
    pub fn enclave_id(&self) -> EnclaveId {
        binding::enclave_id(&self.identity_key, &self.boot_id, &self.workload.digest())
    }

    /// Digest of the evidence of its devices: of none, for now.
    #[must_use]
    pub fn devices_digest(&self) -> Sha256Digest {
        binding::devices_digest(&[])
    }
}

fn from_base64(field: &'static str, text: &str, max: usize) -> Result<Vec<u8>, EvidenceError> {
    let bytes = STANDARD.decode(text).map_err(|_| EvidenceError::Field {
        field,
        expected: "base64",
    })?;
    if bytes.len() > max {
        return Err(too_long(field));
    }
    Ok(bytes)
}

const fn too_long(field: &'static str) -> EvidenceError {
    EvidenceError::Field {
        field,
        expected: "within its longest length",
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEvidence {
    identity_spki: String,
    boot_id: BootId,
    workload: String,
    bundle: WireBundle,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireBundle {
    cpu: WireCpu,
    devices: Vec<serde_json::Value>,
    nonce: Sha256Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCpu {
    tee: Tee,
    report: String,
    vek: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::ModelDigest;
    use crate::workload::{EngineConfinement, SwitchIsolation};

    fn evidence() -> Evidence {
        Evidence {
            identity_key: IdentityKey::from_raw([1; 32]),
            boot_id: BootId::from_bytes([2; 16]),
            workload: Workload {
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
            nonce: [5; 32],
            cpu: CpuEvidence {
                tee: Tee::Snp,
                report: vec![6; 1184],
                vek: vec![7; 1300],
                chain: None,
            },
        }
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
    fn each_field_has_a_longest_length() {
        let changes: [fn(&mut Evidence); 3] = [
            |e| e.cpu.report = vec![0; MAX_REPORT_LEN + 1],
            |e| e.cpu.vek = vec![0; MAX_VEK_LEN + 1],
            |e| e.cpu.chain = Some("x".repeat(MAX_CHAIN_LEN + 1)),
        ];
        for change in changes {
            let mut long = evidence();
            change(&mut long);
            assert!(matches!(parse_error(&long.to_json()), EvidenceError::Field { .. }));
        }
        let mut long = evidence();
        long.workload.engine_args = vec!["x".repeat(crate::workload::MAX_WORKLOAD_LEN)];
        assert!(matches!(parse_error(&long.to_json()), EvidenceError::Field { .. }));
    }

    #[test]
    fn devices_of_an_unknown_kind_are_refused() {
        let json = evidence().to_json().replacen("\"devices\":[]", "\"devices\":[{}]", 1);
        assert!(matches!(parse_error(&json), EvidenceError::UnknownDevice));
    }

    #[test]
    fn a_nonce_of_another_length_is_refused() {
        let nonce = "05".repeat(32);
        let json = evidence().to_json().replacen(&nonce, &nonce[2..], 1);
        assert!(matches!(parse_error(&json), EvidenceError::Json(_)));
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
