//! The few fields of evidence that say what to ask for. Read without verification: a wrong one asks for the wrong thing, and the
//! verifier refuses what does not fit.

use super::amd::Tcb;
use super::name::{FmspcCa, Product};
use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode, Reader, SliceReader};
use x509_cert::Certificate;

/// Extension of a PCK certificate, and its FMSPC (Intel, PCK Certificate and CRL Profile, section 1.3.5).
const SGX_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
const FMSPC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.4");
/// Length of the SPDM request before the response (DSP0274, GET_MEASUREMENTS with a slot).
const SPDM_REQUEST_LEN: usize = 37;

/// Which key signed a report of SEV-SNP, and of which chip it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SnpFields {
    /// From the CPUID fields, which version 2 does not have.
    pub(super) product: Option<Product>,
    /// Whether a VLEK signed it.
    pub(super) vlek: bool,
    pub(super) chip_id: [u8; 64],
    reported_tcb: [u8; 8],
}

/// What a device's report says of its firmware.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceFields {
    pub(super) driver: Option<String>,
    pub(super) vbios: Option<Vec<u8>>,
    pub(super) project: Option<String>,
    pub(super) project_sku: Option<String>,
    pub(super) chip_sku: Option<String>,
    pub(super) chip: Option<String>,
}

impl SnpFields {
    /// Reads a report (AMD 56860, table 23).
    pub(super) fn read(report: &[u8]) -> Option<Self> {
        let version = u32::from_le_bytes(array(report, 0)?);
        let [flags, ..] = array::<4>(report, 0x48)?;
        let [family, model] = array(report, 0x188)?;
        Some(Self {
            product: if version >= 3 { product(family, model) } else { None },
            vlek: (flags >> 2) & 0b111 == 1,
            chip_id: array(report, 0x1a0)?,
            reported_tcb: array(report, 0x180)?,
        })
    }

    /// The reported TCB, whose layout depends on the generation.
    pub(super) fn tcb(&self, product: Product) -> Tcb {
        let [a, b, c, d, _, _, snp, microcode] = self.reported_tcb;
        match product {
            Product::Turin => Tcb {
                fmc: Some(a),
                bootloader: b,
                tee: c,
                snp: d,
                microcode,
            },
            Product::Milan | Product::Genoa => Tcb {
                fmc: None,
                bootloader: a,
                tee: b,
                snp,
                microcode,
            },
        }
    }
}

/// The generation that CPUID stands for.
const fn product(family: u8, model: u8) -> Option<Product> {
    match (family, model) {
        (0x19, 0x00..=0x0f) => Some(Product::Milan),
        (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Product::Genoa),
        (0x1a, 0x00..=0x11) => Some(Product::Turin),
        _ => None,
    }
}

/// FMSPC and authority of the PCK certificate in a quote (certification data of type 5).
pub(super) fn quote_platform(quote: &[u8]) -> Option<([u8; 6], FmspcCa)> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let at = quote.windows(BEGIN.len()).position(|window| window == BEGIN)?;
    let pem = String::from_utf8_lossy(quote.get(at..)?).into_owned();
    let pck = pem_certificates(&pem).into_iter().next()?;
    let pck = Certificate::from_der(&pck).ok()?;
    Some((fmspc(&pck)?, authority(&pck)?))
}

fn fmspc(pck: &Certificate) -> Option<[u8; 6]> {
    let extensions = pck.tbs_certificate.extensions.as_ref()?;
    let sgx = extensions.iter().find(|extension| extension.extn_id == SGX_EXTENSION)?;
    // SEQUENCE OF SEQUENCE { OID, ANY }
    let list = AnyRef::from_der(sgx.extn_value.as_bytes()).ok()?;
    let mut items = SliceReader::new(list.value()).ok()?;
    while !items.is_finished() {
        let item = AnyRef::decode(&mut items).ok()?;
        let mut fields = SliceReader::new(item.value()).ok()?;
        if ObjectIdentifier::decode(&mut fields).ok()? == FMSPC {
            return OctetStringRef::decode(&mut fields).ok()?.as_bytes().try_into().ok();
        }
    }
    None
}

fn authority(pck: &Certificate) -> Option<FmspcCa> {
    let issuer = pck.tbs_certificate.issuer.to_string();
    if issuer.contains("Intel SGX PCK Platform CA") {
        Some(FmspcCa::Platform)
    } else if issuer.contains("Intel SGX PCK Processor CA") {
        Some(FmspcCa::Processor)
    } else {
        None
    }
}

