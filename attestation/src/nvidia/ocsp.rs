//! Whether a certificate is revoked: OCSP responses (RFC 6960) that were fetched before and are given as endorsements.
//!
//! A response counts for a certificate if it names its issuer and its serial number, and is signed by that issuer, or by a
//! responder that the issuer certified for this and nothing else.

use aws_lc_rs::digest::{self, Algorithm};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5280, rfc5912, rfc6960};
use der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{CrlReason, ExtendedKeyUsage};
use x509_ocsp::{BasicOcspResponse, CertId, CertStatus, OcspResponseStatus, ResponderId, SingleResponse};

use super::chain::{ROLES, VerifiedChain};
use super::refusal::{NvidiaRefusal, Role};
use crate::ids::UnixTime;
use crate::x509::{
    AwsLc, Certificate, CertificateRefusal, SignatureScheme, SignatureVerifier, check_algorithm, check_extensions,
};

/// Longest response in bytes; NVIDIA's have about 2000.
pub const MAX_OCSP_LEN: usize = 16 * 1024;
/// Most certificates in a response.
pub const MAX_CERTIFICATES: usize = 4;
/// Most answers in a response.
pub const MAX_ANSWERS: usize = 16;

/// Why an OCSP response counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OcspRefusal {
    /// Not one DER basic response within the bounds, or bytes after it.
    #[error("is not one DER response of OCSP's basic type")]
    Malformed,
    /// The responder had no answer.
    #[error("says that the responder had no answer: fetch it again")]
    NotSuccessful,
    /// Nobody who may vouch for the issuer signed it.
    #[error("is not signed by the issuer of the certificate, nor by a responder of its own")]
    Responder,
    /// The responder's certificate is refused.
    #[error("is by a responder whose certificate {0}")]
    Certificate(CertificateRefusal),
    /// The signature is wrong.
    #[error("has a wrong signature")]
    Signature,
}

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// A fresh response says that it is not revoked.
    Good,
    /// It is on hold (certificateHold), and may be taken off it.
    OnHold,
    /// It is revoked, for this reason.
    Revoked(&'static str),
    /// No response says anything, or one says that it does not know.
    Unknown,
    /// Only responses that are out of date say something.
    Stale,
}

/// A response that has the right form; its signature is verified when it is asked about a certificate.
#[derive(Debug, Clone)]
pub struct OcspResponse {
    /// The signed part, as received.
    signed: Vec<u8>,
    basic: BasicOcspResponse,
    certificates: Vec<Vec<u8>>,
}

// === impl Revocation ===

impl Revocation {
    /// Word of the claim.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::OnHold | Self::Revoked(_) => "revoked",
            Self::Unknown => "unknown",
            Self::Stale => "stale",
        }
    }
}

impl std::fmt::Display for Revocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good => f.write_str("is not revoked"),
            Self::OnHold => f.write_str("is on hold (certificateHold)"),
            Self::Revoked(reason) => write!(f, "is revoked ({reason})"),
            Self::Unknown => f.write_str("may be revoked: no OCSP response speaks of it"),
            Self::Stale => f.write_str("may be revoked: its OCSP response is out of date, fetch a new one"),
        }
    }
}

// === impl OcspResponse ===

impl OcspResponse {
    /// Parses one DER response.
    ///
    /// # Errors
    /// [`OcspRefusal::Malformed`] and [`OcspRefusal::NotSuccessful`].
    pub fn parse(der: &[u8]) -> Result<Self, OcspRefusal> {
        if der.len() > MAX_OCSP_LEN {
            return Err(OcspRefusal::Malformed);
        }
        let outer = x509_ocsp::OcspResponse::from_der(der).map_err(|_| OcspRefusal::Malformed)?;
        if outer.response_status != OcspResponseStatus::Successful {
            return Err(OcspRefusal::NotSuccessful);
        }
        let bytes = outer.response_bytes.ok_or(OcspRefusal::Malformed)?;
        if bytes.response_type != rfc6960::ID_PKIX_OCSP_BASIC {
            return Err(OcspRefusal::Malformed);
        }
        Self::parse_basic(bytes.response.as_bytes()).ok_or(OcspRefusal::Malformed)
    }

