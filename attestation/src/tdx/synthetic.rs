//! SYNTHETIC quotes and collateral, signed by a root of the tests' own, to show what no captured evidence shows.

#![allow(clippy::arithmetic_side_effects)]

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};

use crate::ids::UnixTime;

/// 2026-01-15T00:00:00Z, in the middle of all validities.
pub(crate) const NOW: UnixTime = UnixTime(1_768_435_200);
const ISSUED: &str = "2026-01-01T00:00:00Z";
const NEXT: &str = "2026-01-31T00:00:00Z";
pub(crate) const FMSPC: [u8; 6] = [0x90, 0xc0, 0x6f, 0, 0, 0];
const QE_SIGNER: [u8; 32] = [0xdc; 32];

/// Everything that goes into a quote and its collateral; a test changes what it is about.
pub(crate) struct Synthetic {
    pub(crate) version: u16,
    /// Type of the body, for version 5.
    pub(crate) kind: u16,
    /// The guest's report at its longest; the type says how much of it is used.
    pub(crate) body: [u8; 885],
    pub(crate) tcb: Value,
    pub(crate) qe: Value,
    pub(crate) qe_report: [u8; 384],
    /// Dynamic platform, cached keys, SMT.
    pub(crate) flags: Option<[bool; 3]>,
    pub(crate) pce_id: [u8; 2],
    pub(crate) fmspc: [u8; 6],
    pub(crate) ppid: Vec<u8>,
    /// Leave Intel's extension out of the platform's certificate.
    pub(crate) bare: bool,
    pub(crate) revoke_platform: bool,
    pub(crate) revoke_platform_ca: bool,
    /// The revocation lists begin a year after [`NOW`].
    pub(crate) lists_from_the_future: bool,
    /// The root signed the list of revoked platforms, whatever certificate came with it.
    pub(crate) list_by_root: bool,
    /// What is wrong with the certificate that comes with the list of revoked platforms.
    pub(crate) list_issuer: ListIssuer,
    /// Day of January 2026 from which on the platform's certificate is valid.
    pub(crate) platform_from: u8,
}

/// The certificate that comes with the list of revoked platforms, whose key signed the list all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListIssuer {
    Genuine,
    NotYetValid,
    NoAuthority,
    SignsNoLists,
    OtherName,
    NotByRoot,
}

pub(crate) struct Built {
    pub(crate) root: Vec<u8>,
    pub(crate) quote: Vec<u8>,
    pub(crate) collateral: String,
}

impl Default for Synthetic {
    fn default() -> Self {
        let mut body = [0; 885];
        body[..3].copy_from_slice(&[5, 1, 3]);
        body[123] = 0x10;
        body[128..131].copy_from_slice(&[0xe7, 2, 6]);
        body[584..587].copy_from_slice(&[5, 1, 3]);
        let mut qe_report = [0; 384];
        qe_report[48] = 0x11;
        qe_report[128..160].copy_from_slice(&QE_SIGNER);
        qe_report[256] = 2;
        qe_report[258] = 4;
        Self {
            version: 5,
            kind: 3,
            body,
            tcb: tcb_info(),
            qe: qe_identity(),
            qe_report,
            flags: Some([false; 3]),
            pce_id: [0; 2],
            fmspc: FMSPC,
            ppid: vec![7; 16],
            bare: false,
            revoke_platform: false,
            revoke_platform_ca: false,
            lists_from_the_future: false,
            list_by_root: false,
            list_issuer: ListIssuer::Genuine,
            platform_from: 1,
        }
    }
}

fn tcb_info() -> Value {
    let zeros = "00".repeat(48);
    let level = |isvsvn: u8, status: &str| json!({"tcb": {"isvsvn": isvsvn}, "tcbDate": ISSUED, "tcbStatus": status});
    json!({
        "id": "TDX", "version": 3, "issueDate": ISSUED, "nextUpdate": NEXT, "fmspc": hex::encode_upper(FMSPC),
        "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 18,
        "tdxModule": {"mrsigner": zeros, "attributes": "00".repeat(8), "attributesMask": "ff".repeat(8)},
        "tdxModuleIdentities": [{
            "id": "TDX_01", "mrsigner": zeros, "attributes": "00".repeat(8), "attributesMask": "ff".repeat(8),
            "tcbLevels": [level(5, "UpToDate"), level(3, "OutOfDate"), level(2, "Revoked")],
        }],
        "tcbLevels": [platform_level(3, "UpToDate"), platform_level(1, "OutOfDate")],
    })
}

