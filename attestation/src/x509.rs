//! Certificates of every TEE's vendor: parsed strictly, their signatures checked over the bytes that came.
//!
//! No path is searched for: a verifier knows how many certificates there are, what each one is for and whose key the last one
//! is of, and asks for exactly that. Which signature scheme a certificate has is the caller's to say, never the certificate's.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc4519, rfc5280, rfc5912};
use der::asn1::{OctetString, PrintableStringRef, Utf8StringRef};
use der::pem::decode_vec;
use der::{Decode, Encode, Reader, SliceReader, Tagged};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use crate::ids::UnixTime;

/// Longest certificate in bytes of DER. Real ones of AMD, Intel and NVIDIA have under 2 KiB.
pub const MAX_CERTIFICATE_LEN: usize = 8 * 1024;
/// Longest PEM text of one certificate, with white space: base64 and line ends of [`MAX_CERTIFICATE_LEN`], twice over.
pub const MAX_PEM_LEN: usize = 4 * MAX_CERTIFICATE_LEN;

/// AlgorithmIdentifier RSASSA-PSS {SHA-384, MGF1 {SHA-384}, salt 48} (RFC 4055, section 3.1).
pub const PSS_SHA384: &[u8] =
    b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\
      \x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\
      \x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30";
/// The same with the default trailer field written out, which DER forbids and some of AMD's certificates do.
const PSS_SHA384_WITH_TRAILER: &[u8] =
    b"\x30\x46\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x39\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\
      \x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\
      \x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30\xa3\x03\x02\x01\x01";
/// AlgorithmIdentifier ecdsa-with-SHA384, without parameters (RFC 5758, section 3.2).
const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
/// Length in bytes of an uncompressed point of P-384 (SEC 1, section 2.3.3).
const P384_POINT_LEN: usize = 97;

/// How something is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureScheme {
    /// ECDSA over P-384 with SHA-384, the signature a DER sequence of r and s: certificates.
    EcdsaP384,
    /// The same, the signature r and s, 48 bytes each, big-endian: reports.
    EcdsaP384Fixed,
    /// RSASSA-PSS with SHA-384 by a key of 2048 to 8192 bits.
    RsaPssSha384,
}

/// Whoever computes. One is shipped, [`AwsLc`]; the tests have another to compare it with.
pub trait SignatureVerifier {
    /// True if `signature` over `message` is by `key`: an uncompressed point, or an RSAPublicKey.
    fn verify(&self, scheme: SignatureScheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool;
}

/// [`SignatureVerifier`] of AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

/// What is wrong with one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// Not one DER certificate of X.509 version 3, bytes after it, or more than [`MAX_CERTIFICATE_LEN`] of them.
    #[error("is not one DER certificate of X.509 version 3")]
    Malformed,
    /// Not signed by the scheme of its chain.
    #[error("is not signed by its chain's algorithm with SHA-384")]
    SignatureAlgorithm,
    /// Its issuer is not the subject of the next certificate.
    #[error("was not issued by the next certificate of the chain")]
    Issuer,
    /// The next certificate's key did not sign it.
    #[error("is not signed by the next certificate of the chain")]
    Signature,
    /// Its validity has not begun.
    #[error("is not valid yet: check this machine's clock")]
    NotYetValid,
    /// Its validity is over.
    #[error("has expired: the operator must fetch a new one")]
    Expired,
    /// It may not sign certificates, or not as many below it.
    #[error("is not a certificate authority for this depth")]
    NotAnAuthority,
    /// An authority where a chip's or device's certificate should be.
    #[error("is that of a certificate authority, not of a chip")]
    Authority,
    /// A critical extension that is not understood.
    #[error("has a critical extension that is not understood")]
    CriticalExtension,
    /// An extension occurs twice.
    #[error("has one extension twice")]
    RepeatedExtension,
    /// The common name is not the one of its role: a VLEK for a VCEK, for example.
    #[error("does not have the common name of its role")]
    CommonName,
    /// The key is of another kind than its role has.
    #[error("does not hold a key of the kind of its role")]
    Key,
    /// One of the vendor's extensions is missing or malformed.
    #[error("lacks a well-formed extension: {0}")]
    Extension(&'static str),
}

/// Text that is no list of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemRefusal {
    /// Not PEM, of something else than certificates, or with other text between them.
    #[error("is not PEM of certificates and nothing else")]
    Malformed,
    /// More certificates than there can be.
    #[error("has more than {0} certificates")]
    TooMany(usize),
}