    fn parse_basic(der: &[u8]) -> Option<Self> {
        let basic = BasicOcspResponse::from_der(der).ok()?;
        let certificates = basic.certs.as_deref().unwrap_or_default();
        let answers = &basic.tbs_response_data.responses;
        if certificates.len() > MAX_CERTIFICATES || answers.is_empty() || answers.len() > MAX_ANSWERS {
            return None;
        }
        check_extensions(
            basic
                .tbs_response_data
                .response_extensions
                .as_deref()
                .unwrap_or_default(),
            &[],
        )
        .ok()?;
        for answer in answers {
            check_extensions(answer.single_extensions.as_deref().unwrap_or_default(), &[]).ok()?;
        }
        Some(Self {
            signed: first_element(der).ok()?.to_vec(),
            certificates: certificates
                .iter()
                .map(|one| one.to_der().ok())
                .collect::<Option<_>>()?,
            basic,
        })
    }

    /// When the first of its answers is out of date; an answer without an end already is.
    #[must_use]
    pub fn valid_until(&self) -> UnixTime {
        let ends = self.basic.tbs_response_data.responses.iter().map(next_update);
        ends.min().unwrap_or(UnixTime(0))
    }

    /// Its answer for the certificate of `serial` by `issuer`.
    fn answer(&self, serial: &[u8], issuer: &Certificate<'_>) -> Option<&SingleResponse> {
        let answers = &self.basic.tbs_response_data.responses;
        answers.iter().find(|answer| names(&answer.cert_id, serial, issuer))
    }

    /// Checks that `issuer`, or a responder that it certified, signed this response.
    fn check_signed_for(
        &self,
        issuer: &Certificate<'_>,
        now: UnixTime,
        crypto: &dyn SignatureVerifier,
    ) -> Result<(), OcspRefusal> {
        if self.is_by(issuer) {
            return self.check_signature(issuer, crypto);
        }
        for der in &self.certificates {
            let Ok(responder) = Certificate::parse(der, &[rfc5280::ID_CE_EXT_KEY_USAGE]) else {
                continue;
            };
            if self.is_by(&responder) {
                check_responder(&responder, issuer, now, crypto).map_err(OcspRefusal::Certificate)?;
                return self.check_signature(&responder, crypto);
            }
        }
        Err(OcspRefusal::Responder)
    }

    /// Whether the response names `signer` as its responder.
    fn is_by(&self, signer: &Certificate<'_>) -> bool {
        match &self.basic.tbs_response_data.responder_id {
            ResponderId::ByName(name) => name == signer.subject(),
            // RFC 6960, section 4.2.1: SHA-1, which only finds a key here, and proves nothing.
            ResponderId::ByKey(hash) => signer
                .public_key()
                .is_some_and(|key| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key).as_ref() == hash.as_bytes()),
        }
    }

    fn check_signature(&self, signer: &Certificate<'_>, crypto: &dyn SignatureVerifier) -> Result<(), OcspRefusal> {
        let scheme = SignatureScheme::EcdsaP384;
        check_algorithm(&self.basic.signature_algorithm, scheme).map_err(|_| OcspRefusal::Signature)?;
        let signature = self.basic.signature.as_bytes().ok_or(OcspRefusal::Malformed)?;
        match signer.has_signed(scheme, &self.signed, signature, crypto) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(OcspRefusal::Signature),
        }
    }
}

/// What `responses` say of the certificates of a chain that NVIDIA issued: the device's and the two above it. The leaf is the
/// device's own, and nobody answers for it.
///
/// # Errors
/// [`NvidiaRefusal::Ocsp`] for a response that speaks of one of them and is not signed by its issuer or its responder.
pub fn of_chain(
    chain: &VerifiedChain,
    responses: &[OcspResponse],
    now: UnixTime,
    max_age: u64,
) -> Result<Vec<(Role, Revocation)>, NvidiaRefusal> {
    let mut found = Vec::new();
    for (role, (der, issuer)) in ROLES
        .iter()
        .zip(chain.ders.iter().zip(chain.ders.iter().skip(1)))
        .skip(1)
    {
        let parse = |der| Certificate::parse(der, &[]).map_err(NvidiaRefusal::certificate(*role));
        let (certificate, issuer) = (parse(der)?, parse(issuer)?);
        found.push((*role, status(certificate.serial(), &issuer, responses, now, max_age)?));
    }
    Ok(found)
}

