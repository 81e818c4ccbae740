//! The certificates of a device: its firmware's key, its boot ROM's, and NVIDIA's three above them.

use const_oid::db::rfc5280::ID_CE_KEY_USAGE;
use der::Decode;
use x509_cert::ext::pkix::KeyUsage;

use super::fwid;
use super::policy::{DeviceArch, DeviceSerial};
use super::refusal::{NvidiaRefusal, Role};
use super::spdm::DIGEST_LEN;
use crate::identity::sha256;
use crate::ids::{Sha256Digest, UnixTime};
use crate::x509::{
    AwsLc, Certificate, CertificateRefusal, PemRefusal, SignatureScheme, SignatureVerifier, pem_certificates,
};

/// Certificates of a chain, its own root included.
pub const CHAIN_LEN: usize = 5;
/// Roles of the certificates, in the order in which they come.
pub(super) const ROLES: [Role; CHAIN_LEN] = [Role::Leaf, Role::Device, Role::Provisioner, Role::Family, Role::Root];

/// The root that a chain has to end in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor(pub(super) Vec<u8>);

/// A chain that ends in the root, whose certificates each signed the one before, and that is of the architecture that was
/// asked for. It may be kept and used for further reports while [`Self::check_dates`] holds.
#[derive(Debug, Clone)]
pub struct VerifiedChain {
    pub(super) ders: [Vec<u8>; CHAIN_LEN],
    pub(super) arch: DeviceArch,
    pub(super) serial: DeviceSerial,
    pub(super) leaf_serial: DeviceSerial,
    pub(super) model: String,
    pub(super) fwid: Option<[u8; DIGEST_LEN]>,
    valid_from: UnixTime,
    valid_until: UnixTime,
}

impl Anchor {
    /// NVIDIA's root of all devices, built in; `roots/SOURCES.md` says where it is from.
    ///
    /// # Errors
    /// [`NvidiaRefusal::Certificate`] if the built-in file is damaged.
    pub fn nvidia() -> Result<Self, NvidiaRefusal> {
        let damaged = || NvidiaRefusal::Certificate {
            role: Role::Root,
            reason: CertificateRefusal::Malformed,
        };
        let root = pem_certificates(include_str!("roots/device_root.pem"), 1).map_err(|_| damaged())?;
        root.into_iter().next().map(Self).ok_or_else(damaged)
    }
}

/// Verifies a chain in PEM, leaf first, against NVIDIA's root.
///
/// # Errors
/// [`NvidiaRefusal`] names the first thing that does not hold.
pub fn verify(pem: &str, arch: DeviceArch, now: UnixTime) -> Result<VerifiedChain, NvidiaRefusal> {
    verify_under(&Anchor::nvidia()?, pem, arch, now, &AwsLc)
}

/// The same against another root, by other cryptography.
pub(super) fn verify_under(
    anchor: &Anchor,
    pem: &str,
    arch: DeviceArch,
    now: UnixTime,
    crypto: &dyn SignatureVerifier,
) -> Result<VerifiedChain, NvidiaRefusal> {
    let ders = pem_certificates(pem, CHAIN_LEN).map_err(|refusal| match refusal {
        PemRefusal::TooMany(_) => NvidiaRefusal::ChainLength(CHAIN_LEN.saturating_add(1)),
        other @ PemRefusal::Malformed => other.into(),
    })?;
    let ders: [Vec<u8>; CHAIN_LEN] = ders
        .try_into()
        .map_err(|short: Vec<Vec<u8>>| NvidiaRefusal::ChainLength(short.len()))?;
    let [leaf, device, provisioner, family, root] = &ders;
    if *root != anchor.0 {
        return Err(NvidiaRefusal::OtherRoot(sha256(&[root])));
    }
    let parse = |role, der| Certificate::parse(der, &[]).map_err(NvidiaRefusal::certificate(role));
    // From here on the built-in root, not the one that came.
    let all = [
        parse(Role::Leaf, leaf)?,
        parse(Role::Device, device)?,
        parse(Role::Provisioner, provisioner)?,
        parse(Role::Family, family)?,
        parse(Role::Root, &anchor.0)?,
    ];
    check_signatures(&all, now, crypto)?;
    let [leaf, device, ..] = &all;
    check_leaf(leaf).map_err(NvidiaRefusal::certificate(Role::Leaf))?;
    check_family(Role::Device, device, arch)?;
    check_family(Role::Leaf, leaf, arch)?;
    let serial = |role, certificate: &Certificate<'_>| {
        DeviceSerial::from_bytes(certificate.serial()).ok_or(NvidiaRefusal::Certificate {
            role,
            reason: CertificateRefusal::Malformed,
        })
    };
    Ok(VerifiedChain {
        arch,
        serial: serial(Role::Device, device)?,
        leaf_serial: serial(Role::Leaf, leaf)?,
        model: device.common_name().unwrap_or_default().to_owned(),
        fwid: fwid::of(leaf).map_err(NvidiaRefusal::certificate(Role::Leaf))?,
        valid_from: all
            .iter()
            .map(Certificate::not_before)
            .max()
            .unwrap_or(UnixTime(u64::MAX)),
        valid_until: all.iter().map(Certificate::not_after).min().unwrap_or(UnixTime(0)),
        ders,
    })
}

