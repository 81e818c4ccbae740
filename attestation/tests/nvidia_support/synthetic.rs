//! SYNTHETIC devices: chains, reports and OCSP responses in NVIDIA's formats, signed by keys of this file.

use std::str::FromStr;
use std::time::Duration;

use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5280, rfc5912};
use der::asn1::{Any, BitString, GeneralizedTime, Null, OctetString};
use der::pem::{LineEnding, encode_string};
use der::{Decode, Encode};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlReason;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate, Version};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, ResponderId, ResponseData, RevokedInfo,
    SingleResponse,
};

use super::NOW;

/// Order of the certificates of a chain.
pub const LEAF: usize = 0;
pub const DEVICE: usize = 1;
pub const PROVISIONER: usize = 2;
pub const FAMILY: usize = 3;
pub const ROOT: usize = 4;

pub const FWID: [u8; 48] = [0xf1; 48];

/// The key of this number.
pub fn key(number: u8) -> SigningKey {
    SigningKey::from_slice(&[number; 48]).unwrap()
}

/// A certificate to be made.
#[derive(Clone)]
pub struct Spec {
    pub subject: String,
    pub key: u8,
    pub issuer: String,
    pub issuer_key: u8,
    pub serial: Vec<u8>,
    pub not_before: u64,
    pub not_after: u64,
    pub extensions: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
}

fn extension(oid: ObjectIdentifier, critical: bool, value: &str) -> (ObjectIdentifier, bool, Vec<u8>) {
    (oid, critical, hex::decode(value).unwrap())
}

pub fn authority() -> Vec<(ObjectIdentifier, bool, Vec<u8>)> {
    vec![
        extension(rfc5280::ID_CE_BASIC_CONSTRAINTS, true, "30030101ff"),
        extension(rfc5280::ID_CE_KEY_USAGE, true, "03020204"),
    ]
}

pub fn signer() -> Vec<(ObjectIdentifier, bool, Vec<u8>)> {
    vec![extension(rfc5280::ID_CE_KEY_USAGE, true, "03020780")]
}

/// 2.23.133.5.4.1: version, key, FWID.
pub fn composite(fwid: &[u8; 48]) -> (ObjectIdentifier, bool, Vec<u8>) {
    let value = format!("3044020101{}{}", "3000", fwid_der(fwid));
    extension(ObjectIdentifier::new_unwrap("2.23.133.5.4.1"), false, &value)
}

/// 2.23.133.5.4.1.1: a vendor, then two FWIDs of which the second is empty, as on Blackwell.
pub fn tcb_info(fwid: &[u8; 48]) -> (ObjectIdentifier, bool, Vec<u8>) {
    let fwids = fwid_der(fwid) + &fwid_der(&[0; 48]);
    let value = format!("30818980064e5649444941a67e{fwids}8701 00").replace(' ', "");
    let len = value.len() / 2 - 3;
    let value = format!("3081{len:02x}{}", &value[6..]);
    extension(ObjectIdentifier::new_unwrap("2.23.133.5.4.1.1"), false, &value)
}

fn fwid_der(fwid: &[u8; 48]) -> String {
    format!("303d06096086480165030402020430{}", hex::encode(fwid))
}

/// The five certificates of a device of `family` (`GH100`), leaf first; its key has number 1.
pub fn specs(family: &str, fwid: &[u8; 48]) -> [Spec; 5] {
    let spec = |at: usize, subject: String, issuer: String, serial: Vec<u8>, extensions| Spec {
        subject,
        key: at as u8 + 1,
        issuer,
        issuer_key: (at as u8 + 2).min(5),
        serial,
        not_before: 1_600_000_000,
        not_after: 253_402_300_799,
        extensions,
    };
    let names = [
        format!("CN={family} A01 GSP FMC LF,O=SYNTHETIC"),
        format!("CN={family} A01 GSP BROM,O=SYNTHETIC"),
        format!("CN=SYNTHETIC {family} Provisioner"),
        format!("CN=SYNTHETIC {family} Identity"),
        "CN=SYNTHETIC Device Identity CA".to_owned(),
    ];
    let own = if family.starts_with("GB") {
        tcb_info(fwid)
    } else {
        composite(fwid)
    };
    let leaf = [signer(), vec![own]].concat();
    let serial = [vec![0x41], vec![7; 8]].concat();
    [
        spec(LEAF, names[0].clone(), names[1].clone(), vec![9; 20], leaf),
        spec(DEVICE, names[1].clone(), names[2].clone(), serial, authority()),
        spec(PROVISIONER, names[2].clone(), names[3].clone(), vec![3], authority()),
        spec(FAMILY, names[3].clone(), names[4].clone(), vec![4], authority()),
        spec(ROOT, names[4].clone(), names[4].clone(), vec![5], authority()),
    ]
}