/// A level with `svn` as the third of the TDX module's versions.
pub(crate) fn platform_level(svn: u8, status: &str) -> Value {
    let component = |svn: u8| json!({"svn": svn});
    let sgx: Vec<_> = (0..16).map(|_| component(1)).collect();
    let tdx: Vec<_> = (0..16).map(|at| component(if at == 2 { svn } else { 0 })).collect();
    json!({
        "tcb": {"sgxtcbcomponents": sgx, "pcesvn": 13, "tdxtcbcomponents": tdx},
        "tcbDate": ISSUED, "tcbStatus": status,
    })
}

fn qe_identity() -> Value {
    let level = |isvsvn: u8, status: &str| json!({"tcb": {"isvsvn": isvsvn}, "tcbDate": ISSUED, "tcbStatus": status});
    json!({
        "id": "TD_QE", "version": 2, "issueDate": ISSUED, "nextUpdate": NEXT, "tcbEvaluationDataNumber": 18,
        "miscselect": "00000000", "miscselectMask": "ffffffff", "attributes": "11".to_owned() + &"00".repeat(15),
        "attributesMask": "fb".to_owned() + &"ff".repeat(7) + &"00".repeat(8), "mrsigner": hex::encode(QE_SIGNER),
        "isvprodid": 2,
        "tcbLevels": [level(4, "UpToDate"), level(3, "OutOfDate"), level(2, "Revoked")],
    })
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap();
    let head = match len {
        0..=127 => vec![tag, len.to_le_bytes()[0]],
        _ => [&[tag, 0x82], &len.to_be_bytes()[..]].concat(),
    };
    [&head, content].concat()
}

/// `SEQUENCE {1.2.840.113741.1.13.1.<arcs>, value}`.
fn entry(arcs: &[u8], value: &[u8]) -> Vec<u8> {
    let oid = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 0x0d, 1], arcs].concat();
    tlv(0x30, &[tlv(6, &oid).as_slice(), value].concat())
}

impl Synthetic {
    /// Intel's extension (Intel SGX PCK Certificate and CRL Profile, section 1.3.5).
    fn extension(&self) -> Vec<u8> {
        let components = (1..=16).map(|at| entry(&[2, at], &tlv(2, &[1])));
        let mut tcb: Vec<u8> = components.flatten().collect();
        tcb.extend(entry(&[2, 17], &tlv(2, &[13])));
        tcb.extend(entry(&[2, 18], &tlv(4, &[1; 16])));
        let mut all = entry(&[1], &tlv(4, &self.ppid));
        all.extend(entry(&[2], &tlv(0x30, &tcb)));
        all.extend(entry(&[3], &tlv(4, &self.pce_id)));
        all.extend(entry(&[4], &tlv(4, &self.fmspc)));
        all.extend(entry(&[5], &tlv(0x0a, &[1])));
        if let Some(flags) = self.flags {
            let flags = flags.iter().zip(1..).flat_map(|(flag, at)| {
                let value = if *flag { 0xff } else { 0 };
                entry(&[7, at], &tlv(1, &[value]))
            });
            all.extend(entry(&[7], &tlv(0x30, &flags.collect::<Vec<_>>())));
        }
        tlv(0x30, &all)
    }