/// Root first: what is wrong with an issuer is said before what is wrong below it.
fn check_signatures(
    all: &[Certificate<'_>; CHAIN_LEN],
    now: UnixTime,
    crypto: &dyn SignatureVerifier,
) -> Result<(), NvidiaRefusal> {
    let [leaf, device, provisioner, family, root] = all;
    let links = [
        (Role::Root, root, root, Some(3)),
        (Role::Family, family, root, Some(2)),
        (Role::Provisioner, provisioner, family, Some(1)),
        (Role::Device, device, provisioner, Some(0)),
        (Role::Leaf, leaf, device, None),
    ];
    for (role, certificate, issuer, below) in links {
        let refused = NvidiaRefusal::certificate(role);
        certificate
            .check_issued_by(issuer, SignatureScheme::EcdsaP384, crypto)
            .map_err(&refused)?;
        certificate.check_dates(now).map_err(&refused)?;
        if let Some(below) = below {
            certificate.check_authority(below).map_err(&refused)?;
        }
    }
    Ok(())
}

/// The leaf signs reports, and nothing below it.
fn check_leaf(leaf: &Certificate<'_>) -> Result<(), CertificateRefusal> {
    leaf.check_not_authority()?;
    let usage = leaf
        .extension(&ID_CE_KEY_USAGE)
        .and_then(|value| KeyUsage::from_der(value).ok());
    match usage {
        Some(usage) if usage.digital_signature() && !usage.key_cert_sign() => Ok(()),
        _ => Err(CertificateRefusal::Key),
    }
}

/// A common name begins with the family of the chip: `GH100 A01 GSP BROM`, `LS_10 A01 FSP FMC LF`.
fn check_family(role: Role, certificate: &Certificate<'_>, claimed: DeviceArch) -> Result<(), NvidiaRefusal> {
    let name = certificate.common_name().unwrap_or_default();
    let found = match name.split(' ').next().unwrap_or_default() {
        family if family.starts_with("GH100") => Some(DeviceArch::Hopper),
        family if family.starts_with("GB1") || family.starts_with("GB2") => Some(DeviceArch::Blackwell),
        "LS_10" | "LS10" => Some(DeviceArch::Ls10),
        _ => None,
    };
    if found == Some(claimed) {
        return Ok(());
    }
    Err(NvidiaRefusal::Architecture {
        role,
        found: name.to_owned(),
        claimed,
    })
}

impl VerifiedChain {
    /// Checks that all of the chain is valid at `now`.
    ///
    /// # Errors
    /// [`NvidiaRefusal::Certificate`] if it is not.
    pub fn check_dates(&self, now: UnixTime) -> Result<(), NvidiaRefusal> {
        let reason = match now {
            early if early < self.valid_from => CertificateRefusal::NotYetValid,
            late if late > self.valid_until => CertificateRefusal::Expired,
            _ => return Ok(()),
        };
        Err(NvidiaRefusal::Certificate {
            role: Role::Leaf,
            reason,
        })
    }

    /// Last second in which all of the chain is valid.
    #[must_use]
    pub const fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// SHA-256 of each certificate, leaf first.
    #[must_use]
    pub fn digests(&self) -> [Sha256Digest; CHAIN_LEN] {
        self.ders.each_ref().map(|der| sha256(&[der]))
    }

    /// Whether the leaf's key signed `message`.
    pub(super) fn has_signed(
        &self,
        message: &[u8],
        signature: &[u8],
        crypto: &dyn SignatureVerifier,
    ) -> Result<bool, NvidiaRefusal> {
        let [leaf, ..] = &self.ders;
        Certificate::parse(leaf, &[])
            .and_then(|leaf| leaf.has_signed(SignatureScheme::EcdsaP384Fixed, message, signature, crypto))
            .map_err(NvidiaRefusal::certificate(Role::Leaf))
    }
}
