//! What AMD's certificates say of a chip, beyond what every certificate says.

use const_oid::ObjectIdentifier;
use der::Decode;
use der::asn1::{Ia5StringRef, OctetStringRef};

use super::oid::{BOOTLOADER, FMC, HARDWARE_ID, MICROCODE, PRODUCT, PROVIDER, SNP, TEE};
use crate::policy::{Generation, TcbVersion};
use crate::x509::{Certificate, CertificateRefusal as Refusal};

/// The generation that the product's name begins with.
pub(super) fn generation(certificate: &Certificate<'_>) -> Result<Generation, Refusal> {
    let refusal = Refusal::Extension("productName");
    let value = certificate.extension(&PRODUCT).ok_or(refusal)?;
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
pub(super) fn tcb(certificate: &Certificate<'_>, generation: Generation) -> Result<TcbVersion, Refusal> {
    let version = |oid: &ObjectIdentifier, name| {
        let value = certificate.extension(oid).ok_or(Refusal::Extension(name))?;
        u8::from_der(value).map_err(|_| Refusal::Extension(name))
    };
    Ok(TcbVersion {
        fmc: match generation {
            Generation::Milan | Generation::Genoa => None,
            Generation::Turin => Some(version(&FMC, "fmcSPL")?),
        },
        bootloader: version(&BOOTLOADER, "blSPL")?,
        tee: version(&TEE, "teeSPL")?,
        snp: version(&SNP, "snpSPL")?,
        microcode: version(&MICROCODE, "ucodeSPL")?,
    })
}

/// The chip's id: 64 bytes, and 8 from Turin on, which a report extends with zeros. It stands there as it is in every certificate
/// at hand, and as an OCTET STRING in AMD's specification; both are of one length each, and no other is taken.
pub(super) fn hardware_id(certificate: &Certificate<'_>, generation: Generation) -> Result<[u8; 64], Refusal> {
    let refusal = Refusal::Extension("hwID");
    let id = certificate.extension(&HARDWARE_ID).ok_or(refusal)?;
    let length = match generation {
        Generation::Milan | Generation::Genoa => 64,
        Generation::Turin => 8,
    };
    let id = match OctetStringRef::from_der(id) {
        Ok(wrapped) if wrapped.as_bytes().len() == length => wrapped.as_bytes(),
        _ if id.len() == length => id,
        _ => return Err(refusal),
    };
    let mut out = [0u8; 64];
    for (to, from) in out.iter_mut().zip(id) {
        *to = *from;
    }
    Ok(out)
}

/// Longest name of a provider in bytes. Real ones have under 64.
const MAX_PROVIDER_LEN: usize = 256;

/// The cloud provider that a VLEK's certificate names.
pub(super) fn provider(certificate: &Certificate<'_>) -> Result<String, Refusal> {
    let refusal = Refusal::Extension("csp_id");
    let value = certificate.extension(&PROVIDER).ok_or(refusal)?;
    let name = Ia5StringRef::from_der(value).map_err(|_| refusal)?.as_str();
    let readable = (1..=MAX_PROVIDER_LEN).contains(&name.len()) && !name.chars().any(char::is_control);
    readable.then(|| name.to_owned()).ok_or(refusal)
}
