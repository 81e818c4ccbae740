//! Certificates in the shape of AMD's, under names that say SIMULATED.
//!
//! Public for tests of the verifier, which need chains that are wrong in one way each.

use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384};
use cloister_attestation::UnixTime;
use cloister_attestation::danger::{SIMULATED_GENERATION, SIMULATED_TCB};
use cloister_attestation::policy::TcbVersion;
use cloister_attestation::snp::oid;
use const_oid::{AssociatedOid, ObjectIdentifier};
use der::asn1::{BitString, Ia5StringRef, OctetString, UtcTime};
use der::flagset::FlagSet;
use der::{Decode, Encode};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

use crate::AttesterError;

/// Name of the root.
pub const ARK_NAME: &str = "CN=ARK-SIMULATED,O=Cloister SIMULATED TEE";
/// Name of the intermediate.
pub const ASK_NAME: &str = "CN=SEV-SIMULATED,O=Cloister SIMULATED TEE";
/// Name of a chip; the verifier asks for this common name.
pub const VCEK_NAME: &str = "CN=SEV-VCEK,O=Cloister SIMULATED TEE";

/// Certificates are valid from an hour before they were made, for clocks that differ, to seven years after.
const BACKDATED_SECONDS: u64 = 3600;
const LIFE_SECONDS: u64 = 7 * 365 * 24 * 3600;

/// Everything of a certificate but its signature.
pub struct Spec {
    /// Subject, as RFC 4514 text.
    pub subject: &'static str,
    /// Issuer, as RFC 4514 text.
    pub issuer: &'static str,
    /// First second of its validity.
    pub not_before: UnixTime,
    /// Last second of its validity.
    pub not_after: UnixTime,
    /// DER of its SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Its extensions.
    pub extensions: Vec<Extension>,
}

impl Spec {
    /// Signs the certificate with an RSA key, by RSASSA-PSS with SHA-384, and answers with its DER.
    ///
    /// # Errors
    /// [`AttesterError`] for names and times that no certificate can hold.
    pub fn sign(&self, issuer_key: &RsaKeyPair) -> Result<Vec<u8>, AttesterError> {
        let tbs = self.tbs().map_err(|_| AttesterError::Crypto("a certificate"))?;
        let message = tbs.to_der().map_err(|_| AttesterError::Crypto("a certificate"))?;
        let mut signature = vec![0; issuer_key.public_modulus_len()];
        issuer_key
            .sign(&RSA_PSS_SHA384, &SystemRandom::new(), &message, &mut signature)
            .map_err(|_| AttesterError::Crypto("a certificate's signature"))?;
        BitString::from_bytes(&signature)
            .map(|signature| x509_cert::Certificate {
                signature_algorithm: tbs.signature.clone(),
                tbs_certificate: tbs,
                signature,
            })
            .and_then(|certificate| certificate.to_der())
            .map_err(|_| AttesterError::Crypto("a certificate"))
    }

    fn tbs(&self) -> der::Result<TbsCertificate> {
        Ok(TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&[1])?,
            signature: AlgorithmIdentifierOwned::from_der(oid::PSS_SHA384)?,
            issuer: Name::from_str(self.issuer)?,
            validity: Validity {
                not_before: time(self.not_before)?,
                not_after: time(self.not_after)?,
            },
            subject: Name::from_str(self.subject)?,
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(&self.spki)?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions.clone()),
        })
    }
}

/// Root and intermediate with their private keys.
pub struct Chain {
    /// DER of the root.
    pub ark: Vec<u8>,
    /// DER of the intermediate.
    pub ask: Vec<u8>,
    /// Key of the root.
    pub ark_key: RsaKeyPair,
    /// Key of the intermediate.
    pub ask_key: RsaKeyPair,
}

impl Chain {
    /// Makes both keys and certificates.
    ///
    /// # Errors
    /// [`AttesterError`] if a key cannot be made.
    pub fn generate(now: UnixTime) -> Result<Self, AttesterError> {
        let rsa = || RsaKeyPair::generate(KeySize::Rsa4096).map_err(|_| AttesterError::Crypto("an RSA key"));
        let (ark_key, ask_key) = (rsa()?, rsa()?);
        let authority = |subject, key: &RsaKeyPair, below| {
            Ok::<_, AttesterError>(Spec {
                subject,
                issuer: ARK_NAME,
                not_before: UnixTime(now.0.saturating_sub(BACKDATED_SECONDS)),
                not_after: now.plus(LIFE_SECONDS),
                spki: rsa_spki(key)?,
                extensions: authority_extensions(below)?,
            })
        };
        Ok(Self {
            ark: authority(ARK_NAME, &ark_key, None)?.sign(&ark_key)?,
            ask: authority(ASK_NAME, &ask_key, Some(0))?.sign(&ark_key)?,
            ark_key,
            ask_key,
        })
    }

    /// The certificate of `chip` with the SIMULATED firmware versions.
    ///
    /// # Errors
    /// [`AttesterError`] if it cannot be made.
    pub fn issue_vcek(&self, chip: &Chip, now: UnixTime) -> Result<Vec<u8>, AttesterError> {
        chip.spec(now)?.sign(&self.ask_key)
    }
}

