//! NVIDIA's services of RIM documents (docs.nvidia.com/attestation, "RIM Service") and of certificate status (RFC 6960).
//!
//! `GET /v1/rim/{id}` answers `{"id", "sha256", "rim": base64, ..}`. What exactly `sha256` is of is in no document found, and NVIDIA's
//! own tools do not look at it: here it must be of the document, or of its base64. It guards the way only; the document is signed.
//!
//! Status is asked as nvtrust does: `CertID` with SHA-384, POST of `application/ocsp-request`, a nonce. Of a device's chain the
//! device's own certificate and the root are not asked for; of a RIM's chain only the root is not.

use super::fields::{DeviceFields, pem_certificates, text};
use super::http::{Ask, BaseUrl};
use super::name::{NameError, check_rim_id};
use super::rims::{MAX_RIM_BYTES, is_xml};
use aws_lc_rs::digest::{SHA256, SHA384, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::ID_SHA_384;
use const_oid::db::rfc6960::{ID_PKIX_OCSP_BASIC, ID_PKIX_OCSP_NONCE};
use der::asn1::{Null, OctetString};
use der::{Decode, Encode};
use serde::Deserialize;
use spki::AlgorithmIdentifierOwned;
use x509_cert::Certificate;
use x509_cert::ext::Extension;
use x509_ocsp::{
    BasicOcspResponse, CertId, OcspRequest, OcspResponse, OcspResponseStatus, Request, TbsRequest, Version,
};

/// Where NVIDIA serves RIM documents.
pub const RIM_URL: &str = "https://rim.attestation.nvidia.com";
/// Where NVIDIA serves status.
pub const OCSP_URL: &str = "https://ocsp.ndis.nvidia.com";

/// Largest answer of the RIM service: base64 of the largest document, and JSON around it.
const MAX_RIM_ANSWER: usize = 2 * MAX_RIM_BYTES;
/// Largest status, bytes; it may bring a chain along.
const MAX_OCSP: usize = 64 * 1024;
/// nvtrust's name of the LS10 switch, whose reports do not say it.
const LS10_BOARD: &str = "5612_0002_890";
const NONCE_LEN: usize = 32;

#[derive(Deserialize)]
struct RimAnswer {
    id: String,
    rim: String,
    #[serde(default)]
    sha256: Option<String>,
}

/// A question for the status of one certificate.
pub(super) struct StatusRequest {
    pub(super) ask: Ask,
    serial: Vec<u8>,
    nonce: [u8; NONCE_LEN],
}

/// Ids of the RIMs that a device's report is to be compared with.
pub(super) fn rim_ids(arch: &str, fields: &DeviceFields) -> Result<Vec<String>, String> {
    let vbios = fields.vbios.as_deref().and_then(vbios_version);
    let vbios = vbios.ok_or("the report does not say its VBIOS version")?;
    if arch == "LS10" {
        return Ok(vec![format!("NV_SWITCH_BIOS_{LS10_BOARD}_{vbios}")]);
    }
    let driver = fields
        .driver
        .as_deref()
        .ok_or("the report does not say its driver version")?;
    let driver = match arch {
        "HOPPER" => format!("NV_GPU_DRIVER_GH100_{driver}"),
        "BLACKWELL" => format!(
            "NV_GPU_CC_DRIVER_{}_{driver}",
            fields.chip.as_deref().unwrap_or("GB100")
        ),
        other => return Err(format!("no RIMs are known for devices of {other:?}")),
    };
    let board = [&fields.project, &fields.project_sku, &fields.chip_sku];
    let [Some(project), Some(project_sku), Some(chip_sku)] = board.map(Option::as_deref) else {
        return Err("the report does not say which board it is of".to_owned());
    };
    Ok(vec![
        driver,
        format!("NV_GPU_VBIOS_{project}_{project_sku}_{chip_sku}_{vbios}"),
    ])
}

/// A VBIOS version without dots: text as it is, or 8 bytes that are reversed, of which the second half and the byte before it count.
fn vbios_version(value: &[u8]) -> Option<String> {
    let dotted = text(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'.'));
    if let Some(dotted) = dotted.filter(|text| text.contains('.')) {
        return Some(dotted.replace('.', "").to_uppercase());
    }
    let [low @ .., _, _, _] = <[u8; 8]>::try_from(value).ok()?;
    let [a, b, c, d, last] = low;
    Some(hex::encode_upper([d, c, b, a, last]))
}

