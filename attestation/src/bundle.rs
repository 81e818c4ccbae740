//! A bundle: the evidence of one CPU and of the devices beside it, as JSON, parsed with a cap on every length and without
//! leniency.
//!
//! ```json
//! {"cpu": {"tee": "snp", "report": "<base64>", "vek": "<base64 of DER or of PEM>"},
//!  "devices": [{"arch": "HOPPER", "evidence": "<base64>", "certificate": "<base64 of a PEM chain>"}],
//!  "nonce": "<hex>"}
//! ```
//!
//! With `"tee": "tdx"` the CPU has `quote` (base64) and `collateral` (an object: `QuoteCollateralV3` of dcap-qvl). With
//! `"tee": "simulated"` it has also `chain`: PEM of the intermediate (ASK), then of the root (ARK). `cpu` or `devices` may be
//! missing, not both. Base64 is the standard alphabet with padding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::binding;
use crate::ids::Sha256Digest;
pub use crate::nvidia::DeviceArch;
use crate::object::Object;
use crate::tee::Tee;

/// Longest bundle in bytes of JSON: one CPU, 8 GPUs and 4 switches take about 180 KiB.
pub const MAX_BUNDLE_LEN: usize = 512 * 1024;
/// Longest report or quote of a CPU in bytes; a report of SEV-SNP has 1184, a quote of TDX about 5000.
pub const MAX_REPORT_LEN: usize = 16 * 1024;
/// Longest certificate of a CPU's signing key in bytes of DER; real ones have about 1360.
pub const MAX_VEK_LEN: usize = 4 * 1024;
/// Longest chain of a CPU's signing key in bytes of PEM.
pub const MAX_CHAIN_LEN: usize = 16 * 1024;
/// Most certificates in a `vek` of PEM: the key's own, and AMD's three.
pub const MAX_VEK_CERTIFICATES: usize = 4;
/// Longest collateral in bytes of JSON; real ones have about 20 KiB.
pub const MAX_COLLATERAL_LEN: usize = 128 * 1024;
/// Most devices: the largest machines have 8 GPUs and 4 switches.
pub const MAX_DEVICES: usize = 16;
/// Longest evidence of a device in bytes; a GPU's has about 4100.
pub const MAX_DEVICE_EVIDENCE_LEN: usize = 16 * 1024;
/// Longest chain of a device in bytes of PEM; real ones have about 4800.
pub const MAX_DEVICE_CHAIN_LEN: usize = 16 * 1024;
/// Longest nonce in bytes: as much as a CPU's report has room for.
pub const MAX_NONCE_LEN: usize = binding::REPORT_DATA_LEN;

/// Evidence of one CPU and of the devices beside it: bytes that nobody has verified yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    /// Report of the CPU, with what is needed to verify it.
    pub cpu: Option<CpuEvidence>,
    /// Reports of devices, in the order in which they are bound.
    pub devices: Vec<DeviceEvidence>,
    /// Nonce that the bundle says it answers; only the reports can prove it.
    pub nonce: Option<Vec<u8>>,
}

/// A CPU's report with what is needed to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuEvidence {
    /// AMD SEV-SNP.
    Snp {
        /// The report as the TEE gave it.
        report: Vec<u8>,
        /// DER certificate of the key that signed it: a VCEK or a VLEK.
        vek: Vec<u8>,
    },
    /// Intel TDX.
    Tdx {
        /// The quote as the TEE gave it.
        quote: Vec<u8>,
        /// JSON of dcap-qvl's `QuoteCollateralV3`.
        collateral: String,
    },
    /// SIMULATED: in the format of SEV-SNP.
    Simulated {
        /// The report.
        report: Vec<u8>,
        /// DER certificate of the key that signed it.
        vek: Vec<u8>,
        /// PEM of its intermediate, then of its root.
        chain: String,
    },
}

/// A device's report with what is needed to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEvidence {
    /// Architecture that the evidence claims to be of.
    pub arch: DeviceArch,
    /// The report as the device gave it: an SPDM request and its response.
    pub evidence: Vec<u8>,
    /// PEM of the chain of the device's key, its own first.
    pub certificate: String,
}