    pub(crate) fn build(&self) -> Built {
        let (root_key, ca_key, pck_key, tcb_key) = (key(), key(), key(), key());
        let root = params("Root CA", 1, true);
        let ca = params("Platform CA", 2, true);
        let mut pck = params("PCK Certificate", 3, false);
        pck.not_before = date_time_ymd(2026, 1, self.platform_from);
        if !self.bare {
            let oid = [1, 2, 840, 113_741, 1, 13, 1];
            pck.custom_extensions = vec![CustomExtension::from_oid_content(&oid, self.extension())];
        }
        let tcb = params("TCB Signing", 4, false);
        let by_root = Issuer::from_params(&root, &root_key);
        let by_ca = Issuer::from_params(&ca, &ca_key);
        let root_certificate = root.self_signed(&root_key).unwrap();
        let ca_certificate = ca.signed_by(&ca_key, &by_root).unwrap();
        let pck_certificate = pck.signed_by(&pck_key, &by_ca).unwrap();
        let tcb_certificate = tcb.signed_by(&tcb_key, &by_root).unwrap();
        let chain = |first: &rcgen::Certificate| first.pem() + &root_certificate.pem();
        let pck_crl = if self.list_by_root {
            self.list(self.revoke_platform.then_some(3), &by_root)
        } else {
            self.list(self.revoke_platform.then_some(3), &by_ca)
        };
        let signed = |value: &Value| {
            (
                value.to_string(),
                hex::encode(sign(&tcb_key, value.to_string().as_bytes())),
            )
        };
        let (tcb_info, tcb_info_signature) = signed(&self.tcb);
        let (qe_identity, qe_identity_signature) = signed(&self.qe);
        let collateral = json!({
            "pck_crl_issuer_chain": chain(&self.list_issuer(&ca_key, &by_root)),
            "root_ca_crl": self.list(self.revoke_platform_ca.then_some(2), &by_root),
            "pck_crl": pck_crl,
            "tcb_info_issuer_chain": chain(&tcb_certificate),
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_info_signature,
            "qe_identity_issuer_chain": chain(&tcb_certificate),
            "qe_identity": qe_identity,
            "qe_identity_signature": qe_identity_signature,
        });
        let platform = pck_certificate.pem() + &chain(&ca_certificate);
        Built {
            root: root_certificate.der().to_vec(),
            quote: self.quote(&pck_key, &platform),
            collateral: collateral.to_string(),
        }
    }

    fn list_issuer(&self, key_of_list: &KeyPair, by_root: &Issuer<'_, &KeyPair>) -> rcgen::Certificate {
        let mut ca = params("Platform CA", 2, true);
        match self.list_issuer {
            ListIssuer::Genuine => {}
            ListIssuer::NotYetValid => ca.not_before = date_time_ymd(2026, 2, 1),
            ListIssuer::NoAuthority => ca.is_ca = IsCa::ExplicitNoCa,
            ListIssuer::SignsNoLists => ca.key_usages = vec![KeyUsagePurpose::KeyCertSign],
            ListIssuer::OtherName => ca.distinguished_name = params("Other CA", 2, true).distinguished_name,
            ListIssuer::NotByRoot => {
                let (root, other) = (params("Root CA", 1, true), key());
                return ca.signed_by(key_of_list, &Issuer::from_params(&root, &other)).unwrap();
            }
        }
        ca.signed_by(key_of_list, by_root).unwrap()
    }

    /// Hex digits of a revocation list.
    fn list(&self, serial: Option<u8>, issuer: &Issuer<'_, &KeyPair>) -> String {
        let year = if self.lists_from_the_future { 2027 } else { 2026 };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(year, 1, 31),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::from_iter(serial.map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(u64::from(serial)),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        hex::encode(list.signed_by(issuer).unwrap().der())
    }

    fn quote(&self, pck_key: &KeyPair, chain: &str) -> Vec<u8> {
        let attestation_key = key();
        let pair = fixed(&attestation_key);
        let point = &pair.public_key().as_ref()[1..];
        let auth = [9; 32];
        let mut report = self.qe_report;
        let hash = digest(&SHA256, &[point, &auth].concat());
        report[320..352].copy_from_slice(hash.as_ref());

        let mut quote = Vec::new();
        quote.extend(self.version.to_le_bytes());
        quote.extend([2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
        quote.extend(hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap());
        quote.extend([0; 20]);
        let len: usize = match (self.version, self.kind) {
            (4, _) | (_, 2) => 584,
            (_, 3) => 648,
            _ => 885,
        };
        if self.version == 5 {
            quote.extend(self.kind.to_le_bytes());
            quote.extend(u32::try_from(len).unwrap().to_le_bytes());
        }
        quote.extend(&self.body[..len]);
        let signature = sign(&attestation_key, &quote);

        let mut inner = [&report[..], &sign(pck_key, &report), &[32, 0], &auth, &[5, 0]].concat();
        inner.extend(u32::try_from(chain.len()).unwrap().to_le_bytes());
        inner.extend(chain.as_bytes());
        let mut data = [&signature[..], point, &[6, 0]].concat();
        data.extend(u32::try_from(inner.len()).unwrap().to_le_bytes());
        data.extend(inner);
        quote.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        quote.extend(data);
        quote
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn fixed(key: &KeyPair) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).unwrap()
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let signature = fixed(key).sign(&SystemRandom::new(), message).unwrap();
    signature.as_ref().to_vec()
}

fn params(name: &str, serial: u8, authority: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("SYNTHETIC {name}"));
    params.serial_number = Some(SerialNumber::from(u64::from(serial)));
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2036, 1, 1);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    } else {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    params
}
