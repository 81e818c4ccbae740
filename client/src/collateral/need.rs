//! What a piece of evidence needs.

use super::amd::Tcb;
use super::fields::{DeviceFields, SnpFields, certificate, quote_platform};
use super::name::{Entry, FmspcCa, NameError, Product};
use super::nvidia;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;

/// Largest bundle, bytes of JSON.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;
/// Most devices of a bundle.
const MAX_DEVICES: usize = 16;

/// One thing to be had of a vendor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// ASK and ARK.
    AmdChain(Product),
    /// ASVK and ARK.
    AmdVlekChain(Product),
    /// AMD's revocation list.
    AmdCrl(Product),
    /// A chip's certificate.
    Vcek {
        /// The generation.
        product: Product,
        /// What the service knows the chip by.
        hwid: Vec<u8>,
        /// The reported TCB.
        tcb: Tcb,
    },
    /// Collateral of a kind of platform.
    Intel {
        /// The platform.
        fmspc: [u8; 6],
        /// The authority of its certificates.
        ca: FmspcCa,
    },
    /// A RIM document.
    Rim(String),
    /// Status of a certificate.
    Status {
        /// DER.
        certificate: Vec<u8>,
        /// DER of who issued it.
        issuer: Vec<u8>,
    },
}

/// A bundle from which it cannot be seen what is needed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Too large.
    #[error("the bundle is longer than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
    /// Not JSON of a bundle.
    #[error("not a bundle: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is not what it should be.
    #[error("bundle: {field}: {reason}")]
    Field {
        /// Where.
        field: String,
        /// What.
        reason: String,
    },
}

/// As much of a bundle as is looked at: what is to be fetched may be missing from it.
#[derive(Deserialize)]
struct Bundle {
    cpu: Option<Cpu>,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Cpu {
    tee: String,
    report: Option<String>,
    vek: Option<String>,
    quote: Option<String>,
}

#[derive(Deserialize)]
struct Device {
    arch: String,
    evidence: String,
    certificate: Option<String>,
}

// === impl Need ===

impl Need {
    /// Everything about a generation of AMD's chips that is not of one chip.
    pub fn amd_product(product: Product) -> [Self; 3] {
        [
            Self::AmdChain(product),
            Self::AmdVlekChain(product),
            Self::AmdCrl(product),
        ]
    }

    /// Where it is kept.
    ///
    /// # Errors
    ///
    /// An id of other characters than ids have.
    pub fn entry(&self) -> Result<Entry, NameError> {
        Ok(match self {
            Self::AmdChain(product) => Entry::amd_chain(*product),
            Self::AmdVlekChain(product) => Entry::amd_vlek_chain(*product),
            Self::AmdCrl(product) => Entry::amd_crl(*product),
            Self::Vcek { product, hwid, tcb } => Entry::vcek(*product, hwid, &tcb.name()),
            Self::Intel { fmspc, ca } => Entry::intel(*fmspc, *ca),
            Self::Rim(id) => Entry::rim(id)?,
            Self::Status { certificate, .. } => Entry::ocsp(&sha256(certificate)),
        })
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AmdChain(product) => write!(f, "AMD {product} chain"),
            Self::AmdVlekChain(product) => write!(f, "AMD {product} VLEK chain"),
            Self::AmdCrl(product) => write!(f, "AMD {product} revocation list"),
            Self::Vcek { product, hwid, tcb } => {
                let id = hex::encode(hwid.get(..4).unwrap_or(hwid));
                write!(f, "AMD {product} VCEK of chip {id}.. at {}", tcb.name().as_str())
            }
            Self::Intel { fmspc, ca } => write!(f, "Intel collateral of {} ({ca})", hex::encode(fmspc)),
            Self::Rim(id) => write!(f, "NVIDIA RIM {id}"),
            Self::Status { certificate: der, .. } => {
                let name = certificate(der).map(|parsed| parsed.tbs_certificate.subject.to_string());
                write!(f, "NVIDIA status of {}", name.as_deref().unwrap_or("a certificate"))
            }
        }
    }
}

/// What a bundle's evidence needs. `product` is for reports of version 2, which do not say their chip's generation.
///
/// # Errors
///
/// The bundle is none, or does not say what is needed.
pub fn of_bundle(json: &[u8], product: Option<Product>) -> Result<BTreeSet<Need>, BundleError> {
    if json.len() > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge);
    }
    let bundle: Bundle = serde_json::from_slice(json)?;
    let mut needs = BTreeSet::new();
    if let Some(cpu) = &bundle.cpu {
        match cpu.tee.as_str() {
            "snp" => needs.extend(of_snp(cpu, product)?),
            "tdx" => needs.extend(of_tdx(cpu)?),
            "simulated" => {}
            other => return Err(field("cpu.tee", format!("{other:?} is not a kind of TEE"))),
        }
    }
    if bundle.devices.len() > MAX_DEVICES {
        return Err(field("devices", format!("more than {MAX_DEVICES}")));
    }
    for (index, device) in bundle.devices.iter().enumerate() {
        needs.extend(of_device(index, device)?);
    }
    Ok(needs)
}

