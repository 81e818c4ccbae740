//! Intel's collateral: what it signed about a family of platforms and its quoting enclave, and what it revoked.
//!
//! `dcap-qvl` verifies it. It does not look at the certificates that it has no use for (the roots at the end of the chains
//! and the issuer of the list of revoked platforms), at the beginning of a revocation list's validity, or at `pceId`.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use dcap_qvl::QuoteCollateralV3;
use der::{Decode, Encode};
use serde::{Deserialize, Deserializer};
use spki::AlgorithmIdentifierOwned;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

use super::pem;
use super::refusal::{Collateral as Part, TdxRefusal};
use crate::ids::UnixTime;
use crate::x509;

/// Longest collateral in bytes of JSON. Real ones have 20,000.
pub const MAX_COLLATERAL_LEN: usize = 512 * 1024;
/// Longest time as text in the collateral.
const TIME_LEN: usize = 20;
/// AlgorithmIdentifier ecdsa-with-SHA256, without parameters (RFC 5758, section 3.2).
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";

/// Collateral in the form of `QuoteCollateralV3`: bytes are hex digits. Each chain is a certificate and the root.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    pck_crl_issuer_chain: String,
    #[serde(deserialize_with = "hex_bytes")]
    root_ca_crl: Vec<u8>,
    #[serde(deserialize_with = "hex_bytes")]
    pck_crl: Vec<u8>,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    #[serde(deserialize_with = "hex_bytes")]
    tcb_info_signature: Vec<u8>,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    #[serde(deserialize_with = "hex_bytes")]
    qe_identity_signature: Vec<u8>,
    #[serde(default)]
    pck_certificate_chain: Option<String>,
}

/// What is needed of the TCB info before its signature is checked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcbInfo {
    id: String,
    version: u8,
    fmspc: String,
    pce_id: String,
    issue_date: String,
    next_update: String,
}

/// The same of the QE identity.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QeIdentity {
    issue_date: String,
    next_update: String,
}

/// When a part of the collateral is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) part: Part,
    pub(crate) from: UnixTime,
    /// First second in which it is not valid.
    pub(crate) until: UnixTime,
}

/// Collateral, parsed. What it says is not verified yet.
#[derive(Debug)]
pub(crate) struct Collateral {
    pub(crate) all: QuoteCollateralV3,
    pub(crate) windows: [Window; 4],
    /// `fmspc` of the TCB info, in lower case.
    pub(crate) fmspc: String,
    /// `pceId` of the TCB info, in lower case.
    pub(crate) pce_id: String,
    /// Chain of the platform, if it came with the collateral.
    pub(crate) pck_chain: Option<Vec<Vec<u8>>>,
    revoked_platforms: PckCrl,
}

/// The list of revoked platforms and the certificate that came with it, as DER.
#[derive(Debug)]
struct PckCrl {
    list: Vec<u8>,
    issuer: Vec<u8>,
}

impl Collateral {
    pub(crate) fn parse(json: &str, root: &[u8]) -> Result<Self, TdxRefusal> {
        if json.len() > MAX_COLLATERAL_LEN {
            return Err(TdxRefusal::TooLong {
                field: "collateral",
                len: json.len(),
                max: MAX_COLLATERAL_LEN,
            });
        }
        let json: Json = from_json(json)?;
        let tcb: TcbInfo = from_json(&json.tcb_info)?;
        let qe: QeIdentity = from_json(&json.qe_identity)?;
        if tcb.id != "TDX" || tcb.version < 3 {
            return Err(TdxRefusal::TcbInfoKind(format!("{} version {}", tcb.id, tcb.version)));
        }
        let tcb_window = Window::signed(Part::TcbInfo, &tcb.issue_date, &tcb.next_update)?;
        let qe_window = Window::signed(Part::QeIdentity, &qe.issue_date, &qe.next_update)?;
        issued_by_root(&json.tcb_info_issuer_chain, "issuer chain of the TCB info", root)?;
        issued_by_root(&json.qe_identity_issuer_chain, "issuer chain of the QE identity", root)?;
        let pck_crl = parse_crl(&json.pck_crl, Part::PckCrl)?;
        let root_crl = parse_crl(&json.root_ca_crl, Part::RootCrl)?;
        let issuer = issued_by_root(&json.pck_crl_issuer_chain, "issuer chain of the revocation list", root)?;
        let pck_chain = json
            .pck_certificate_chain
            .as_deref()
            .map(|chain| pem::certificates(chain.as_bytes(), 3, "certificate chain of the collateral"));
        Ok(Self {
            windows: [
                tcb_window,
                qe_window,
                Window::of_crl(Part::RootCrl, &root_crl)?,
                Window::of_crl(Part::PckCrl, &pck_crl)?,
            ],
            fmspc: tcb.fmspc.to_ascii_lowercase(),
            pce_id: tcb.pce_id.to_ascii_lowercase(),
            pck_chain: pck_chain.transpose()?,
            revoked_platforms: PckCrl {
                list: json.pck_crl.clone(),
                issuer,
            },
            all: json.into_all(),
        })
    }

    /// All four parts are valid at `now`, and the list of revoked platforms is by whom it says.
    pub(crate) fn check(&self, root: &[u8], now: UnixTime) -> Result<(), TdxRefusal> {
        self.windows.iter().try_for_each(|window| window.check(now))?;
        self.revoked_platforms.check(root, now)
    }
}

