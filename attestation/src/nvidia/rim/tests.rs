//! Manifests that NVIDIA never signed, under a root of the test's own: what only a signer could do wrong, or a signer's key do.
//!
//! Every document here has a digest and a signature that hold, so that it is refused by the check that it is about.

use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use const_oid::AssociatedOid;
use der::asn1::{BitString, GeneralizedTime, OctetString};
use der::flagset::FlagSet;
use der::{Decode, Encode};
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

use super::*;
use crate::x509::CertificateRefusal;

const NOW: UnixTime = UnixTime(1_733_011_200);
const YEAR: u64 = 31_536_000;

/// Already canonical, but for the place of the signature.
const CONTENT: &str = concat!(
    r#"<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" "#,
    r#"xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" name="GH100" tagId="tag">"#,
    r#"<Meta colloquialVersion="1.2" edition="GPU" product="GH100"></Meta><Payload>"#,
    r#"<Resource active="True" alternatives="1" index="0" name="m0" size="48" type="Measurement" ns2:Hash0="HASH"></Resource>"#,
    r#"<Resource active="False" alternatives="1" index="1" name="m1" size="48" type="Measurement" ns2:Hash0="HASH"></Resource>"#,
    r#"</Payload>SIGNATURE</SoftwareIdentity>"#
);
const SIGNATURE: &str = concat!(
    r#"<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo>"#,
    r#"<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11"/>"#,
    r#"<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/><ds:Reference URI=""><ds:Transforms>"#,
    r#"<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>"#,
    r#"<ds:Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11"/></ds:Transforms>"#,
    r#"<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/><ds:DigestValue>DIGEST</ds:DigestValue>"#,
    r#"</ds:Reference></ds:SignedInfo><ds:SignatureValue>VALUE</ds:SignatureValue><ds:KeyInfo><ds:X509Data>CERTIFICATES"#,
    r#"</ds:X509Data></ds:KeyInfo></ds:Signature>"#
);
const EMPTY_VALUE: [u8; 96] = [0; 96];

/// A key with its certificate.
struct Holder {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
}

/// What a certificate may do.
#[derive(Clone, Copy)]
struct May {
    ca: Option<bool>,
    usage: KeyUsages,
    until: u64,
}

const AUTHORITY: May = May {
    ca: Some(true),
    usage: KeyUsages::KeyCertSign,
    until: NOW.0 + YEAR,
};
const SIGNER: May = May {
    ca: None,
    usage: KeyUsages::DigitalSignature,
    until: NOW.0 + YEAR,
};

static ROOT: LazyLock<Holder> = LazyLock::new(|| Holder::new("root", AUTHORITY, None));
static UPPER: LazyLock<Holder> = LazyLock::new(|| Holder::new("upper", AUTHORITY, Some(("root", &ROOT))));
static LOWER: LazyLock<Holder> = LazyLock::new(|| Holder::new("lower", AUTHORITY, Some(("upper", &UPPER))));
static LEAF: LazyLock<Holder> = LazyLock::new(|| Holder::new("signer", SIGNER, Some(("lower", &LOWER))));

impl Holder {
    fn new(subject: &str, may: May, issuer: Option<(&str, &Holder)>) -> Self {
        Self::with_key(key(&ECDSA_P384_SHA384_ASN1_SIGNING), subject, may, issuer)
    }