/// JSON that is no bundle. It was not appraised: nothing can be said of the evidence.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// More than [`MAX_BUNDLE_LEN`] bytes.
    #[error("bundle is longer than {MAX_BUNDLE_LEN} bytes")]
    TooLong,
    /// Not the JSON documented in this module: unknown, repeated or missing fields, an unknown kind, or bytes after it.
    #[error("bundle is not the documented JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is not what it should be.
    #[error("bundle: {field} is not {expected}")]
    Field {
        /// Path of the field.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A field is missing.
    #[error("bundle: cpu.{field} is missing: evidence of TEE {tee} needs it")]
    Missing {
        /// Name of the field.
        field: &'static str,
        /// Kind of the TEE.
        tee: Tee,
    },
    /// A field of another kind of TEE.
    #[error("bundle: cpu.{field} is not part of the evidence of TEE {tee}")]
    Unexpected {
        /// Name of the field.
        field: &'static str,
        /// Kind of the TEE.
        tee: Tee,
    },
    /// Neither CPU nor device.
    #[error("bundle holds no evidence: neither cpu nor devices")]
    Empty,
    /// More than [`MAX_DEVICES`] devices.
    #[error("bundle: devices has {0} entries, and at most {MAX_DEVICES} are understood")]
    TooManyDevices(usize),
}

// === impl Bundle ===

impl Bundle {
    /// Parses the JSON form.
    ///
    /// # Errors
    /// [`BundleError`] for anything but the documented form within its bounds.
    pub fn from_json(json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE_LEN {
            return Err(BundleError::TooLong);
        }
        let Object(wire) = serde_json::from_slice(json)?;
        Self::from_wire(wire)
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and lists of strings: serialising them has no error.
        serde_json::to_string(&self.to_wire()).unwrap_or_default()
    }

    /// `D` of the binding: over the exact evidence of each device, in order.
    #[must_use]
    pub fn devices_digest(&self) -> Sha256Digest {
        let devices: Vec<&[u8]> = self.devices.iter().map(|device| device.evidence.as_slice()).collect();
        binding::devices_digest(&devices)
    }

    pub(crate) fn from_wire(wire: WireBundle) -> Result<Self, BundleError> {
        if wire.cpu.is_none() && wire.devices.is_empty() {
            return Err(BundleError::Empty);
        }
        if wire.devices.len() > MAX_DEVICES {
            return Err(BundleError::TooManyDevices(wire.devices.len()));
        }
        let devices = wire.devices.into_iter().enumerate();
        Ok(Self {
            cpu: wire.cpu.map(|cpu| CpuEvidence::from_wire(cpu.0)).transpose()?,
            devices: devices
                .map(|(index, device)| DeviceEvidence::from_wire(index, &device.0))
                .collect::<Result<_, _>>()?,
            nonce: wire.nonce.as_deref().map(nonce).transpose()?,
        })
    }

    pub(crate) fn to_wire(&self) -> WireBundle {
        let devices = self.devices.iter().map(|device| {
            Object(WireDevice {
                arch: device.arch,
                evidence: STANDARD.encode(&device.evidence),
                certificate: STANDARD.encode(&device.certificate),
            })
        });
        WireBundle {
            cpu: self.cpu.as_ref().map(|cpu| Object(cpu.to_wire())),
            devices: devices.collect(),
            nonce: self.nonce.as_ref().map(hex::encode),
        }
    }
}

// === impl CpuEvidence ===

impl CpuEvidence {
    /// Kind of TEE that the evidence claims to be of.
    #[must_use]
    pub const fn tee(&self) -> Tee {
        match self {
            Self::Snp { .. } => Tee::Snp,
            Self::Tdx { .. } => Tee::Tdx,
            Self::Simulated { .. } => Tee::Simulated,
        }
    }

    fn from_wire(wire: WireCpu) -> Result<Self, BundleError> {
        let tee = wire.tee;
        let missing = |field| BundleError::Missing { field, tee };
        let unexpected = |field, present| {
            if present {
                return Err(BundleError::Unexpected { field, tee });
            }
            Ok(())
        };
        if tee == Tee::Tdx {
            unexpected("report", wire.report.is_some())?;
            unexpected("vek", wire.vek.is_some())?;
            unexpected("chain", wire.chain.is_some())?;
            let quote = wire.quote.ok_or_else(|| missing("quote"))?;
            return Ok(Self::Tdx {
                quote: base64("cpu.quote", &quote, MAX_REPORT_LEN)?,
                collateral: collateral(&wire.collateral.ok_or_else(|| missing("collateral"))?.0)?,
            });
        }
        unexpected("quote", wire.quote.is_some())?;
        unexpected("collateral", wire.collateral.is_some())?;
        unexpected("chain", tee == Tee::Snp && wire.chain.is_some())?;
        let report = wire.report.ok_or_else(|| missing("report"))?;
        let report = base64("cpu.report", &report, MAX_REPORT_LEN)?;
        let vek = vek(&wire.vek.ok_or_else(|| missing("vek"))?)?;
        if tee == Tee::Snp {
            return Ok(Self::Snp { report, vek });
        }
        let chain = wire.chain.ok_or_else(|| missing("chain"))?;
        if chain.len() > MAX_CHAIN_LEN {
            return Err(too_long("cpu.chain"));
        }
        Ok(Self::Simulated { report, vek, chain })
    }