/// A certificate that has the right form; nothing in it is proven.
#[derive(Debug, Clone)]
pub struct Certificate<'a> {
    /// The signed part, as received.
    tbs: &'a [u8],
    parsed: x509_cert::Certificate,
}

// === impl AwsLc ===

impl SignatureVerifier for AwsLc {
    fn verify(&self, scheme: SignatureScheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match scheme {
            SignatureScheme::EcdsaP384 => &ECDSA_P384_SHA384_ASN1,
            SignatureScheme::EcdsaP384Fixed => &ECDSA_P384_SHA384_FIXED,
            SignatureScheme::RsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
        };
        UnparsedPublicKey::new(algorithm, key)
            .verify(message, signature)
            .is_ok()
    }
}

// === impl SignatureScheme ===

impl SignatureScheme {
    /// Whether `algorithm` (DER) says this scheme.
    fn is_named_by(self, algorithm: &[u8]) -> bool {
        match self {
            Self::EcdsaP384 => algorithm == ECDSA_SHA384,
            // No X.509 structure has this form.
            Self::EcdsaP384Fixed => false,
            Self::RsaPssSha384 => algorithm == PSS_SHA384 || algorithm == PSS_SHA384_WITH_TRAILER,
        }
    }
}

// === impl Certificate ===

