//! A quote as bytes: Intel's Quoting Library API, appendix A.3 (version 4) and A.4 (version 5), all little-endian.
//!
//! `dcap-qvl` verifies the signatures of a quote but takes bytes after any of its parts, every type of certification data
//! and whatever stands in reserved bytes. So all of them are looked at here, before it sees the quote.

use super::pem;
use super::policy::{BitSet, TeeTcbSvn};
use super::refusal::TdxRefusal;
use crate::policy::Measurement;

/// Longest quote in bytes. Real ones have 5,000, and quoting services pad them with zeros to as much as 8,000.
pub const MAX_QUOTE_LEN: usize = 16 * 1024;
/// Longest certificate chain in a quote, in bytes of PEM.
pub const MAX_CHAIN_LEN: usize = 8 * 1024;
/// Length in bytes of the data that the quoting enclave adds to its key.
const QE_AUTH_DATA_LEN: usize = 32;

/// `tee_type` of TDX; that of SGX is 0.
const TEE_TDX: u32 = 0x81;
const TEE_SGX: u32 = 0;
/// ECDSA with P-256: the only kind of attestation key that there is.
const KEY_ECDSA_P256: u16 = 2;
/// Intel's quoting enclave.
const INTEL_QE: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// Kind of certification data that holds the quoting enclave's report.
const CERT_QE_REPORT: u16 = 6;
/// Kind of certification data that holds a chain of certificates.
const CERT_CHAIN: u16 = 5;
/// Certificates of that chain: the platform's, Intel's for platforms, Intel's root.
const CHAIN_CERTS: usize = 3;
/// Where the quoting enclave's report holds its report data, of which the second half must be zeros.
const QE_REPORT_HEAD: usize = 352;

/// Which layout the guest's report has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// TDX 1.0: 584 bytes.
    Td10,
    /// TDX 1.5: 648 bytes.
    Td15,
    /// TDX 1.5 with the extended report: 885 bytes.
    Td15Ex,
}

/// Header of a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 4 or 5.
    pub version: u16,
    /// Kind of the attestation key: 2.
    pub key_type: u16,
    /// 0x81.
    pub tee_type: u32,
    /// Whose quoting enclave it is: Intel's.
    pub vendor_id: [u8; 16],
    /// Chosen by the quoting enclave; its first 16 bytes identify it.
    pub user_data: [u8; 20],
}

/// What the guest's report says. Lists are `RTMR` 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Which layout it had.
    pub kind: BodyKind,
    /// Security versions of the TDX module when the guest was launched.
    pub tee_tcb_svn: TeeTcbSvn,
    /// Measurement of the TDX module.
    pub mr_seam: Measurement,
    /// Its signer: zeros for Intel.
    pub mr_signer_seam: Measurement,
    /// Its attributes.
    pub seam_attributes: BitSet,
    /// Attributes of the guest.
    pub td_attributes: BitSet,
    /// What the guest may use of the processor.
    pub xfam: BitSet,
    /// Measurement of the guest's first memory.
    pub mr_td: Measurement,
    /// Digest of the guest's init data.
    pub mr_config_id: Measurement,
    /// Who launched it.
    pub mr_owner: Measurement,
    /// What its launcher configured.
    pub mr_owner_config: Measurement,
    /// Runtime measurements.
    pub rtmr: [Measurement; 4],
    /// 64 bytes that the guest chose.
    pub report_data: [u8; 64],
    /// From TDX 1.5 on.
    pub td15: Option<Td15>,
    /// The extended report.
    pub ex: Option<Td15Ex>,
}

/// What TDX 1.5 adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Td15 {
    /// Security versions of the TDX module now.
    pub tee_tcb_svn2: TeeTcbSvn,
    /// Measurement of the guests that serve this one.
    pub mr_service_td: Measurement,
}

/// What the extended report adds, as far as it is appraised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Td15Ex {
    /// Measurement of the guests that serve this one now.
    pub cur_service_td: Measurement,
}

/// A quote, taken apart. It proves nothing yet.
#[derive(Debug, Clone)]
pub(crate) struct Quote {
    pub(crate) header: Header,
    pub(crate) body: Body,
    /// Certificates of the platform, leaf first, as DER.
    pub(crate) chain: Vec<Vec<u8>>,
}

/// Takes bytes from the front; every shortage names what is missing.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], TdxRefusal> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(TdxRefusal::Truncated(field))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], TdxRefusal> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(TdxRefusal::Truncated(field))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, TdxRefusal> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, TdxRefusal> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A length of four bytes and as many bytes, at most `max`.
    pub(crate) fn counted(&mut self, max: usize, field: &'static str) -> Result<&'a [u8], TdxRefusal> {
        let len = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if len > max {
            return Err(TdxRefusal::TooLong { field, len, max });
        }
        self.take(len, field)
    }

    fn register(&mut self, field: &'static str) -> Result<Measurement, TdxRefusal> {
        self.array(field).map(Measurement::from_bytes)
    }

    pub(crate) fn end(self, field: &'static str) -> Result<(), TdxRefusal> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(TdxRefusal::TrailingBytes(field))
        }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl Quote {
    /// Parses a quote and everything in it, but for what a certificate says.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TdxRefusal> {
        if bytes.len() > MAX_QUOTE_LEN {
            return Err(TdxRefusal::TooLong {
                field: "quote",
                len: bytes.len(),
                max: MAX_QUOTE_LEN,
            });
        }
        let mut reader = Reader::new(bytes);
        let header = Header::parse(&mut reader)?;
        let kind = body_kind(&header, &mut reader)?;
        let body = Body::parse(kind, &mut reader)?;
        let chain = parse_signature(reader.counted(MAX_QUOTE_LEN, "signature data")?)?;
        // Quoting services answer with a buffer of fixed length: nothing but zeros may fill it.
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(TdxRefusal::TrailingBytes("quote"));
        }
        Ok(Self { header, body, chain })
    }
}