fn of_snp(cpu: &Cpu, product: Option<Product>) -> Result<Vec<Need>, BundleError> {
    let report = base64("cpu.report", cpu.report.as_deref())?;
    let fields = SnpFields::read(&report).ok_or_else(|| field("cpu.report", "not a report of SEV-SNP"))?;
    let product = fields
        .product
        .or(product)
        .or_else(|| vek_product(cpu.vek.as_deref()))
        .ok_or_else(|| {
            field(
                "cpu.report",
                "version 2 does not say the chip's generation: add --product",
            )
        })?;
    if fields.vlek {
        // The cloud provider hands the VLEK itself to its guests; the service has only what is above it.
        return Ok(vec![Need::AmdVlekChain(product), Need::AmdCrl(product)]);
    }
    let hwid = fields.chip_id.get(..product.hwid_len()).unwrap_or(&fields.chip_id);
    if hwid.iter().all(|byte| *byte == 0) {
        return Err(field(
            "cpu.report",
            "the chip id is masked: no certificate can be asked for",
        ));
    }
    Ok(vec![
        Need::AmdChain(product),
        Need::AmdCrl(product),
        Need::Vcek {
            product,
            hwid: hwid.to_vec(),
            tcb: fields.tcb(product),
        },
    ])
}

/// The generation that the certificate in a bundle is of, by its issuer's name.
fn vek_product(vek: Option<&str>) -> Option<Product> {
    let bytes = STANDARD.decode(vek?).ok()?;
    let der = match std::str::from_utf8(&bytes) {
        Ok(pem) => super::fields::pem_certificates(pem).into_iter().next()?,
        Err(_) => bytes,
    };
    let issuer = certificate(&der)?.tbs_certificate.issuer.to_string();
    let mut parts = issuer.split([',', '+']);
    parts.find_map(|part| part.strip_prefix("CN=SEV-")?.trim_start_matches("VLEK-").parse().ok())
}

fn of_tdx(cpu: &Cpu) -> Result<Vec<Need>, BundleError> {
    let quote = base64("cpu.quote", cpu.quote.as_deref())?;
    let (fmspc, ca) = quote_platform(&quote).ok_or_else(|| {
        field(
            "cpu.quote",
            "no certificate of Intel's for the platform is in the quote",
        )
    })?;
    Ok(vec![Need::Intel { fmspc, ca }])
}

fn of_device(index: usize, device: &Device) -> Result<Vec<Need>, BundleError> {
    let name = |part: &str| format!("devices[{index}].{part}");
    let evidence = base64(&name("evidence"), Some(&device.evidence))?;
    let fields = DeviceFields::read(&evidence).ok_or_else(|| field(&name("evidence"), "not a device's report"))?;
    let ids = nvidia::rim_ids(&device.arch, &fields).map_err(|reason| field(&name("evidence"), reason))?;
    let mut needs: Vec<Need> = ids.into_iter().map(Need::Rim).collect();
    for need in &needs {
        need.entry()
            .map_err(|error| field(&name("evidence"), error.to_string()))?;
    }
    if let Some(chain) = &device.certificate {
        let chain = base64(&name("certificate"), Some(chain))?;
        let chain = String::from_utf8(chain).map_err(|_| field(&name("certificate"), "not PEM"))?;
        needs.extend(statuses(nvidia::device_chain(&chain)));
    }
    Ok(needs)
}

/// The status of each certificate of a RIM document's chain.
pub(super) fn of_rim(document: &[u8]) -> impl Iterator<Item = Need> {
    statuses(nvidia::rim_chain(document))
}

fn statuses(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> impl Iterator<Item = Need> {
    pairs
        .into_iter()
        .map(|(certificate, issuer)| Need::Status { certificate, issuer })
}

fn base64(name: &str, text: Option<&str>) -> Result<Vec<u8>, BundleError> {
    let text = text.ok_or_else(|| field(name, "missing"))?;
    STANDARD.decode(text).map_err(|_| field(name, "not base64"))
}

fn field(name: &str, reason: impl Into<String>) -> BundleError {
    BundleError::Field {
        field: name.to_owned(),
        reason: reason.into(),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}