impl<'a> Certificate<'a> {
    /// Parses exactly one certificate. Critical extensions other than basicConstraints and keyUsage are refused unless
    /// `understood` has them: the caller then looks at what they say.
    ///
    /// # Errors
    /// [`CertificateRefusal`] for anything but strict DER of version 3, for extensions that repeat, and for critical ones.
    pub fn parse(der: &'a [u8], understood: &[ObjectIdentifier]) -> Result<Self, CertificateRefusal> {
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(CertificateRefusal::Malformed);
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateRefusal::Malformed)?;
        if parsed.tbs_certificate.version != x509_cert::Version::V3 {
            return Err(CertificateRefusal::Malformed);
        }
        let tbs = signed_part(der).map_err(|_| CertificateRefusal::Malformed)?;
        let certificate = Self { tbs, parsed };
        check_extensions(certificate.extensions(), understood)?;
        Ok(certificate)
    }

    /// Checks that `issuer` issued and signed this one, by `scheme` and no other.
    ///
    /// # Errors
    /// [`CertificateRefusal`] for another scheme, issuer or signature.
    pub fn check_issued_by(
        &self,
        issuer: &Certificate<'_>,
        scheme: SignatureScheme,
        crypto: &dyn SignatureVerifier,
    ) -> Result<(), CertificateRefusal> {
        if self.parsed.signature_algorithm != self.parsed.tbs_certificate.signature {
            return Err(CertificateRefusal::SignatureAlgorithm);
        }
        check_algorithm(&self.parsed.signature_algorithm, scheme)?;
        if self.parsed.tbs_certificate.issuer != issuer.parsed.tbs_certificate.subject {
            return Err(CertificateRefusal::Issuer);
        }
        let signature = self.parsed.signature.as_bytes().ok_or(CertificateRefusal::Malformed)?;
        match issuer.has_signed(scheme, self.tbs, signature, crypto) {
            Ok(true) => Ok(()),
            // A key of another kind signed nothing by this scheme.
            Ok(false) | Err(_) => Err(CertificateRefusal::Signature),
        }
    }

    /// Whether `signature` over `message` is by this one's key.
    ///
    /// # Errors
    /// [`CertificateRefusal::Key`] if the key is of another kind than `scheme` has.
    pub fn has_signed(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
        crypto: &dyn SignatureVerifier,
    ) -> Result<bool, CertificateRefusal> {
        let key = self.key_of(scheme).ok_or(CertificateRefusal::Key)?;
        Ok(crypto.verify(scheme, key, message, signature))
    }

    /// Checks that `now` is within the validity, both ends included.
    ///
    /// # Errors
    /// [`CertificateRefusal::NotYetValid`] and [`CertificateRefusal::Expired`].
    pub fn check_dates(&self, now: UnixTime) -> Result<(), CertificateRefusal> {
        if now < self.not_before() {
            return Err(CertificateRefusal::NotYetValid);
        }
        if now > self.not_after() {
            return Err(CertificateRefusal::Expired);
        }
        Ok(())
    }

    /// First second of the validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        let validity = &self.parsed.tbs_certificate.validity;
        UnixTime(validity.not_before.to_unix_duration().as_secs())
    }

    /// Last second of the validity.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        let validity = &self.parsed.tbs_certificate.validity;
        UnixTime(validity.not_after.to_unix_duration().as_secs())
    }

    /// Checks that this one may sign certificates that have `below` authorities under it.
    ///
    /// # Errors
    /// [`CertificateRefusal::NotAnAuthority`] without CA, keyCertSign and a path length that suffices.
    pub fn check_authority(&self, below: u8) -> Result<(), CertificateRefusal> {
        let constraints = self.basic_constraints()?.ok_or(CertificateRefusal::NotAnAuthority)?;
        let deep_enough = constraints.path_len_constraint.is_none_or(|most| below <= most);
        let usage = self.key_usage()?.ok_or(CertificateRefusal::NotAnAuthority)?;
        if constraints.ca && deep_enough && usage.key_cert_sign() {
            Ok(())
        } else {
            Err(CertificateRefusal::NotAnAuthority)
        }
    }

    /// Checks that this one may sign lists of revoked certificates.
    ///
    /// # Errors
    /// [`CertificateRefusal::NotAnAuthority`] if its key usage leaves cRLSign out.
    pub fn check_signs_lists(&self) -> Result<(), CertificateRefusal> {
        match self.key_usage()? {
            Some(usage) if usage.crl_sign() => Ok(()),
            _ => Err(CertificateRefusal::NotAnAuthority),
        }
    }

    /// Checks that this one is no authority.
    ///
    /// # Errors
    /// [`CertificateRefusal::Authority`] if it is.
    pub fn check_not_authority(&self) -> Result<(), CertificateRefusal> {
        if self.basic_constraints()?.is_some_and(|constraints| constraints.ca) {
            return Err(CertificateRefusal::Authority);
        }
        Ok(())
    }

    /// The value of an extension; there is at most one of each.
    #[must_use]
    pub fn extension(&self, oid: &ObjectIdentifier) -> Option<&[u8]> {
        let found = self.extensions().iter().find(|extension| extension.extn_id == *oid)?;
        Some(OctetString::as_bytes(&found.extn_value))
    }

    /// The common name of the subject, if it has exactly one.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        let names = &self.parsed.tbs_certificate.subject.0;
        let mut found = names
            .iter()
            .flat_map(|name| name.0.iter())
            .filter(|attribute| attribute.oid == rfc4519::CN);
        let value = &found.next()?.value;
        if found.next().is_some() {
            return None;
        }
        match value.tag() {
            der::Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str()),
            der::Tag::PrintableString => value
                .decode_as::<PrintableStringRef<'_>>()
                .ok()
                .map(|text| text.as_str()),
            _ => None,
        }
    }

    /// The serial number, big-endian, as it stands in the certificate.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate.serial_number.as_bytes()
    }

    /// The subject.
    #[must_use]
    pub const fn subject(&self) -> &x509_cert::name::Name {
        &self.parsed.tbs_certificate.subject
    }

    /// The issuer.
    #[must_use]
    pub const fn issuer(&self) -> &x509_cert::name::Name {
        &self.parsed.tbs_certificate.issuer
    }

    /// The bytes that are signed, as received.
    #[must_use]
    pub const fn tbs(&self) -> &'a [u8] {
        self.tbs
    }

    /// The key's bits: an uncompressed point, or an RSAPublicKey.
    #[must_use]
    pub fn public_key(&self) -> Option<&[u8]> {
        self.parsed
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key
            .as_bytes()
    }

    /// DER of the SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`CertificateRefusal::Malformed`] if it cannot be written again.
    pub fn spki_der(&self) -> Result<Vec<u8>, CertificateRefusal> {
        let spki = &self.parsed.tbs_certificate.subject_public_key_info;
        spki.to_der().map_err(|_| CertificateRefusal::Malformed)
    }

    /// The key, if it is of the kind that `scheme` has.
    fn key_of(&self, scheme: SignatureScheme) -> Option<&[u8]> {
        let algorithm = &self.parsed.tbs_certificate.subject_public_key_info.algorithm;
        let key = self.public_key()?;
        let fits = match scheme {
            SignatureScheme::RsaPssSha384 => algorithm.oid == rfc5912::RSA_ENCRYPTION,
            SignatureScheme::EcdsaP384 | SignatureScheme::EcdsaP384Fixed => {
                let curve = algorithm
                    .parameters
                    .as_ref()
                    .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
                algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY
                    && curve == Some(rfc5912::SECP_384_R_1)
                    && key.len() == P384_POINT_LEN
                    && key.first() == Some(&4)
            }
        };
        fits.then_some(key)
    }

    fn extensions(&self) -> &[Extension] {
        self.parsed.tbs_certificate.extensions.as_deref().unwrap_or_default()
    }

    fn basic_constraints(&self) -> Result<Option<BasicConstraints>, CertificateRefusal> {
        self.extension(&rfc5280::ID_CE_BASIC_CONSTRAINTS)
            .map(|value| BasicConstraints::from_der(value).map_err(|_| CertificateRefusal::Malformed))
            .transpose()
    }

    fn key_usage(&self) -> Result<Option<KeyUsage>, CertificateRefusal> {
        self.extension(&rfc5280::ID_CE_KEY_USAGE)
            .map(|value| KeyUsage::from_der(value).map_err(|_| CertificateRefusal::NotAnAuthority))
            .transpose()
    }
}