impl Header {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, TdxRefusal> {
        let version = reader.u16("header")?;
        let key_type = reader.u16("header")?;
        let tee_type = reader.u32("header")?;
        let reserved = reader.u32("header")?;
        let header = Self {
            version,
            key_type,
            tee_type,
            vendor_id: reader.array("header")?,
            user_data: reader.array("header")?,
        };
        if tee_type == TEE_SGX {
            return Err(TdxRefusal::Sgx);
        }
        if tee_type != TEE_TDX {
            return Err(TdxRefusal::TeeType(tee_type));
        }
        if !matches!(version, 4 | 5) {
            return Err(TdxRefusal::Version(version));
        }
        if key_type != KEY_ECDSA_P256 {
            return Err(TdxRefusal::KeyType(key_type));
        }
        if header.vendor_id != INTEL_QE {
            return Err(TdxRefusal::Vendor);
        }
        if reserved != 0 {
            return Err(TdxRefusal::ReservedBytes("quote header"));
        }
        Ok(header)
    }
}

/// Version 4 has the body of TDX 1.0; version 5 says which one, and its length.
fn body_kind(header: &Header, reader: &mut Reader<'_>) -> Result<BodyKind, TdxRefusal> {
    if header.version == 4 {
        return Ok(BodyKind::Td10);
    }
    let kind = reader.u16("body type")?;
    let len = reader.u32("body length")?;
    let (kind, expected) = match kind {
        1 => return Err(TdxRefusal::Sgx),
        2 => (BodyKind::Td10, 584),
        3 => (BodyKind::Td15, 648),
        4 => (BodyKind::Td15Ex, 885),
        other => return Err(TdxRefusal::BodyType(other)),
    };
    if len == expected {
        Ok(kind)
    } else {
        Err(TdxRefusal::BodyLength { found: len, expected })
    }
}

impl Body {
    fn parse(kind: BodyKind, reader: &mut Reader<'_>) -> Result<Self, TdxRefusal> {
        const FIELD: &str = "guest's report";
        let mut body = Self {
            kind,
            tee_tcb_svn: TeeTcbSvn::from_bytes(reader.array(FIELD)?),
            mr_seam: reader.register(FIELD)?,
            mr_signer_seam: reader.register(FIELD)?,
            seam_attributes: BitSet::from_bytes(reader.array(FIELD)?),
            td_attributes: BitSet::from_bytes(reader.array(FIELD)?),
            xfam: BitSet::from_bytes(reader.array(FIELD)?),
            mr_td: reader.register(FIELD)?,
            mr_config_id: reader.register(FIELD)?,
            mr_owner: reader.register(FIELD)?,
            mr_owner_config: reader.register(FIELD)?,
            rtmr: [
                reader.register(FIELD)?,
                reader.register(FIELD)?,
                reader.register(FIELD)?,
                reader.register(FIELD)?,
            ],
            report_data: reader.array(FIELD)?,
            td15: None,
            ex: None,
        };
        if matches!(kind, BodyKind::Td15 | BodyKind::Td15Ex) {
            body.td15 = Some(Td15 {
                tee_tcb_svn2: TeeTcbSvn::from_bytes(reader.array(FIELD)?),
                mr_service_td: reader.register(FIELD)?,
            });
        }
        if kind == BodyKind::Td15Ex {
            // VM index, TD id, device information, then what it was created with: service TDs and their attributes,
            // processor, module and platform versions.
            reader.take(1 + 32 + 48 + 48 + 8 + 16 + 16 + 12, FIELD)?;
            body.ex = Some(Td15Ex {
                cur_service_td: reader.register(FIELD)?,
            });
            reader.take(8, FIELD)?;
        }
        Ok(body)
    }
}

/// Signature, key and, as certification data, the quoting enclave's report with the platform's chain in it.
fn parse_signature(bytes: &[u8]) -> Result<Vec<Vec<u8>>, TdxRefusal> {
    let mut reader = Reader::new(bytes);
    reader.take(64, "quote signature")?;
    reader.take(64, "attestation key")?;
    certification_type(&mut reader, CERT_QE_REPORT)?;
    let mut inner = Reader::new(reader.counted(MAX_QUOTE_LEN, "certification data")?);
    reader.end("signature data")?;
    let report = inner.take(384, "quoting enclave's report")?;
    if report.iter().skip(QE_REPORT_HEAD).any(|byte| *byte != 0) {
        return Err(TdxRefusal::ReservedBytes("quoting enclave's report"));
    }
    inner.take(64, "quoting enclave's signature")?;
    let auth_len = usize::from(inner.u16("quoting enclave's data")?);
    if auth_len != QE_AUTH_DATA_LEN {
        return Err(TdxRefusal::QeAuthData(auth_len));
    }
    inner.take(auth_len, "quoting enclave's data")?;
    certification_type(&mut inner, CERT_CHAIN)?;
    let chain = inner.counted(MAX_CHAIN_LEN, "certificate chain of the quote")?;
    inner.end("certification data")?;
    pem::certificates(chain, CHAIN_CERTS, "certificate chain of the quote")
}

fn certification_type(reader: &mut Reader<'_>, expected: u16) -> Result<(), TdxRefusal> {
    let found = reader.u16("type of certification data")?;
    if found == expected {
        Ok(())
    } else {
        Err(TdxRefusal::CertificationData { found, expected })
    }
}