pub(super) fn ask_rim(base: &BaseUrl, id: &str) -> Result<Ask, NameError> {
    check_rim_id(id)?;
    Ok(Ask {
        base: base.clone(),
        path: format!("/v1/rim/{id}"),
        post: None,
        limit: MAX_RIM_ANSWER,
        absent: "NVIDIA publishes no RIM of this id; a firmware without one cannot be appraised",
        flag: "--nvidia-rim",
    })
}

/// The document of an answer, if it is the one that was asked for and its digest is right.
pub(super) fn rim_document(body: &[u8], id: &str) -> Result<Vec<u8>, String> {
    let answer: RimAnswer =
        serde_json::from_slice(body).map_err(|error| format!("not the JSON of the RIM service: {error}"))?;
    if answer.id != id {
        return Err("a RIM of another id".to_owned());
    }
    let document = STANDARD.decode(&answer.rim).map_err(|_| "the RIM is not base64")?;
    let is_of = |bytes: &[u8], text: &str| hex::encode(digest(&SHA256, bytes)) == text.to_lowercase();
    let wanted = answer.sha256.ok_or("no sha256 of the RIM")?;
    if !is_of(&document, &wanted) && !is_of(answer.rim.as_bytes(), &wanted) {
        return Err("the RIM is not the one that its sha256 is of".to_owned());
    }
    if !is_xml(&document) || document.len() > MAX_RIM_BYTES {
        return Err("the RIM is not an XML document: other formats are not understood".to_owned());
    }
    Ok(document)
}

/// Pairs of a certificate and its issuer whose status is asked for: of a device's chain, without the device's own.
pub(super) fn device_chain(pem: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs(&pem_certificates(pem), 1)
}

/// The same of a RIM's chain, leaf first.
pub(super) fn rim_chain(document: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs(&rim_certificates(document), 0)
}

/// DER of each certificate in a RIM document, without any check: what is in `X509Certificate`, whatever its prefix.
pub(super) fn rim_certificates(document: &[u8]) -> Vec<Vec<u8>> {
    const TAG: &str = "X509Certificate>";
    let text = String::from_utf8_lossy(document);
    // Text after each tag; behind an opening one it is a certificate, and no tag is in it.
    let after = text.split(TAG).skip(1).step_by(2);
    let contents = after.filter_map(|part| part.split('<').next());
    contents
        .filter_map(|content| {
            let compact: String = content.split_ascii_whitespace().collect();
            STANDARD.decode(compact).ok().filter(|der| !der.is_empty())
        })
        .collect()
}

fn pairs(chain: &[Vec<u8>], from: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let issuers = chain.iter().skip(1);
    let pairs = chain.iter().zip(issuers).skip(from);
    pairs
        .map(|(certificate, issuer)| (certificate.clone(), issuer.clone()))
        .collect()
}

pub(super) fn ask_status(base: &BaseUrl, certificate: &[u8], issuer: &[u8]) -> Result<StatusRequest, String> {
    let broken = |_| "not a certificate in DER".to_owned();
    let certificate = Certificate::from_der(certificate).map_err(broken)?;
    let issuer = Certificate::from_der(issuer).map_err(broken)?;
    let serial = certificate.tbs_certificate.serial_number.clone();
    let nonce = crate::random::bytes::<NONCE_LEN>();
    let request = status_request(&issuer, &serial, nonce).map_err(|error| error.to_string())?;
    let ask = Ask {
        base: base.clone(),
        path: "/".to_owned(),
        post: Some((request, "application/ocsp-request")),
        limit: MAX_OCSP,
        absent: "this is not a status service",
        flag: "--nvidia-ocsp",
    };
    Ok(StatusRequest {
        ask,
        serial: serial.as_bytes().to_vec(),
        nonce,
    })
}

fn status_request(
    issuer: &Certificate,
    serial: &x509_cert::serial_number::SerialNumber,
    nonce: [u8; NONCE_LEN],
) -> der::Result<Vec<u8>> {
    let key = &issuer.tbs_certificate.subject_public_key_info.subject_public_key;
    let name = issuer.tbs_certificate.subject.to_der()?;
    let req_cert = CertId {
        hash_algorithm: AlgorithmIdentifierOwned {
            oid: ID_SHA_384,
            parameters: Some(Null.into()),
        },
        issuer_name_hash: OctetString::new(digest(&SHA384, &name).as_ref())?,
        issuer_key_hash: OctetString::new(digest(&SHA384, key.raw_bytes()).as_ref())?,
        serial_number: serial.clone(),
    };
    let extension = Extension {
        extn_id: ID_PKIX_OCSP_NONCE,
        critical: false,
        extn_value: OctetString::new(OctetString::new(nonce)?.to_der()?)?,
    };
    OcspRequest {
        tbs_request: TbsRequest {
            version: Version::V1,
            requestor_name: None,
            request_list: vec![Request {
                req_cert,
                single_request_extensions: None,
            }],
            request_extensions: Some(vec![extension]),
        },
        optional_signature: None,
    }
    .to_der()
}