fn algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid: rfc5912::ECDSA_WITH_SHA_384,
        parameters: None,
    }
}

fn sign(number: u8, message: &[u8]) -> BitString {
    let signature: Signature = key(number).sign(message);
    BitString::from_bytes(signature.to_der().as_bytes()).unwrap()
}

fn time(seconds: u64) -> GeneralizedTime {
    GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).unwrap()
}

/// DER of the certificate.
pub fn certificate(spec: &Spec) -> Vec<u8> {
    let point = key(spec.key).verifying_key().to_encoded_point(false);
    let curve = Any::from_der(&rfc5912::SECP_384_R_1.to_der().unwrap()).unwrap();
    let extensions = spec.extensions.iter().map(|(oid, critical, value)| Extension {
        extn_id: *oid,
        critical: *critical,
        extn_value: OctetString::new(value.as_slice()).unwrap(),
    });
    let tbs = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&spec.serial).unwrap(),
        signature: algorithm(),
        issuer: Name::from_str(&spec.issuer).unwrap(),
        validity: Validity {
            not_before: Time::GeneralTime(time(spec.not_before)),
            not_after: Time::GeneralTime(time(spec.not_after)),
        },
        subject: Name::from_str(&spec.subject).unwrap(),
        subject_public_key_info: SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: rfc5912::ID_EC_PUBLIC_KEY,
                parameters: Some(curve),
            },
            subject_public_key: BitString::from_bytes(point.as_bytes()).unwrap(),
        },
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions.collect()),
    };
    let signature = sign(spec.issuer_key, &tbs.to_der().unwrap());
    let whole = Certificate {
        tbs_certificate: tbs,
        signature_algorithm: algorithm(),
        signature,
    };
    whole.to_der().unwrap()
}

/// DER of the root, and PEM of the chain.
pub fn chain(specs: &[Spec; 5]) -> (Vec<u8>, String) {
    let ders = specs.each_ref().map(certificate);
    let pem = ders
        .iter()
        .map(|der| encode_string("CERTIFICATE", LineEnding::LF, der).unwrap());
    let pem: String = pem.collect();
    let [.., root] = ders;
    (root, pem)
}

/// A report to be made.
#[derive(Clone)]
pub struct ReportSpec {
    pub nonce: [u8; 32],
    pub blocks: Vec<(u8, [u8; 48])>,
    pub opaque: Vec<(u16, Vec<u8>)>,
    pub key: u8,
}

impl ReportSpec {
    /// Of a GPU that is set up for `feature`.
    pub fn gpu(feature: u16) -> Self {
        let protected = if feature == 2 { 0xaa } else { 0x55 };
        Self {
            nonce: [1; 32],
            blocks: (1..=64).map(|index| (index, [index; 48])).collect(),
            opaque: vec![
                (3, b"550.90.07\0".to_vec()),
                (6, vec![0x00, 0x9f, 0x00, 0x96, 0x01, 0, 0, 0]),
                (11, vec![0x55]),
                (14, vec![1, 0, 0, 0]),
                (15, b"882\0\0\0\0\0\0".to_vec()),
                (17, b"1010\0".to_vec()),
                (18, b"0200\0".to_vec()),
                (20, FWID.to_vec()),
                (21, vec![protected]),
                (36, feature.to_le_bytes().to_vec()),
            ],
            key: 1,
        }
    }

    pub fn without(mut self, kind: u16) -> Self {
        self.opaque.retain(|(found, _)| *found != kind);
        self
    }

    pub fn with(self, kind: u16, value: &[u8]) -> Self {
        let mut changed = self.without(kind);
        changed.opaque.push((kind, value.to_vec()));
        changed
    }