    fn with_key(key: EcdsaKeyPair, subject: &str, may: May, issuer: Option<(&str, &Holder)>) -> Self {
        let name = |name: &str| Name::from_str(&format!("CN={name}")).unwrap();
        let algorithm = spki::AlgorithmIdentifierOwned {
            oid: const_oid::db::rfc5912::ECDSA_WITH_SHA_384,
            parameters: None,
        };
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let at =
            |seconds| Time::GeneralTime(GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).unwrap());
        let usage = KeyUsage(FlagSet::from(may.usage));
        let mut extensions = vec![extension(&usage)];
        if let Some(ca) = may.ca {
            let path_len_constraint = None;
            extensions.push(extension(&BasicConstraints {
                ca,
                path_len_constraint,
            }));
        }
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&[1]).unwrap(),
            signature: algorithm.clone(),
            issuer: name(issuer.map_or(subject, |(name, _)| name)),
            validity: Validity {
                not_before: at(NOW.0 - YEAR),
                not_after: at(may.until),
            },
            subject: name(subject),
            subject_public_key_info: Decode::from_der(public.as_ref()).unwrap(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let by = issuer.map_or(&key, |(_, holder)| &holder.key);
        let signature = by.sign(&SystemRandom::new(), &tbs.to_der().unwrap()).unwrap();
        let certificate = x509_cert::Certificate {
            tbs_certificate: tbs,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(signature.as_ref()).unwrap(),
        };
        let certificate = certificate.to_der().unwrap();
        Self { key, certificate }
    }
}

fn key(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

fn extension<T: Encode + AssociatedOid>(value: &T) -> Extension {
    Extension {
        extn_id: T::OID,
        critical: true,
        extn_value: OctetString::new(value.to_der().unwrap()).unwrap(),
    }
}

fn chain() -> Vec<&'static [u8]> {
    [&LEAF, &LOWER, &UPPER, &ROOT]
        .map(|holder| holder.certificate.as_slice())
        .to_vec()
}

/// Signs `content` with a signature like `signature`, as far as both can be parsed.
fn signed(content: &str, signature: &str, certificates: &[&[u8]], by: &EcdsaKeyPair) -> Vec<u8> {
    let content = content.replace("HASH", &"ab".repeat(48));
    let plain = xml::parse(content.replace("SIGNATURE", "").as_bytes()).unwrap();
    let certificates: String = certificates
        .iter()
        .map(|der| {
            format!(
                "<ds:X509Certificate>{}</ds:X509Certificate>",
                BASE64_STANDARD.encode(der)
            )
        })
        .collect();
    let document = content.replace(
        "SIGNATURE",
        &signature.replace("CERTIFICATES", &certificates).replace(
            "DIGEST",
            &BASE64_STANDARD.encode(digest(&SHA384, &c14n::document(&plain, None))),
        ),
    );
    let unsigned = document.replace("VALUE", &BASE64_STANDARD.encode(EMPTY_VALUE));
    let parsed = xml::parse(unsigned.as_bytes()).unwrap();
    let all = parsed.descendants();
    let find = |local| all.iter().copied().find(|element| element.is(signature::DS, local));
    let value = match (find("Signature"), find("SignedInfo")) {
        (Some(signature), Some(signed_info)) => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, by.to_pkcs8v1().unwrap().as_ref());
            let bytes = c14n::apex(signed_info, &[&parsed, signature]);
            key.unwrap()
                .sign(&SystemRandom::new(), &bytes)
                .unwrap()
                .as_ref()
                .to_vec()
        }
        _ => EMPTY_VALUE.to_vec(),
    };
    document.replace("VALUE", &BASE64_STANDARD.encode(value)).into_bytes()
}

fn verified(document: &[u8]) -> Result<VerifiedRim, RimRefusal> {
    verify_under(document, &ROOT.certificate, NOW)
}

/// Text with `from` replaced, which it must have.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn of_content(from: &str, to: &str) -> Result<VerifiedRim, RimRefusal> {
    verified(&signed(&with(CONTENT, from, to), SIGNATURE, &chain(), &LEAF.key))
}

fn of_signature(from: &str, to: &str) -> Result<VerifiedRim, RimRefusal> {
    verified(&signed(CONTENT, &with(SIGNATURE, from, to), &chain(), &LEAF.key))
}

fn of_chain(certificates: &[&[u8]], by: &EcdsaKeyPair) -> Result<VerifiedRim, RimRefusal> {
    verified(&signed(CONTENT, SIGNATURE, certificates, by))
}