/// The part of a status that its signature is over.
pub(super) fn basic_response(der: &[u8]) -> Result<BasicOcspResponse, String> {
    const BASIC: ObjectIdentifier = ID_PKIX_OCSP_BASIC;
    let response = OcspResponse::from_der(der).map_err(|_| "not an OCSP response in DER")?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(format!("the service says {:?}", response.response_status));
    }
    let bytes = response.response_bytes.filter(|bytes| bytes.response_type == BASIC);
    let bytes = bytes.ok_or("an OCSP response of an unknown kind")?;
    BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(|_| "not a basic OCSP response".to_owned())
}

impl StatusRequest {
    /// Whether an answer is about the certificate that was asked for, and not an old one to another question.
    pub(super) fn check(&self, der: &[u8]) -> Result<(), String> {
        let response = basic_response(der)?;
        let data = &response.tbs_response_data;
        let about = |single: &x509_ocsp::SingleResponse| single.cert_id.serial_number.as_bytes() == self.serial;
        if !data.responses.iter().any(about) {
            return Err("a status of another certificate".to_owned());
        }
        // A service may leave the nonce out, never change it.
        if data.nonce().is_some_and(|nonce| nonce.0.as_bytes() != self.nonce) {
            return Err("a status with another nonce: it answers another question".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(path: &str) -> Vec<u8> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../attestation/testdata/nvidia/");
        std::fs::read(format!("{root}{path}")).unwrap()
    }

    fn ids_of(arch: &str, report: &str) -> Vec<String> {
        let report = hex::decode(data(report).trim_ascii()).unwrap();
        rim_ids(arch, &DeviceFields::read(&report).unwrap()).unwrap()
    }

    #[test]
    fn ids_are_what_the_service_calls_them() {
        assert_eq!(
            ids_of("HOPPER", "e2e_pass/report.hex"),
            ["NV_GPU_DRIVER_GH100_545.00", "NV_GPU_VBIOS_1010_0200_882_96005E0001"]
        );
        assert_eq!(
            ids_of("BLACKWELL", "reports/sdk_sample_blackwellAttestationReport.txt"),
            ["NV_GPU_CC_DRIVER_GB100_575.32", "NV_GPU_VBIOS_G525_0220_886_970088000F"]
        );
        let switch = DeviceFields {
            vbios: Some(b"96.10.55.00.01".to_vec()),
            ..DeviceFields::default()
        };
        assert_eq!(
            rim_ids("LS10", &switch).unwrap(),
            ["NV_SWITCH_BIOS_5612_0002_890_9610550001"]
        );
        assert!(rim_ids("HOPPER", &switch).is_err());
    }

    #[test]
    fn a_rim_document_brings_its_chain() {
        let document = data("e2e_pass/driver_rim_545.00.swidtag");
        assert_eq!(rim_certificates(&document).len(), 4);
        assert_eq!(rim_chain(&document).len(), 3);
        let chain = String::from_utf8(data("e2e_pass/cert_chain.pem")).unwrap();
        assert_eq!(device_chain(&chain).len(), 3);
    }

    #[test]
    fn a_rim_with_another_digest_or_id_is_refused() {
        let document = b"<SoftwareIdentity/>";
        let answer = |id: &str, sha256: &str| {
            format!(
                "{{\"id\":\"{id}\",\"sha256\":\"{sha256}\",\"rim\":\"{}\"}}",
                STANDARD.encode(document)
            )
        };
        let right = hex::encode(digest(&SHA256, document));
        assert_eq!(rim_document(answer("A", &right).as_bytes(), "A").unwrap(), document);
        assert!(
            rim_document(answer("B", &right).as_bytes(), "A")
                .unwrap_err()
                .contains("another id")
        );
        let other = "00".repeat(32);
        assert!(
            rim_document(answer("A", &other).as_bytes(), "A")
                .unwrap_err()
                .contains("sha256")
        );
        let without = format!("{{\"id\":\"A\",\"rim\":\"{}\"}}", STANDARD.encode(document));
        assert!(rim_document(without.as_bytes(), "A").is_err());
    }
}