    pub fn message(&self) -> Vec<u8> {
        let blocks: Vec<u8> = self
            .blocks
            .iter()
            .flat_map(|(index, digest)| [&[*index, 1, 51, 0, 1, 48, 0][..], digest].concat())
            .collect();
        let opaque: Vec<u8> = self
            .opaque
            .iter()
            .flat_map(|(kind, value)| [&kind.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat())
            .collect();
        let mut message = [&[0x11, 0xe0, 0x01, 0xff][..], &self.nonce, &[0]].concat();
        message.extend([0x11, 0x60, 0, 0, self.blocks.len() as u8]);
        message.extend(&(blocks.len() as u32).to_le_bytes()[..3]);
        message.extend(blocks);
        message.extend([2; 32]);
        message.extend((opaque.len() as u16).to_le_bytes());
        message.extend(opaque);
        let signature: Signature = key(self.key).sign(&message);
        message.extend(signature.to_bytes());
        message
    }
}

/// An OCSP response to be made.
#[derive(Clone)]
pub struct OcspSpec {
    /// The issuer of the certificate, and that one's serial number.
    pub issuer: Spec,
    pub serial: Vec<u8>,
    pub status: CertStatus,
    pub this_update: u64,
    pub next_update: Option<u64>,
    /// Who signs.
    pub signer: Spec,
    pub signer_key: u8,
    pub certificates: Vec<Vec<u8>>,
}

impl OcspSpec {
    /// `good` for the certificate at `at`, by a responder that its issuer certified, fresh at [`NOW`].
    pub fn good(specs: &[Spec; 5], at: usize) -> Self {
        let issuer = specs[at + 1].clone();
        let responder = responder(&issuer);
        Self {
            serial: specs[at].serial.clone(),
            status: CertStatus::good(),
            this_update: NOW.0 - 3600,
            next_update: Some(NOW.0 + 3600),
            signer_key: responder.key,
            certificates: vec![certificate(&responder)],
            signer: responder,
            issuer,
        }
    }

    pub fn revoked(self, reason: Option<CrlReason>) -> Self {
        let info = RevokedInfo {
            revocation_time: OcspGeneralizedTime(time(NOW.0 - 86_400)),
            revocation_reason: reason,
        };
        Self {
            status: CertStatus::revoked(info),
            ..self
        }
    }

    pub fn der(&self) -> Vec<u8> {
        use aws_lc_rs::digest::{SHA384, digest};
        let issuer = Certificate::from_der(&certificate(&self.issuer))
            .unwrap()
            .tbs_certificate;
        let hash = |bytes: &[u8]| OctetString::new(digest(&SHA384, bytes).as_ref()).unwrap();
        let answer = SingleResponse {
            cert_id: CertId {
                hash_algorithm: AlgorithmIdentifierOwned {
                    oid: rfc5912::ID_SHA_384,
                    parameters: Some(Null.into()),
                },
                issuer_name_hash: hash(&issuer.subject.to_der().unwrap()),
                issuer_key_hash: hash(issuer.subject_public_key_info.subject_public_key.raw_bytes()),
                serial_number: SerialNumber::new(&self.serial).unwrap(),
            },
            cert_status: self.status,
            this_update: OcspGeneralizedTime(time(self.this_update)),
            next_update: self.next_update.map(|end| OcspGeneralizedTime(time(end))),
            single_extensions: None,
        };
        let data = ResponseData {
            version: Default::default(),
            responder_id: ResponderId::ByName(Name::from_str(&self.signer.subject).unwrap()),
            produced_at: OcspGeneralizedTime(time(self.this_update)),
            responses: vec![answer],
            response_extensions: None,
        };
        let certificates = self.certificates.iter().map(|der| Certificate::from_der(der).unwrap());
        let basic = BasicOcspResponse {
            signature: sign(self.signer_key, &data.to_der().unwrap()),
            tbs_response_data: data,
            signature_algorithm: algorithm(),
            certs: Some(certificates.collect()),
        };
        OcspResponse::successful(basic).unwrap().to_der().unwrap()
    }
}

/// A responder that `issuer` certified: EKU OCSPSigning.
pub fn responder(issuer: &Spec) -> Spec {
    let usage = extension(rfc5280::ID_CE_EXT_KEY_USAGE, true, "300a06082b06010505070309");
    Spec {
        subject: "CN=SYNTHETIC OCSP responder".to_owned(),
        key: 77,
        issuer: issuer.subject.clone(),
        issuer_key: issuer.key,
        serial: vec![77],
        extensions: [signer(), vec![usage]].concat(),
        ..issuer.clone()
    }
}