fn at(position: u8, reason: CertificateRefusal) -> Result<VerifiedRim, RimRefusal> {
    Err(RimRefusal::Certificate { position, reason })
}

#[test]
fn the_synthetic_manifest_verifies_under_its_own_root_only() {
    let document = signed(CONTENT, SIGNATURE, &chain(), &LEAF.key);
    let rim = verified(&document).unwrap();
    assert_eq!(
        (rim.chip(), rim.version(), rim.kind()),
        ("GH100", "1.2", RimKind::Driver)
    );
    assert_eq!(rim.active().map(|(index, _)| index).collect::<Vec<_>>(), [0]);
    assert_eq!(rim.valid_until(), UnixTime(SIGNER.until));
    assert_eq!(verify(&document, NOW), Err(RimRefusal::Root));
}

#[test]
fn synthetic_signatures_with_other_algorithms_are_refused() {
    let refused =
        |from: &str, to: &str, what| assert_eq!(of_signature(from, to), Err(RimRefusal::Algorithm(what)), "{to}");
    for other in [
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
        "http://www.w3.org/2001/10/xml-exc-c14n#",
        "http://www.w3.org/2006/12/xml-c14n11#WithComments",
    ] {
        let method = |algorithm: &str| format!("<ds:CanonicalizationMethod Algorithm=\"{algorithm}\"/>");
        let right = "http://www.w3.org/2006/12/xml-c14n11";
        refused(&method(right), &method(other), "CanonicalizationMethod");
        let transform = |algorithm: &str| format!("<ds:Transform Algorithm=\"{algorithm}\"/>");
        refused(&transform(right), &transform(other), "second Transform");
    }
    refused("#enveloped-signature", "#base64", "first Transform");
    refused("#ecdsa-sha384", "#ecdsa-sha256", "SignatureMethod");
    refused("#ecdsa-sha384", "#hmac-sha384", "SignatureMethod");
    refused("xmldsig-more#sha384", "xmldsig-more#sha224", "DigestMethod");
}

#[test]
fn synthetic_signatures_of_another_shape_are_refused() {
    let reference = &SIGNATURE[SIGNATURE.find("<ds:Reference").unwrap()..SIGNATURE.find("</ds:SignedInfo>").unwrap()];
    let enveloped = r#"<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>"#;
    let c14n = r#"<ds:Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11"/>"#;
    for (from, to) in [
        // References, transforms.
        ("URI=\"\"", "URI=\"#a\""),
        ("URI=\"\"", ""),
        ("URI=\"\"", "URI=\"\" Type=\"http://www.w3.org/2000/09/xmldsig#Object\""),
        (reference, &reference.repeat(2)),
        (reference, ""),
        (enveloped, ""),
        (c14n, ""),
        (c14n, &c14n.repeat(2)),
        (c14n, &c14n.replace("/>", "><ds:XPath/></ds:Transform>")),
        ("<ds:Transforms>", "<ds:Transforms a=\"1\">"),
        // Elements and text that have no place.
        ("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>"),
        ("<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyValue/>"),
        ("</ds:X509Data>", "</ds:X509Data><ds:X509Data/>"),
        ("<ds:X509Data>", "<ds:X509Data><ds:X509CRL/>"),
        ("<ds:KeyInfo>", "a<ds:KeyInfo>"),
        ("<ds:SignedInfo>", "<ds:SignedInfo a=\"1\">"),
        ("<ds:KeyInfo>", "<ds:KeyInfo a=\"1\">"),
        ("<ds:X509Data>", "<ds:X509Data a=\"1\">"),
        ("<ds:SignatureValue>", "<ds:SignatureValue a=\"1\">"),
        ("<ds:DigestValue>", "<ds:DigestValue a=\"1\">"),
        ("xmldsig#\">", "xmldsig#\" a=\"1\">"),
        // Values of other lengths, and none.
        ("DIGEST", "AAAA"),
        ("VALUE", "AAAA"),
        ("VALUE", ""),
        ("VALUE", "VALU!"),
    ] {
        assert!(
            matches!(of_signature(from, to), Err(RimRefusal::SignatureShape(_))),
            "{from} -> {to}: {:?}",
            of_signature(from, to)
        );
    }
    assert!(matches!(
        of_signature(&format!("{enveloped}{c14n}"), &format!("{c14n}{enveloped}")),
        Err(RimRefusal::Algorithm("first Transform"))
    ));
}

