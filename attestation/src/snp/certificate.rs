//! One certificate of AMD's chains: parsed strictly, its signature checked over the bytes that came.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc4519, rfc5280, rfc5912};
use der::asn1::{Ia5StringRef, OctetString, PrintableStringRef, Utf8StringRef};
use der::{Decode, Encode, Reader, SliceReader, Tagged};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use super::oid::{BOOTLOADER, FMC, HARDWARE_ID, MICROCODE, PRODUCT, SNP, TEE};
use super::refusal::CertificateRefusal as Refusal;
use crate::ids::UnixTime;
use crate::policy::{Generation, TcbVersion};

/// The one signature algorithm, without and with its default trailer: AMD's certificates have both.
const PSS_SHA384: [&[u8]; 2] = [super::oid::PSS_SHA384, super::oid::PSS_SHA384_WITH_TRAILER];

/// A certificate that has the right form; nothing in it is proven.
pub(super) struct Certificate<'a> {
    /// The signed part, as received.
    tbs: &'a [u8],
    parsed: x509_cert::Certificate,
}

impl<'a> Certificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Refusal> {
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| Refusal::Malformed)?;
        if parsed.tbs_certificate.version != x509_cert::Version::V3 {
            return Err(Refusal::Malformed);
        }
        let tbs = signed_part(der).map_err(|_| Refusal::Malformed)?;
        let certificate = Self { tbs, parsed };
        certificate.check_extensions()?;
        Ok(certificate)
    }

    /// Checks that `issuer` issued and signed this one.
    pub(super) fn check_issued_by(&self, issuer: &Self) -> Result<(), Refusal> {
        let encode = |algorithm: &spki::AlgorithmIdentifierOwned| algorithm.to_der().map_err(|_| Refusal::Malformed);
        let algorithm = encode(&self.parsed.signature_algorithm)?;
        if algorithm != encode(&self.parsed.tbs_certificate.signature)? || !PSS_SHA384.contains(&algorithm.as_slice()) {
            return Err(Refusal::SignatureAlgorithm);
        }
        if self.parsed.tbs_certificate.issuer != issuer.parsed.tbs_certificate.subject {
            return Err(Refusal::Issuer);
        }
        let signature = self.parsed.signature.as_bytes().ok_or(Refusal::Malformed)?;
        let key = &issuer.parsed.tbs_certificate.subject_public_key_info;
        if key.algorithm.oid != rfc5912::RSA_ENCRYPTION {
            return Err(Refusal::Signature);
        }
        let key = key.subject_public_key.as_bytes().ok_or(Refusal::Signature)?;
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(self.tbs, signature)
            .map_err(|_| Refusal::Signature)
    }

    /// Checks that `now` is within the validity, both ends included.
    pub(super) fn check_dates(&self, now: UnixTime) -> Result<(), Refusal> {
        let validity = &self.parsed.tbs_certificate.validity;
        if now.0 < validity.not_before.to_unix_duration().as_secs() {
            return Err(Refusal::NotYetValid);
        }
        if now > self.not_after() {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    /// Last second of the validity.
    pub(super) fn not_after(&self) -> UnixTime {
        UnixTime(
            self.parsed
                .tbs_certificate
                .validity
                .not_after
                .to_unix_duration()
                .as_secs(),
        )
    }

    /// Checks that this one may sign certificates that have `below` authorities under it.
    pub(super) fn check_authority(&self, below: u8) -> Result<(), Refusal> {
        let constraints = self.basic_constraints()?.ok_or(Refusal::NotAnAuthority)?;
        let deep_enough = constraints.path_len_constraint.is_none_or(|most| below <= most);
        let usage: KeyUsage = self
            .extension(&rfc5280::ID_CE_KEY_USAGE)
            .and_then(|value| KeyUsage::from_der(value).ok())
            .ok_or(Refusal::NotAnAuthority)?;
        if constraints.ca && deep_enough && usage.key_cert_sign() {
            Ok(())
        } else {
            Err(Refusal::NotAnAuthority)
        }
    }

    /// Checks that this one is a chip's and not an authority's.
    pub(super) fn check_leaf(&self, common_name: &str) -> Result<(), Refusal> {
        if self.basic_constraints()?.is_some_and(|constraints| constraints.ca) {
            return Err(Refusal::Authority);
        }
        if self.common_name() != Some(common_name) {
            return Err(Refusal::CommonName);
        }
        Ok(())
    }

    /// Checks an ECDSA P-384 signature (r and s, 48 bytes each, big-endian) over `message` by this one's key.
    pub(super) fn check_signature(&self, message: &[u8], signature: &[u8; 96]) -> Result<bool, Refusal> {
        let key = &self.parsed.tbs_certificate.subject_public_key_info;
        let curve = key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        if key.algorithm.oid != rfc5912::ID_EC_PUBLIC_KEY || curve != Some(rfc5912::SECP_384_R_1) {
            return Err(Refusal::Key);
        }
        let key = key.subject_public_key.as_bytes().ok_or(Refusal::Key)?;
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key);
        Ok(key.verify(message, signature).is_ok())
    }

    /// The generation that the product's name begins with.
    pub(super) fn generation(&self) -> Result<Generation, Refusal> {
        let refusal = Refusal::Extension("productName");
        let value = self.extension(&PRODUCT).ok_or(refusal)?;
        let name = Ia5StringRef::from_der(value).map_err(|_| refusal)?;
        // A stepping may follow: `Milan-B0`.
        match name.as_str().split('-').next() {
            Some("Milan") => Ok(Generation::Milan),
            Some("Genoa") => Ok(Generation::Genoa),
            Some("Turin") => Ok(Generation::Turin),
            _ => Err(refusal),
        }
    }

    /// The firmware versions that the chip's key was derived from.
    pub(super) fn tcb(&self, generation: Generation) -> Result<TcbVersion, Refusal> {
        Ok(TcbVersion {
            fmc: match generation {
                Generation::Milan | Generation::Genoa => None,
                Generation::Turin => Some(self.version(&FMC, "fmcSPL")?),
            },
            bootloader: self.version(&BOOTLOADER, "blSPL")?,
            tee: self.version(&TEE, "teeSPL")?,
            snp: self.version(&SNP, "snpSPL")?,
            microcode: self.version(&MICROCODE, "ucodeSPL")?,
        })
    }

    /// The chip's id: 64 bytes, and 8 from Turin on, which a report extends with zeros.
    pub(super) fn hardware_id(&self, generation: Generation) -> Result<[u8; 64], Refusal> {
        let refusal = Refusal::Extension("hwID");
        let id = self.extension(&HARDWARE_ID).ok_or(refusal)?;
        let length = match generation {
            Generation::Milan | Generation::Genoa => 64,
            Generation::Turin => 8,
        };
        if id.len() != length {
            return Err(refusal);
        }
        let mut out = [0u8; 64];
        for (to, from) in out.iter_mut().zip(id) {
            *to = *from;
        }
        Ok(out)
    }

    fn version(&self, oid: &ObjectIdentifier, name: &'static str) -> Result<u8, Refusal> {
        let value = self.extension(oid).ok_or(Refusal::Extension(name))?;
        u8::from_der(value).map_err(|_| Refusal::Extension(name))
    }

    fn check_extensions(&self) -> Result<(), Refusal> {
        let extensions = self.parsed.tbs_certificate.extensions.as_deref().unwrap_or_default();
        for (index, extension) in extensions.iter().enumerate() {
            let id = extension.extn_id;
            if extensions
                .iter()
                .skip(index)
                .filter(|other| other.extn_id == id)
                .count()
                != 1
            {
                return Err(Refusal::RepeatedExtension);
            }
            let understood = id == rfc5280::ID_CE_BASIC_CONSTRAINTS || id == rfc5280::ID_CE_KEY_USAGE;
            if extension.critical && !understood {
                return Err(Refusal::CriticalExtension);
            }
        }
        Ok(())
    }

    fn basic_constraints(&self) -> Result<Option<BasicConstraints>, Refusal> {
        self.extension(&rfc5280::ID_CE_BASIC_CONSTRAINTS)
            .map(|value| BasicConstraints::from_der(value).map_err(|_| Refusal::Malformed))
            .transpose()
    }

    /// The value of an extension; there is at most one of each.
    fn extension(&self, oid: &ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate.extensions.as_deref().unwrap_or_default();
        let found = extensions.iter().find(|extension| extension.extn_id == *oid)?;
        Some(OctetString::as_bytes(&found.extn_value))
    }

    /// The one common name of the subject.
    fn common_name(&self) -> Option<&str> {
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
}

/// The bytes of the first element of a certificate: what its signature is over, whatever a parser would write again.
fn signed_part(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    let signed = reader.sequence(|inner| {
        let signed = inner.tlv_bytes()?;
        // The rest was parsed above.
        inner.tlv_bytes()?;
        inner.tlv_bytes()?;
        Ok(signed)
    })?;
    reader.finish(signed)
}