impl DeviceFields {
    /// Reads the opaque data of a report: after the measurements and the responder's nonce, TLVs of {type u16, length u16}.
    pub(super) fn read(evidence: &[u8]) -> Option<Self> {
        let response = evidence.get(SPDM_REQUEST_LEN..)?;
        let [low, middle, high] = array(response, 5)?;
        let measurements = usize::try_from(u32::from_le_bytes([low, middle, high, 0])).ok()?;
        let opaque = response.get(8_usize.checked_add(measurements)?.checked_add(32)?..)?;
        let length = usize::from(u16::from_le_bytes(array(opaque, 0)?));
        let mut rest = opaque.get(2..)?.get(..length)?;
        let mut fields = Self::default();
        while !rest.is_empty() {
            let kind = u16::from_le_bytes(array(rest, 0)?);
            let length = usize::from(u16::from_le_bytes(array(rest, 2)?));
            let value = rest.get(4..)?.get(..length)?;
            fields.set(kind, value);
            rest = rest.get(4_usize.checked_add(length)?..)?;
        }
        Some(fields)
    }

    fn set(&mut self, kind: u16, value: &[u8]) {
        match kind {
            3 => self.driver = text(value),
            6 => self.vbios = Some(value.to_vec()),
            15 => self.chip_sku = text(value),
            17 => self.project = text(value),
            18 => self.project_sku = text(value),
            35 => self.chip = text(value),
            _ => {}
        }
    }
}

/// Text that ends in zeros.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// DER of each certificate of a PEM text; what is between them is passed over.
pub(super) fn pem_certificates(pem: &str) -> Vec<Vec<u8>> {
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some(start) = rest.find("-----BEGIN CERTIFICATE-----") {
        let one = rest.get(start..).unwrap_or_default();
        let Some(end) = one.find(END).and_then(|at| at.checked_add(END.len())) else {
            break;
        };
        let (one, after) = one.split_at_checked(end).unwrap_or_default();
        if let Ok((_, der)) = der::pem::decode_vec(one.as_bytes()) {
            found.push(der);
        }
        rest = after;
    }
    found
}

/// A certificate that is DER from the first byte to the last.
pub(super) fn certificate(der: &[u8]) -> Option<Certificate> {
    let parsed = Certificate::from_der(der).ok()?;
    parsed.tbs_certificate.to_der().ok()?;
    Some(parsed)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(path: &str) -> Vec<u8> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../attestation/testdata/");
        std::fs::read(format!("{root}{path}")).unwrap()
    }

    #[test]
    fn a_report_says_which_chip_and_tcb() {
        let genoa = SnpFields::read(&data("snp/extracted/az_genoa.rep")).unwrap();
        assert_eq!((genoa.product, genoa.vlek), (Some(Product::Genoa), false));
        let vlek = SnpFields::read(&data("snp/trustee_vlek_report.bin")).unwrap();
        assert_eq!((vlek.product, vlek.vlek), (Some(Product::Milan), true));
        let old = SnpFields::read(&data("snp/trustee_report.bin")).unwrap();
        assert_eq!(old.product, None);
        assert_eq!(SnpFields::read(&[0; 100]), None);
    }

    #[test]
    fn turins_tcb_has_another_layout() {
        let fields = SnpFields {
            product: Some(Product::Turin),
            vlek: false,
            chip_id: [0; 64],
            reported_tcb: [1, 2, 3, 4, 0, 0, 9, 8],
        };
        let turin = fields.tcb(Product::Turin);
        assert_eq!(
            (turin.fmc, turin.bootloader, turin.tee, turin.snp, turin.microcode),
            (Some(1), 2, 3, 4, 8)
        );
        let milan = fields.tcb(Product::Milan);
        assert_eq!(
            (milan.fmc, milan.bootloader, milan.tee, milan.snp, milan.microcode),
            (None, 1, 2, 9, 8)
        );
    }

    #[test]
    fn a_quote_says_which_platform() {
        let (fmspc, ca) = quote_platform(&data("tdx/gotdx_quote_v5_sample.dat")).unwrap();
        assert_eq!((hex::encode(fmspc).as_str(), ca), ("90c06f000000", FmspcCa::Platform));
        assert_eq!(quote_platform(b"no certificate"), None);
    }

    #[test]
    fn truncated_evidence_is_no_panic() {
        let report = hex::decode(data("nvidia/e2e_pass/report.hex").trim_ascii()).unwrap();
        for length in 0..report.len() {
            let _ = DeviceFields::read(&report[..length]);
        }
        let quote = data("tdx/gotdx_quote_v5_sample.dat");
        for length in (0..quote.len()).step_by(97) {
            let _ = quote_platform(&quote[..length]);
        }
    }
}