#[test]
fn synthetic_signatures_elsewhere_or_more_than_one_are_refused() {
    let place = Err(RimRefusal::SignaturePlace);
    assert_eq!(of_content("SIGNATURE", ""), place);
    assert_eq!(
        of_content("SIGNATURE</SoftwareIdentity>", "<a>SIGNATURE</a></SoftwareIdentity>"),
        place
    );
    assert_eq!(of_content("</Payload>SIGNATURE", "SIGNATURE</Payload>"), place);
    assert_eq!(of_content("SIGNATURE", "SIGNATURE<Link>SIGNATURE</Link>"), place);
    assert_eq!(of_content("SIGNATURE", "SIGNATURESIGNATURE"), place);
    let piece = r#"<ds:Object xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/>SIGNATURE"#;
    assert_eq!(of_content("SIGNATURE", piece), place);
    assert!(of_signature("<ds:KeyInfo>", "<ds:KeyInfo><ds:Signature/>").is_err());
}

#[test]
fn synthetic_manifests_inside_of_others_are_refused() {
    let wrapped = CONTENT.replace("<SoftwareIdentity ", "<w><SoftwareIdentity ");
    let wrapped = wrapped.replace("SIGNATURE</SoftwareIdentity>", "</SoftwareIdentity>SIGNATURE</w>");
    let found = verified(&signed(&wrapped, SIGNATURE, &chain(), &LEAF.key));
    assert_eq!(found, Err(RimRefusal::NotAnIdentity));
}

#[test]
fn synthetic_chains_of_another_length_or_root_are_refused() {
    let shape = |found| assert!(matches!(found, Err(RimRefusal::SignatureShape(_))), "{found:?}");
    shape(of_chain(&chain()[..3], &LEAF.key));
    shape(of_chain(&chain()[1..], &LEAF.key));
    shape(of_chain(&[chain(), vec![&ROOT.certificate]].concat(), &LEAF.key));
    shape(of_chain(&[], &LEAF.key));
    let other = Holder::new("root", AUTHORITY, None);
    let mut certificates = chain();
    certificates[3] = &other.certificate;
    assert_eq!(of_chain(&certificates, &LEAF.key), Err(RimRefusal::Root));
    // The right root behind a chain of another one.
    let upper = Holder::new("upper", AUTHORITY, Some(("root", &other)));
    let lower = Holder::new("lower", AUTHORITY, Some(("upper", &upper)));
    let leaf = Holder::new("signer", SIGNER, Some(("lower", &lower)));
    let certificates = [&leaf, &lower, &upper, &ROOT].map(|holder| holder.certificate.as_slice());
    assert_eq!(of_chain(&certificates, &leaf.key), at(3, CertificateRefusal::Signature));
}