    fn to_wire(&self) -> WireCpu {
        let mut wire = WireCpu {
            tee: self.tee(),
            report: None,
            vek: None,
            chain: None,
            quote: None,
            collateral: None,
        };
        match self {
            Self::Snp { report, vek } => {
                wire.report = Some(STANDARD.encode(report));
                wire.vek = Some(STANDARD.encode(vek));
            }
            Self::Simulated { report, vek, chain } => {
                wire.report = Some(STANDARD.encode(report));
                wire.vek = Some(STANDARD.encode(vek));
                wire.chain = Some(chain.clone());
            }
            Self::Tdx { quote, collateral } => {
                wire.quote = Some(STANDARD.encode(quote));
                // Text that is no collateral is left out, and what is written does not parse.
                wire.collateral = serde_json::from_str(collateral).ok();
            }
        }
        wire
    }
}

// === impl DeviceEvidence ===

impl DeviceEvidence {
    fn from_wire(index: usize, wire: &WireDevice) -> Result<Self, BundleError> {
        let field = |name| format!("devices[{index}].{name}");
        let certificate = field("certificate");
        let chain = base64(&certificate, &wire.certificate, MAX_DEVICE_CHAIN_LEN)?;
        Ok(Self {
            arch: wire.arch,
            evidence: base64(&field("evidence"), &wire.evidence, MAX_DEVICE_EVIDENCE_LEN)?,
            certificate: String::from_utf8(chain)
                .ok()
                .filter(|chain| chain.is_ascii())
                .ok_or(BundleError::Field {
                    field: certificate,
                    expected: "base64 of a PEM chain",
                })?,
        })
    }
}

// === fields ===

fn base64(field: &str, text: &str, max: usize) -> Result<Vec<u8>, BundleError> {
    let bytes = STANDARD.decode(text).map_err(|_| BundleError::Field {
        field: field.to_owned(),
        expected: "base64",
    })?;
    if bytes.len() > max {
        return Err(too_long(field));
    }
    Ok(bytes)
}

fn too_long(field: &str) -> BundleError {
    BundleError::Field {
        field: field.to_owned(),
        expected: "within its longest length",
    }
}

fn nonce(text: &str) -> Result<Vec<u8>, BundleError> {
    hex::decode(text)
        .ok()
        .filter(|nonce| (1..=MAX_NONCE_LEN).contains(&nonce.len()))
        .ok_or_else(|| BundleError::Field {
            field: "nonce".to_owned(),
            expected: "1 to 64 bytes of hex",
        })
}

/// DER as it is, or the first of one to four certificates in PEM: AMD's own, which follow, are built in.
fn vek(text: &str) -> Result<Vec<u8>, BundleError> {
    let bytes = base64("cpu.vek", text, MAX_CHAIN_LEN)?;
    let der = if bytes.starts_with(b"-----BEGIN ") {
        let malformed = || BundleError::Field {
            field: "cpu.vek".to_owned(),
            expected: "base64 of DER, or of PEM with one to four certificates",
        };
        first_certificate(&bytes).ok_or_else(malformed)?
    } else {
        bytes
    };
    if der.len() > MAX_VEK_LEN {
        return Err(too_long("cpu.vek"));
    }
    Ok(der)
}

fn first_certificate(pem: &[u8]) -> Option<Vec<u8>> {
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = std::str::from_utf8(pem).ok()?.trim();
    let mut first = None;
    for _ in 0..MAX_VEK_CERTIFICATES {
        let (one, after) = rest.split_at_checked(rest.find(END)?.checked_add(END.len())?)?;
        let (label, der) = der::pem::decode_vec(one.as_bytes()).ok()?;
        if label != "CERTIFICATE" {
            return None;
        }
        first = first.or(Some(der));
        rest = after.trim_start();
        if rest.is_empty() {
            return first;
        }
    }
    None
}

fn collateral(wire: &WireCollateral) -> Result<String, BundleError> {
    let json = serde_json::to_string(wire)?;
    if json.len() > MAX_COLLATERAL_LEN {
        return Err(too_long("cpu.collateral"));
    }
    Ok(json)
}

// === wire ===

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireBundle {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu: Option<Object<WireCpu>>,
    #[serde(default)]
    devices: Vec<Object<WireDevice>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCpu {
    tee: Tee,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vek: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quote: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collateral: Option<Object<WireCollateral>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDevice {
    arch: DeviceArch,
    evidence: String,
    certificate: String,
}

/// The fields of dcap-qvl 0.7's `QuoteCollateralV3`; it would ignore others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCollateral {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pck_certificate_chain: Option<String>,
}