/// What `responses` say of the certificate of `serial` by `issuer`. A revocation counts even when it is out of date.
///
/// # Errors
/// [`OcspRefusal`] for a response that speaks of it and does not hold.
pub fn status(
    serial: &[u8],
    issuer: &Certificate<'_>,
    responses: &[OcspResponse],
    now: UnixTime,
    max_age: u64,
) -> Result<Revocation, OcspRefusal> {
    let mut found = Revocation::Unknown;
    for response in responses {
        let Some(answer) = response.answer(serial, issuer) else {
            continue;
        };
        response.check_signed_for(issuer, now, &AwsLc)?;
        let this_update = unix_time(&answer.this_update);
        let fresh = this_update <= now && now <= next_update(answer) && now.since(this_update) <= max_age;
        let says = match &answer.cert_status {
            CertStatus::Revoked(info) => match info.revocation_reason {
                Some(CrlReason::CertificateHold) => Revocation::OnHold,
                reason => return Ok(Revocation::Revoked(reason_text(reason))),
            },
            CertStatus::Good(_) if fresh => Revocation::Good,
            CertStatus::Good(_) => Revocation::Stale,
            CertStatus::Unknown(_) => Revocation::Unknown,
        };
        found = match (found, says) {
            (Revocation::OnHold, _) | (_, Revocation::OnHold) => Revocation::OnHold,
            (Revocation::Good, _) | (_, Revocation::Good) => Revocation::Good,
            (Revocation::Stale, _) => Revocation::Stale,
            (_, says) => says,
        };
    }
    Ok(found)
}

/// RFC 6960, section 4.2.2.2: issued by the very issuer, for signing OCSP responses.
fn check_responder(
    responder: &Certificate<'_>,
    issuer: &Certificate<'_>,
    now: UnixTime,
    crypto: &dyn SignatureVerifier,
) -> Result<(), CertificateRefusal> {
    responder.check_issued_by(issuer, SignatureScheme::EcdsaP384, crypto)?;
    responder.check_dates(now)?;
    responder.check_not_authority()?;
    let usage = responder
        .extension(&rfc5280::ID_CE_EXT_KEY_USAGE)
        .and_then(|value| ExtendedKeyUsage::from_der(value).ok());
    if usage.is_some_and(|usage| usage.0.contains(&rfc5280::ID_KP_OCSP_SIGNING)) {
        Ok(())
    } else {
        Err(CertificateRefusal::Extension("the extended key usage OCSPSigning"))
    }
}

/// Whether `id` is of the certificate of `serial` by `issuer` (RFC 6960, section 4.1.1).
fn names(id: &CertId, serial: &[u8], issuer: &Certificate<'_>) -> bool {
    let algorithms: [(ObjectIdentifier, &'static Algorithm); 3] = [
        (rfc5912::ID_SHA_1, &digest::SHA1_FOR_LEGACY_USE_ONLY),
        (rfc5912::ID_SHA_256, &digest::SHA256),
        (rfc5912::ID_SHA_384, &digest::SHA384),
    ];
    let algorithm = algorithms.iter().find(|(oid, _)| *oid == id.hash_algorithm.oid);
    let (Some((_, algorithm)), Ok(name), Some(key)) = (algorithm, issuer.subject().to_der(), issuer.public_key())
    else {
        return false;
    };
    id.serial_number.as_bytes() == serial
        && id.issuer_name_hash.as_bytes() == digest::digest(algorithm, &name).as_ref()
        && id.issuer_key_hash.as_bytes() == digest::digest(algorithm, key).as_ref()
}

/// The bytes of the first element: what the signature is over.
fn first_element(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    reader.sequence(|inner| {
        let first = inner.tlv_bytes()?;
        while !inner.is_finished() {
            inner.tlv_bytes()?;
        }
        Ok(first)
    })
}

fn unix_time(time: &x509_ocsp::OcspGeneralizedTime) -> UnixTime {
    UnixTime(time.0.to_unix_duration().as_secs())
}

/// Without an end, there is newer information at any time (RFC 6960, section 4.2.2.1).
fn next_update(answer: &SingleResponse) -> UnixTime {
    answer.next_update.as_ref().map_or(UnixTime(0), unix_time)
}

const fn reason_text(reason: Option<CrlReason>) -> &'static str {
    match reason {
        Some(CrlReason::KeyCompromise) => "keyCompromise",
        Some(CrlReason::CaCompromise) => "cACompromise",
        Some(CrlReason::AffiliationChanged) => "affiliationChanged",
        Some(CrlReason::Superseded) => "superseded",
        Some(CrlReason::CessationOfOperation) => "cessationOfOperation",
        Some(CrlReason::CertificateHold) => "certificateHold",
        Some(CrlReason::RemoveFromCRL) => "removeFromCRL",
        Some(CrlReason::PrivilegeWithdrawn) => "privilegeWithdrawn",
        Some(CrlReason::AaCompromise) => "aACompromise",
        Some(CrlReason::Unspecified) | None => "unspecified",
    }
}