#[test]
fn synthetic_chains_that_do_not_lead_from_signer_to_root_are_refused() {
    let leaf = |may| Holder::new("signer", may, Some(("lower", &LOWER)));
    let with_leaf = |leaf: &Holder| {
        let mut certificates = chain();
        certificates[0] = &leaf.certificate;
        of_chain(&certificates, &leaf.key)
    };
    assert!(with_leaf(&leaf(SIGNER)).is_ok());
    let ca = Some(true);
    assert_eq!(
        with_leaf(&leaf(May { ca, ..SIGNER })),
        at(1, CertificateRefusal::Authority)
    );
    let usage = KeyUsages::KeyAgreement;
    let refusal = CertificateRefusal::Extension("keyUsage with digitalSignature");
    assert_eq!(with_leaf(&leaf(May { usage, ..SIGNER })), at(1, refusal));
    let until = NOW.0 - 1;
    assert_eq!(
        with_leaf(&leaf(May { until, ..SIGNER })),
        at(1, CertificateRefusal::Expired)
    );
    // Signed by another key than the certificate's, and by a certificate of another issuer.
    assert_eq!(of_chain(&chain(), &LOWER.key), Err(RimRefusal::Signature));
    let stranger = Holder::new("signer", SIGNER, Some(("lower", &UPPER)));
    assert_eq!(with_leaf(&stranger), at(1, CertificateRefusal::Signature));
    let stranger = Holder::new("signer", SIGNER, Some(("upper", &LOWER)));
    assert_eq!(with_leaf(&stranger), at(1, CertificateRefusal::Issuer));
    let mut certificates = chain();
    certificates[0] = b"\x30\x00";
    assert_eq!(of_chain(&certificates, &LEAF.key), at(1, CertificateRefusal::Malformed));
    certificates = chain();
    certificates.swap(1, 2);
    assert!(matches!(
        of_chain(&certificates, &LEAF.key),
        Err(RimRefusal::Certificate { .. })
    ));
}

#[test]
fn synthetic_authorities_that_may_not_sign_or_have_expired_are_refused() {
    let ends = NOW.0 - 1;
    for (may, reason) in [
        (
            May {
                ca: Some(false),
                ..AUTHORITY
            },
            CertificateRefusal::NotAnAuthority,
        ),
        (May { ca: None, ..AUTHORITY }, CertificateRefusal::NotAnAuthority),
        (
            May {
                usage: KeyUsages::DigitalSignature,
                ..AUTHORITY
            },
            CertificateRefusal::NotAnAuthority,
        ),
        (
            May {
                until: ends,
                ..AUTHORITY
            },
            CertificateRefusal::Expired,
        ),
    ] {
        let lower = Holder::new("lower", may, Some(("upper", &UPPER)));
        let leaf = Holder::new("signer", SIGNER, Some(("lower", &lower)));
        let certificates = [&leaf, &lower, &UPPER, &ROOT].map(|holder| holder.certificate.as_slice());
        assert_eq!(of_chain(&certificates, &leaf.key), at(2, reason));
        let upper = Holder::new("upper", may, Some(("root", &ROOT)));
        let lower = Holder::new("lower", AUTHORITY, Some(("upper", &upper)));
        let leaf = Holder::new("signer", SIGNER, Some(("lower", &lower)));
        let certificates = [&leaf, &lower, &upper, &ROOT].map(|holder| holder.certificate.as_slice());
        assert_eq!(of_chain(&certificates, &leaf.key), at(3, reason));
    }
}

#[test]
fn a_synthetic_signer_with_a_key_of_another_curve_is_refused() {
    let leaf = Holder::with_key(
        key(&ECDSA_P521_SHA384_ASN1_SIGNING),
        "signer",
        SIGNER,
        Some(("lower", &LOWER)),
    );
    let mut certificates = chain();
    certificates[0] = &leaf.certificate;
    assert_eq!(of_chain(&certificates, &LEAF.key), at(1, CertificateRefusal::Key));
}

#[test]
fn synthetic_manifests_without_an_active_measurement_are_refused() {
    assert_eq!(
        of_content("active=\"True\"", "active=\"False\""),
        Err(RimRefusal::NoActive)
    );
    let (from, to) = (CONTENT.find("<Resource").unwrap(), CONTENT.find("</Payload>").unwrap());
    assert_eq!(of_content(&CONTENT[from..to], ""), Err(RimRefusal::NoActive));
}

