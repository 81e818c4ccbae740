//! The one shape of XML signature (XMLDSIG-CORE1) that NVIDIA's manifests have; everything else is refused.
//!
//! One enveloped signature over the whole document: one Reference with the empty URI, the enveloped-signature transform and
//! then Canonical XML 1.1; SHA-384; ECDSA over P-384 with SHA-384; four certificates, the signer first, NVIDIA's root last.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use const_oid::db::rfc5280;
use der::Decode;
use subtle::ConstantTimeEq;
use x509_cert::ext::pkix::KeyUsage;

use super::refusal::RimRefusal;
use super::xml::Element;
use super::{c14n, xml};
use crate::ids::UnixTime;
use crate::x509::{AwsLc, Certificate, CertificateRefusal, MAX_CERTIFICATE_LEN, SignatureScheme};

/// Namespace of XML signatures.
pub(super) const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
const C14N: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";

/// Certificates: signer, two authorities, root.
const CHAIN_LEN: usize = 4;
const DIGEST_LEN: usize = 48;
/// r and s.
const SIGNATURE_LEN: usize = 96;
/// Longest base64 of a certificate with its line ends.
const MAX_BASE64_LEN: usize = 2 * MAX_CERTIFICATE_LEN;

/// What a signature covers.
pub(super) struct Signed {
    /// The canonical form of the document without the signature: the bytes that were digested.
    pub(super) content: Vec<u8>,
    /// First second at which every certificate is valid.
    pub(super) valid_from: UnixTime,
    /// Last second at which every certificate is valid.
    pub(super) valid_until: UnixTime,
}

/// The values of a signature that has the right shape.
struct Parts<'a> {
    signed_info: &'a Element,
    digest: Vec<u8>,
    value: Vec<u8>,
    certificates: Vec<Vec<u8>>,
}

/// Checks the signature of a document up to `root`, DER of the certificate that the chain must end in.
pub(super) fn verify(document: &Element, root: &[u8], now: UnixTime) -> Result<Signed, RimRefusal> {
    let signature = place(document)?;
    let parts = Parts::read(signature)?;
    let content = c14n::document(document, Some(signature));
    let digest = digest::digest(&digest::SHA384, &content);
    if !bool::from(digest.as_ref().ct_eq(&parts.digest)) {
        return Err(RimRefusal::Digest);
    }
    let (signer, valid_from, valid_until) = chain(&parts.certificates, root, now)?;
    let signed_info = c14n::apex(parts.signed_info, &[document, signature]);
    let by_signer = signer.has_signed(SignatureScheme::EcdsaP384Fixed, &signed_info, &parts.value, &AwsLc);
    match by_signer {
        Ok(true) => Ok(Signed {
            content,
            valid_from,
            valid_until,
        }),
        Ok(false) => Err(RimRefusal::Signature),
        Err(reason) => Err(RimRefusal::Certificate { position: 1, reason }),
    }
}

/// The one signature, directly in the document's element, with nothing of the kind anywhere else.
fn place(document: &Element) -> Result<&Element, RimRefusal> {
    let mut found = document.elements().filter(|element| element.is(DS, "Signature"));
    let signature = found.next().ok_or(RimRefusal::SignaturePlace)?;
    let of_signatures = |element: &xml::Element| {
        let all = element.descendants();
        all.iter().filter(|element| element.namespace == DS).count()
    };
    if found.next().is_some() || of_signatures(document) != of_signatures(signature) {
        return Err(RimRefusal::SignaturePlace);
    }
    Ok(signature)
}

/// Checks that the certificates lead from the signer to `root` at `now`.
fn chain<'a>(
    certificates: &'a [Vec<u8>],
    root: &[u8],
    now: UnixTime,
) -> Result<(Certificate<'a>, UnixTime, UnixTime), RimRefusal> {
    let at = |position: u8| move |reason| RimRefusal::Certificate { position, reason };
    let [signer, lower, upper, last] = certificates else {
        return Err(RimRefusal::SignatureShape("X509Data does not have 4 certificates"));
    };
    if last != root {
        return Err(RimRefusal::Root);
    }
    let signer = Certificate::parse(signer, &[]).map_err(at(1))?;
    let lower = Certificate::parse(lower, &[]).map_err(at(2))?;
    let upper = Certificate::parse(upper, &[]).map_err(at(3))?;
    let last = Certificate::parse(last, &[]).map_err(at(4))?;
    let scheme = SignatureScheme::EcdsaP384;
    last.check_authority(2).map_err(at(4))?;
    upper.check_authority(1).map_err(at(3))?;
    lower.check_authority(0).map_err(at(2))?;
    signer.check_not_authority().map_err(at(1))?;
    check_may_sign(&signer).map_err(at(1))?;
    // The root's own signature proves nothing: it is pinned.
    upper.check_issued_by(&last, scheme, &AwsLc).map_err(at(3))?;
    lower.check_issued_by(&upper, scheme, &AwsLc).map_err(at(2))?;
    signer.check_issued_by(&lower, scheme, &AwsLc).map_err(at(1))?;
    let (mut valid_from, mut valid_until) = (last.not_before(), last.not_after());
    for (certificate, position) in [(&last, 4), (&upper, 3), (&lower, 2), (&signer, 1)] {
        certificate.check_dates(now).map_err(at(position))?;
        valid_from = valid_from.max(certificate.not_before());
        valid_until = valid_until.min(certificate.not_after());
    }
    Ok((signer, valid_from, valid_until))
}