/// Checks that `algorithm` names `scheme`, with exactly its parameters.
pub(crate) fn check_algorithm(
    algorithm: &spki::AlgorithmIdentifierOwned,
    scheme: SignatureScheme,
) -> Result<(), CertificateRefusal> {
    let der = algorithm.to_der().map_err(|_| CertificateRefusal::Malformed)?;
    if scheme.is_named_by(&der) {
        Ok(())
    } else {
        Err(CertificateRefusal::SignatureAlgorithm)
    }
}

/// Checks that no extension repeats, and that each critical one is `understood`.
pub(crate) fn check_extensions(
    extensions: &[Extension],
    understood: &[ObjectIdentifier],
) -> Result<(), CertificateRefusal> {
    let known = [rfc5280::ID_CE_BASIC_CONSTRAINTS, rfc5280::ID_CE_KEY_USAGE];
    for (index, extension) in extensions.iter().enumerate() {
        let id = extension.extn_id;
        let same = extensions.iter().skip(index).filter(|other| other.extn_id == id);
        if same.count() != 1 {
            return Err(CertificateRefusal::RepeatedExtension);
        }
        if extension.critical && !known.contains(&id) && !understood.contains(&id) {
            return Err(CertificateRefusal::CriticalExtension);
        }
    }
    Ok(())
}

/// The bytes of the first element of a certificate or list: what its signature is over, whatever a parser would write again.
pub(crate) fn signed_part(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    let signed = reader.sequence(|inner| {
        let signed = inner.tlv_bytes()?;
        // The rest was parsed by the caller.
        inner.tlv_bytes()?;
        inner.tlv_bytes()?;
        Ok(signed)
    })?;
    reader.finish(signed)
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// DER of the certificates of a PEM text, in their order: at most `most`, with nothing but white space around them.
///
/// # Errors
/// [`PemRefusal`] for anything else in the text, an empty text, and for more than `most`.
pub fn pem_certificates(pem: &str, most: usize) -> Result<Vec<Vec<u8>>, PemRefusal> {
    if pem.len() > most.saturating_mul(MAX_PEM_LEN) {
        return Err(PemRefusal::TooMany(most));
    }
    let mut found = Vec::new();
    let mut rest = pem.trim();
    while !rest.is_empty() {
        if found.len() == most {
            return Err(PemRefusal::TooMany(most));
        }
        // The decoder would skip text before it.
        if !rest.starts_with(BEGIN) {
            return Err(PemRefusal::Malformed);
        }
        let at = rest.find(END).ok_or(PemRefusal::Malformed)?;
        let (one, after) = rest
            .split_at_checked(at.saturating_add(END.len()))
            .ok_or(PemRefusal::Malformed)?;
        let (label, der) = decode_vec(one.as_bytes()).map_err(|_| PemRefusal::Malformed)?;
        if label != "CERTIFICATE" || der.len() > MAX_CERTIFICATE_LEN {
            return Err(PemRefusal::Malformed);
        }
        found.push(der);
        rest = after.trim_start();
    }
    if found.is_empty() {
        return Err(PemRefusal::Malformed);
    }
    Ok(found)
}