#[test]
fn synthetic_manifests_with_a_repeated_index_are_refused() {
    assert_eq!(
        of_content("index=\"1\"", "index=\"0\""),
        Err(RimRefusal::RepeatedIndex(0))
    );
}

#[test]
fn synthetic_manifests_with_malformed_measurements_are_refused() {
    let first = |what| move |found| assert_eq!(found, Err(RimRefusal::Measurement { index: 0, what }));
    let count = first("it does not have as many alternatives as it says");
    count(of_content("alternatives=\"1\"", "alternatives=\"2\""));
    count(of_content("alternatives=\"1\"", "alternatives=\"0\""));
    count(of_content("alternatives=\"1\"", "alternatives=\"01\""));
    count(of_content("alternatives=\"1\" ", ""));
    count(of_content(
        "ns2:Hash0=\"HASH\"",
        "ns2:Hash0=\"HASH\" ns2:Hash1=\"HASH\"",
    ));
    count(of_content("ns2:Hash0=\"HASH\"", "hash=\"HASH\" ns2:Hash0=\"HASH\""));
    let many: String = (0..33).map(|n| format!(" ns2:Hash{n}=\"HASH\"")).collect();
    count(of_content(
        "alternatives=\"1\" index=\"0\"",
        &format!("alternatives=\"33\" index=\"0\" {many} a=\"1\"").replace(" ns2:Hash0=\"HASH\"", ""),
    ));

    let hash = first("its alternatives are not all SHA-384, numbered from 0");
    hash(of_content("ns2:Hash0", "ns2:Hash1"));
    hash(of_content("ns2:Hash0", "Hash0"));
    let sha256 = "xmlns:ns3=\"http://www.w3.org/2001/04/xmlenc#sha256\" ns3:Hash0";
    hash(of_content("ns2:Hash0", sha256));
    hash(of_content("HASH", &"ab".repeat(47)));
    hash(of_content("HASH", &"xy".repeat(48)));

    first("its size is not 48")(of_content("size=\"48\"", "size=\"32\""));
    first("it is neither active nor not")(of_content("active=\"True\"", "active=\"1\""));
    first("its name is missing or too long")(of_content("name=\"m0\" ", ""));
    for index in ["255", "256", "-1", "+1", "00", ""] {
        let found = of_content("index=\"0\"", &format!("index=\"{index}\""));
        assert!(matches!(found, Err(RimRefusal::Malformed(_))), "{index}: {found:?}");
    }
}

#[test]
fn synthetic_manifests_that_do_not_say_what_they_are_of_are_refused() {
    for (from, to) in [
        (" tagId=\"tag\"", ""),
        (" name=\"GH100\"", " name=\"GB100\""),
        (" name=\"GH100\"", ""),
        ("product=\"GH100\"", ""),
        ("colloquialVersion=\"1.2\"", ""),
        ("colloquialVersion=\"1.2\"", "colloquialVersion=\"1\""),
        ("colloquialVersion=\"1.2\"", "colloquialVersion=\"1.2.x\""),
        ("edition=\"GPU\"", "edition=\"CPU\""),
        ("edition=\"GPU\"", "edition=\"SWITCH\""),
        ("</Meta>", "</Meta><Meta/>"),
        ("</Payload>", "</Payload><Payload/>"),
        ("<Payload>", "<Payload><File/>"),
        ("type=\"Measurement\"", "type=\"Other\""),
        (" type=\"Measurement\"", ""),
    ] {
        let found = of_content(from, to);
        assert!(
            matches!(found, Err(RimRefusal::Malformed(_))),
            "{from} -> {to}: {found:?}"
        );
    }
    let other = CONTENT.replace("19770/-2/2015", "19770/-2/2009");
    let found = verified(&signed(&other, SIGNATURE, &chain(), &LEAF.key));
    assert_eq!(found, Err(RimRefusal::NotAnIdentity));
}