/// Key usage digitalSignature (RFC 5280, section 4.2.1.3).
fn check_may_sign(signer: &Certificate<'_>) -> Result<(), CertificateRefusal> {
    let usage = signer.extension(&rfc5280::ID_CE_KEY_USAGE);
    let usage = usage.and_then(|value| KeyUsage::from_der(value).ok());
    match usage {
        Some(usage) if usage.digital_signature() => Ok(()),
        _ => Err(CertificateRefusal::Extension("keyUsage with digitalSignature")),
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn read(signature: &'a Element) -> Result<Self, RimRefusal> {
        check_attributes(signature, None)?;
        let [signed_info, value, key_info] = children(signature, ["SignedInfo", "SignatureValue", "KeyInfo"])?;
        let digest = read_signed_info(signed_info)?;
        check_attributes(value, None)?;
        Ok(Self {
            signed_info,
            digest,
            value: exactly(value, SIGNATURE_LEN)?,
            certificates: read_key_info(key_info)?,
        })
    }
}

/// The digest of the document.
fn read_signed_info(signed_info: &Element) -> Result<Vec<u8>, RimRefusal> {
    check_attributes(signed_info, None)?;
    let [canonicalisation, method, reference] =
        children(signed_info, ["CanonicalizationMethod", "SignatureMethod", "Reference"])?;
    check_algorithm(canonicalisation, C14N, "CanonicalizationMethod")?;
    check_algorithm(method, ECDSA_SHA384, "SignatureMethod")?;

    if !check_attributes(reference, Some("URI"))?.is_empty() {
        return Err(RimRefusal::SignatureShape(
            "its Reference is to something else than the document",
        ));
    }
    let [transforms, method, value] = children(reference, ["Transforms", "DigestMethod", "DigestValue"])?;
    check_attributes(transforms, None)?;
    let [enveloped, canonicalisation] = children(transforms, ["Transform", "Transform"])?;
    check_algorithm(enveloped, ENVELOPED, "first Transform")?;
    check_algorithm(canonicalisation, C14N, "second Transform")?;
    check_algorithm(method, SHA384, "DigestMethod")?;
    check_attributes(value, None)?;
    exactly(value, DIGEST_LEN)
}

fn read_key_info(key_info: &Element) -> Result<Vec<Vec<u8>>, RimRefusal> {
    check_attributes(key_info, None)?;
    let [data] = children(key_info, ["X509Data"])?;
    check_attributes(data, None)?;
    let certificates = children(data, ["X509Certificate"; CHAIN_LEN])?;
    let read = |certificate: &&Element| {
        check_attributes(certificate, None)?;
        base64_of(certificate)
    };
    certificates.iter().map(read).collect()
}

/// The elements of `parent`, if they are exactly these with no text around them.
fn children<'a, const N: usize>(parent: &'a Element, names: [&str; N]) -> Result<[&'a Element; N], RimRefusal> {
    let shape = RimRefusal::SignatureShape("it has other elements, more or fewer, or text between them");
    let found: Vec<&Element> = parent.elements().collect();
    let found: [&Element; N] = found.try_into().map_err(|_| shape.clone())?;
    let named = found.iter().zip(names).all(|(element, name)| element.is(DS, name));
    if named && parent.has_no_text() {
        Ok(found)
    } else {
        Err(shape)
    }
}

/// Checks that `element` has the attribute `only` and no other, or none at all; its value.
fn check_attributes<'a>(element: &'a Element, only: Option<&str>) -> Result<&'a str, RimRefusal> {
    match (element.attributes.as_slice(), only) {
        ([], None) => Ok(""),
        ([attribute], Some(name)) if attribute.namespace.is_empty() && attribute.local == name => Ok(&attribute.value),
        _ => Err(RimRefusal::SignatureShape("an element has other attributes")),
    }
}

fn check_algorithm(element: &Element, algorithm: &str, what: &'static str) -> Result<(), RimRefusal> {
    let found = check_attributes(element, Some("Algorithm"))?;
    if !element.children.is_empty() {
        return Err(RimRefusal::SignatureShape("an algorithm has parameters"));
    }
    if found == algorithm {
        Ok(())
    } else {
        Err(RimRefusal::Algorithm(what))
    }
}

fn exactly(element: &Element, length: usize) -> Result<Vec<u8>, RimRefusal> {
    let bytes = base64_of(element)?;
    if bytes.len() == length {
        Ok(bytes)
    } else {
        Err(RimRefusal::SignatureShape("a digest or signature is of another length"))
    }
}

fn base64_of(element: &Element) -> Result<Vec<u8>, RimRefusal> {
    let refusal = RimRefusal::SignatureShape("a value is not base64");
    let text = element.only_text().filter(|text| text.len() <= MAX_BASE64_LEN);
    let text: String = text.ok_or(refusal.clone())?.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(text).map_err(|_| refusal)
}
