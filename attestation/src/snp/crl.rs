//! AMD's list of revoked certificates: what its root has revoked, fetched by whoever appraises
//! (`https://kdsintf.amd.com/{vcek,vlek}/v1/{Milan,Genoa,Turin}/crl`).
//!
//! AMD gives every chip's certificate the serial number 0, so that only intermediates can be told apart by it. A list with
//! the serial number of a chip's certificate is taken at its word.

use der::Decode;
use x509_cert::crl::CertificateList;

use crate::ids::UnixTime;
use crate::x509::{
    AwsLc, Certificate, CertificateRefusal, SignatureScheme, check_algorithm, check_extensions, signed_part,
};

/// Longest list in bytes of DER. Real ones have under 1 KiB.
pub const MAX_CRL_LEN: usize = 256 * 1024;

/// Why a list of revoked certificates is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrlRefusal {
    /// Not one DER list of X.509 version 2, without an end of its validity, with extensions that are not understood, or longer
    /// than [`MAX_CRL_LEN`].
    #[error("is not one DER list of X.509 version 2 with plain entries")]
    Malformed,
    /// Not signed with RSASSA-PSS and SHA-384.
    #[error("is not signed with RSASSA-PSS and SHA-384")]
    SignatureAlgorithm,
    /// Another root's, that of another generation for example.
    #[error("is not of this chain's root: fetch the one of the processor's generation")]
    Issuer,
    /// The root may not sign lists.
    #[error("is of a root that may not sign lists")]
    NotAnAuthority,
    /// The root did not sign it.
    #[error("is not signed by the root")]
    Signature,
    /// Its validity has not begun.
    #[error("is not valid yet: check this machine's clock")]
    NotYetValid,
    /// Its validity is over.
    #[error("has expired: fetch a new one from AMD")]
    Expired,
    /// Older than the policy's limit.
    #[error("is older than the policy's snp.maxCrlAgeSeconds: fetch a new one from AMD")]
    TooOld,
    /// The policy asks for one.
    #[error("is missing, and the policy's snp.maxCrlAgeSeconds asks for it: fetch it from AMD")]
    Missing,
}

/// A list that a root signed and that is valid.
pub(super) struct RevocationList(CertificateList);

impl RevocationList {
    /// Checks form, issuer, signature and dates.
    pub(super) fn verify(bytes: &[u8], root: &Certificate<'_>, now: UnixTime) -> Result<Self, CrlRefusal> {
        let list = parse(bytes)?;
        let signed = signed_part(bytes).map_err(|_| CrlRefusal::Malformed)?;
        if list.signature_algorithm != list.tbs_cert_list.signature {
            return Err(CrlRefusal::SignatureAlgorithm);
        }
        check_algorithm(&list.signature_algorithm, SignatureScheme::RsaPssSha384)
            .map_err(|_| CrlRefusal::SignatureAlgorithm)?;
        if list.tbs_cert_list.issuer != *root.subject() {
            return Err(CrlRefusal::Issuer);
        }
        root.check_signs_lists().map_err(|_| CrlRefusal::NotAnAuthority)?;
        let signature = list.signature.as_bytes().ok_or(CrlRefusal::Malformed)?;
        if root.has_signed(SignatureScheme::RsaPssSha384, signed, signature, &AwsLc) != Ok(true) {
            return Err(CrlRefusal::Signature);
        }
        let list = Self(list);
        if now < list.this_update() {
            return Err(CrlRefusal::NotYetValid);
        }
        if now > next_update(&list.0)? {
            return Err(CrlRefusal::Expired);
        }
        Ok(list)
    }

    /// When it was made.
    pub(super) fn this_update(&self) -> UnixTime {
        UnixTime(self.0.tbs_cert_list.this_update.to_unix_duration().as_secs())
    }

    /// Whether it has the certificate with this serial number.
    pub(super) fn has(&self, serial: &[u8]) -> bool {
        let revoked = self.0.tbs_cert_list.revoked_certificates.as_deref().unwrap_or_default();
        revoked.iter().any(|entry| entry.serial_number.as_bytes() == serial)
    }
}

/// Until when a list says that it is valid, which nothing proves here.
///
/// # Errors
/// [`CrlRefusal::Malformed`] if it is no list.
pub fn crl_next_update(bytes: &[u8]) -> Result<UnixTime, CrlRefusal> {
    next_update(&parse(bytes)?)
}

fn parse(bytes: &[u8]) -> Result<CertificateList, CrlRefusal> {
    if bytes.len() > MAX_CRL_LEN {
        return Err(CrlRefusal::Malformed);
    }
    let list = CertificateList::from_der(bytes).map_err(|_| CrlRefusal::Malformed)?;
    if list.tbs_cert_list.version != x509_cert::Version::V2 {
        return Err(CrlRefusal::Malformed);
    }
    let plain = |extensions| check_extensions(extensions, &[]).map_err(|_: CertificateRefusal| CrlRefusal::Malformed);
    plain(list.tbs_cert_list.crl_extensions.as_deref().unwrap_or_default())?;
    for entry in list.tbs_cert_list.revoked_certificates.iter().flatten() {
        // Entries of another issuer are marked by a critical extension (RFC 5280, section 5.3.3).
        plain(entry.crl_entry_extensions.as_deref().unwrap_or_default())?;
    }
    Ok(list)
}

fn next_update(list: &CertificateList) -> Result<UnixTime, CrlRefusal> {
    let end = list.tbs_cert_list.next_update.ok_or(CrlRefusal::Malformed)?;
    Ok(UnixTime(end.to_unix_duration().as_secs()))
}