impl Json {
    /// Without the platform's chain: the quote's own counts.
    fn into_all(self) -> QuoteCollateralV3 {
        QuoteCollateralV3 {
            pck_crl_issuer_chain: self.pck_crl_issuer_chain,
            root_ca_crl: self.root_ca_crl,
            pck_crl: self.pck_crl,
            tcb_info_issuer_chain: self.tcb_info_issuer_chain,
            tcb_info: self.tcb_info,
            tcb_info_signature: self.tcb_info_signature,
            qe_identity_issuer_chain: self.qe_identity_issuer_chain,
            qe_identity: self.qe_identity,
            qe_identity_signature: self.qe_identity_signature,
            pck_certificate_chain: None,
        }
    }
}

impl Window {
    fn signed(part: Part, from: &str, until: &str) -> Result<Self, TdxRefusal> {
        let time = |text| parse_time(text).ok_or_else(|| malformed(format!("{part}: not a time: {text:?}")));
        Ok(Self {
            part,
            from: time(from)?,
            until: time(until)?,
        })
    }

    fn of_crl(part: Part, crl: &CertificateList) -> Result<Self, TdxRefusal> {
        let tbs = &crl.tbs_cert_list;
        let until = tbs
            .next_update
            .ok_or_else(|| malformed(format!("{part} names no next update")))?;
        Ok(Self {
            part,
            from: UnixTime(tbs.this_update.to_unix_duration().as_secs()),
            until: UnixTime(until.to_unix_duration().as_secs()),
        })
    }

    fn check(&self, now: UnixTime) -> Result<(), TdxRefusal> {
        let (what, from, until) = (self.part, self.from, self.until);
        if now < from {
            return Err(TdxRefusal::NotYetValid { what, from });
        }
        if now >= until {
            return Err(TdxRefusal::Expired { what, until });
        }
        Ok(())
    }
}

/// Two certificates, of which the second is the root.
fn issued_by_root(chain: &str, what: &'static str, root: &[u8]) -> Result<Vec<u8>, TdxRefusal> {
    let chain = pem::certificates(chain.as_bytes(), 2, what)?;
    match chain.as_slice() {
        [issuer, last] if last == root => Ok(issuer.clone()),
        _ => Err(TdxRefusal::Root(what)),
    }
}

fn parse_crl(der: &[u8], part: Part) -> Result<CertificateList, TdxRefusal> {
    CertificateList::from_der(der).map_err(|_| malformed(format!("{part} is not one DER revocation list")))
}

/// What is signed, with which algorithm on the outside and on the inside, and the signature.
struct Signed<'a> {
    bytes: &'a [u8],
    algorithms: [&'a AlgorithmIdentifierOwned; 2],
    signature: Option<&'a [u8]>,
}

impl Signed<'_> {
    /// By ECDSA over P-256 with SHA-256, all that Intel uses, and the key of `signer`.
    fn is_by(&self, signer: &x509::Certificate<'_>) -> bool {
        let named = self.algorithms.iter().all(|algorithm| {
            let der = algorithm.to_der();
            der.is_ok_and(|der| der == ECDSA_SHA256)
        });
        let (Some(key), Some(signature)) = (signer.public_key(), self.signature) else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key);
        named && key.verify(self.bytes, signature).is_ok()
    }
}

impl PckCrl {
    /// The certificate that came with the list signed it, the root signed that, and it may and is valid.
    fn check(&self, root: &[u8], now: UnixTime) -> Result<(), TdxRefusal> {
        self.check_issuer(root, now).ok_or(TdxRefusal::PckCrlIssuer)
    }

    fn check_issuer(&self, root: &[u8], now: UnixTime) -> Option<()> {
        let root = x509::Certificate::parse(root, &[]).ok()?;
        let issuer = x509::Certificate::parse(&self.issuer, &[]).ok()?;
        let list = CertificateList::from_der(&self.list).ok()?;
        let certificate = Certificate::from_der(&self.issuer).ok()?;
        issuer.check_dates(now).ok()?;
        issuer.check_authority(0).ok()?;
        issuer.check_signs_lists().ok()?;
        let named = list.tbs_cert_list.issuer == *issuer.subject() && issuer.issuer() == root.subject();
        let of_list = Signed {
            bytes: x509::signed_part(&self.list).ok()?,
            algorithms: [&list.signature_algorithm, &list.tbs_cert_list.signature],
            signature: list.signature.as_bytes(),
        };
        let of_issuer = Signed {
            bytes: issuer.tbs(),
            algorithms: [&certificate.signature_algorithm, &certificate.tbs_certificate.signature],
            signature: certificate.signature.as_bytes(),
        };
        (named && of_list.is_by(&issuer) && of_issuer.is_by(&root)).then_some(())
    }
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, TdxRefusal> {
    serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
}

fn malformed(words: String) -> TdxRefusal {
    TdxRefusal::CollateralMalformed(words)
}

fn hex_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    hex::decode(text.as_ref()).map_err(serde::de::Error::custom)
}

/// `2025-06-19T10:16:03Z`, the one form that Intel uses.
pub(crate) fn parse_time(text: &str) -> Option<UnixTime> {
    if text.len() != TIME_LEN {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<u16>().ok())?
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    let bytes = text.as_bytes();
    if !marks.into_iter().all(|(at, mark)| bytes.get(at) == Some(&mark)) {
        return None;
    }
    let part = |range| u8::try_from(number(range)?).ok();
    der::DateTime::new(
        number(0..4)?,
        part(5..7)?,
        part(8..10)?,
        part(11..13)?,
        part(14..16)?,
        part(17..19)?,
    )
    .ok()
    .map(|time| UnixTime(time.unix_duration().as_secs()))
}