/// A SIMULATED chip: its id and its signing key.
pub struct Chip {
    /// Its id.
    pub id: [u8; 64],
    /// Its signing key.
    pub key: EcdsaKeyPair,
}

impl Chip {
    /// Draws an id and a key.
    ///
    /// # Errors
    /// [`AttesterError`] if there is no randomness.
    pub fn generate() -> Result<Self, AttesterError> {
        let mut id = [0; 64];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| AttesterError::Crypto("random bytes"))?;
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)
            .map_err(|_| AttesterError::Crypto("an ECDSA key"))?;
        Ok(Self { id, key })
    }

    /// The chip's certificate before it is signed.
    ///
    /// # Errors
    /// [`AttesterError`] if the key cannot be encoded.
    pub fn spec(&self, now: UnixTime) -> Result<Spec, AttesterError> {
        Ok(Spec {
            subject: VCEK_NAME,
            issuer: ASK_NAME,
            not_before: UnixTime(now.0.saturating_sub(BACKDATED_SECONDS)),
            not_after: now.plus(LIFE_SECONDS),
            spki: self
                .key
                .public_key()
                .as_der()
                .map_err(|_| AttesterError::Crypto("a public key"))?
                .as_ref()
                .to_vec(),
            extensions: vcek_extensions(&SIMULATED_GENERATION.to_string(), &SIMULATED_TCB, &self.id)?,
        })
    }

    /// The private key in PKCS #8.
    ///
    /// # Errors
    /// [`AttesterError`] if it cannot be encoded.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, AttesterError> {
        let document = self.key.to_pkcs8v1();
        document
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| AttesterError::Crypto("a private key"))
    }
}

/// DER of the SubjectPublicKeyInfo of an RSA key.
///
/// # Errors
/// [`AttesterError`] if it cannot be encoded.
pub fn rsa_spki(key: &RsaKeyPair) -> Result<Vec<u8>, AttesterError> {
    let der = key.public_key().as_der();
    der.map(|der| der.as_ref().to_vec())
        .map_err(|_| AttesterError::Crypto("a public key"))
}

/// Extensions of a certificate authority; `below` is how many authorities may be under it, where that is bounded.
///
/// # Errors
/// [`AttesterError`] if they cannot be encoded.
pub fn authority_extensions(below: Option<u8>) -> Result<Vec<Extension>, AttesterError> {
    let constraints = BasicConstraints {
        ca: true,
        path_len_constraint: below,
    };
    let usage = KeyUsage(FlagSet::from(KeyUsages::KeyCertSign));
    let encoded = constraints
        .to_der()
        .and_then(|constraints| Ok((constraints, usage.to_der()?)));
    let (constraints, usage) = encoded.map_err(|_| AttesterError::Crypto("an extension"))?;
    Ok(vec![
        extension(BasicConstraints::OID, true, constraints)?,
        extension(KeyUsage::OID, true, usage)?,
    ])
}

/// AMD's extensions of a chip's certificate.
///
/// # Errors
/// [`AttesterError`] if they cannot be encoded.
pub fn vcek_extensions(product: &str, tcb: &TcbVersion, chip_id: &[u8]) -> Result<Vec<Extension>, AttesterError> {
    let refused = |_| AttesterError::Crypto("an extension");
    let product = Ia5StringRef::new(product)
        .and_then(|name| name.to_der())
        .map_err(refused)?;
    let mut extensions = vec![
        extension(oid::PRODUCT, false, product)?,
        extension(oid::HARDWARE_ID, false, chip_id.to_vec())?,
    ];
    let versions = [
        (oid::BOOTLOADER, Some(tcb.bootloader)),
        (oid::TEE, Some(tcb.tee)),
        (oid::SNP, Some(tcb.snp)),
        (oid::MICROCODE, Some(tcb.microcode)),
        (oid::FMC, tcb.fmc),
    ];
    for (oid, version) in versions {
        if let Some(version) = version {
            extensions.push(extension(oid, false, version.to_der().map_err(refused)?)?);
        }
    }
    Ok(extensions)
}

/// One extension with `value` as the content of its octet string.
///
/// # Errors
/// [`AttesterError`] if `value` is too long for DER.
pub fn extension(oid: ObjectIdentifier, critical: bool, value: Vec<u8>) -> Result<Extension, AttesterError> {
    Ok(Extension {
        extn_id: oid,
        critical,
        extn_value: OctetString::new(value).map_err(|_| AttesterError::Crypto("an extension"))?,
    })
}

/// The chip id in a chip's certificate.
pub(super) fn hardware_id(vcek: &[u8]) -> Option<[u8; 64]> {
    let certificate = x509_cert::Certificate::from_der(vcek).ok()?;
    let extensions = certificate.tbs_certificate.extensions?;
    let found = extensions
        .iter()
        .find(|extension| extension.extn_id == oid::HARDWARE_ID)?;
    found.extn_value.as_bytes().try_into().ok()
}

/// Times are written as UTCTime, which ends with 2049.
fn time(at: UnixTime) -> der::Result<Time> {
    UtcTime::from_unix_duration(Duration::from_secs(at.0)).map(Time::UtcTime)
}
