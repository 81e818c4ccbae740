//! The report: every field at its offset of AMD's table ATTESTATION_REPORT (SEV Secure Nested Paging Firmware ABI, 56860), and
//! every reserved byte zero.

use super::refusal::SnpRefusal;
use crate::policy::{Generation, TcbVersion};

/// Length in bytes of a report (SEV-SNP Firmware ABI, table ATTESTATION_REPORT).
pub const REPORT_LEN: usize = 0x4a0;
/// Bytes of a report that its signature is over: all before the signature.
pub const SIGNED_LEN: usize = 0x2a0;
/// Length in bytes of one number of the signature, little-endian and zero-extended.
const SCALAR_LEN: usize = 72;
/// Length in bytes of a P-384 scalar.
const P384_LEN: usize = 48;
/// `SIGNATURE_ALGO` of ECDSA P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
/// `MASK_CHIP_KEY` of the key information.
const MASK_CHIP_KEY: u32 = 1 << 1;
/// First version with the processor's CPUID.
const VERSION_WITH_CPUID: u32 = 3;
/// First version with the vectors of verified mitigations.
const VERSION_WITH_MITIGATIONS: u32 = 5;

/// Whose key a report says that it is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SigningKey {
    /// The chip's own, of one firmware version.
    Vcek,
    /// A cloud provider's, loaded into the chip.
    Vlek,
}

/// A report whose form is right; nothing in it is proven.
pub(super) struct Report<'a> {
    pub(super) fields: Fields,
    /// The bytes that are signed, as received.
    pub(super) signed: &'a [u8],
    /// r and s, each 48 bytes big-endian.
    pub(super) signature: [u8; 2 * P384_LEN],
    /// From the CPUID fields; version 2 has none.
    pub(super) generation: Option<Generation>,
}

/// What a report says.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) version: u32,
    pub(super) guest_svn: u32,
    pub(super) policy: u64,
    pub(super) family_id: [u8; 16],
    pub(super) image_id: [u8; 16],
    pub(super) vmpl: u32,
    pub(super) current_tcb: RawTcb,
    pub(super) platform: u64,
    pub(super) signing_key: SigningKey,
    pub(super) report_data: [u8; 64],
    pub(super) measurement: [u8; 48],
    pub(super) host_data: [u8; 32],
    pub(super) id_key_digest: [u8; 48],
    pub(super) author_key_digest: [u8; 48],
    pub(super) report_id: [u8; 32],
    pub(super) report_id_ma: [u8; 32],
    pub(super) reported_tcb: RawTcb,
    /// All zero when the platform masks it.
    pub(super) chip_id: [u8; 64],
    pub(super) committed_tcb: RawTcb,
    /// Build, minor, major.
    pub(super) current_version: [u8; 3],
    pub(super) committed_version: [u8; 3],
    pub(super) launch_tcb: RawTcb,
    /// Of the launch, then of now.
    pub(super) mitigations: Option<[u64; 2]>,
}

/// Versions of the firmware's parts, in a layout that depends on the processor's generation.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawTcb([u8; 8]);

impl<'a> Report<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SnpRefusal> {
        if bytes.len() != REPORT_LEN {
            return Err(SnpRefusal::Length(bytes.len()));
        }
        let (signed, signature) = bytes.split_at_checked(SIGNED_LEN).ok_or(SnpRefusal::Malformed)?;
        let signature = fixed_signature(signature)?;
        let mut reader = Reader(signed);
        let fields = Fields::read(&mut reader)?;
        Ok(Self {
            generation: generation(signed, fields.version)?,
            fields,
            signed,
            signature,
        })
    }
}

impl Fields {
    fn read(from: &mut Reader<'_>) -> Result<Self, SnpRefusal> {
        let version = from.u32()?;
        if !(2..=5).contains(&version) {
            return Err(SnpRefusal::Version(version));
        }
        let guest_svn = from.u32()?;
        let policy = from.u64()?;
        let (family_id, image_id) = (from.take()?, from.take()?);
        let vmpl = from.u32()?;
        let algorithm = from.u32()?;
        if algorithm != ECDSA_P384_SHA384 {
            return Err(SnpRefusal::SignatureAlgorithm(algorithm));
        }
        let current_tcb = RawTcb(from.take()?);
        let platform = from.u64()?;
        let signing_key = signing_key(from.u32()?)?;
        from.zeros::<4>()?;
        let (report_data, measurement, host_data) = (from.take()?, from.take()?, from.take()?);
        let (id_key_digest, author_key_digest) = (from.take()?, from.take()?);
        let (report_id, report_id_ma) = (from.take()?, from.take()?);
        let reported_tcb = RawTcb(from.take()?);
        // Family, model and stepping, which `generation` reads.
        if version < VERSION_WITH_CPUID {
            from.zeros::<3>()?;
        } else {
            from.take::<3>()?;
        }
        from.zeros::<21>()?;
        let chip_id = from.take()?;
        // A provider's key is that of many chips: only there may the chip stay unnamed.
        if signing_key == SigningKey::Vcek && chip_id == [0; 64] {
            return Err(SnpRefusal::MaskedChipId);
        }
        let committed_tcb = RawTcb(from.take()?);
        let current_version = from.take()?;
        from.zeros::<1>()?;
        let committed_version = from.take()?;
        from.zeros::<1>()?;
        let launch_tcb = RawTcb(from.take()?);
        let mitigations = if version < VERSION_WITH_MITIGATIONS {
            from.zeros::<16>()?;
            None
        } else {
            Some([from.u64()?, from.u64()?])
        };
        from.zeros::<152>()?;
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform,
            signing_key,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            chip_id,
            committed_tcb,
            current_version,
            committed_version,
            launch_tcb,
            mitigations,
        })
    }

    /// Bits of the guest's policy that no firmware which writes this version knows, and that must be zero: `PAGE_SWAP_DISABLE`
    /// (25) came with version 5.
    pub(super) const fn reserved_policy_bits(&self) -> u64 {
        if self.version < VERSION_WITH_MITIGATIONS {
            u64::MAX << 25
        } else {
            u64::MAX << 26
        }
    }

    /// `ALIAS_CHECK_COMPLETE`, which came with version 3.
    pub(super) const fn alias_check(&self) -> Option<bool> {
        if self.version < VERSION_WITH_CPUID {
            None
        } else {
            Some(self.platform & 1 << 5 != 0)
        }
    }
}

impl RawTcb {
    /// The versions, if the bytes between them are zero (table TCB_VERSION; Turin's has the FMC and another order).
    pub(super) fn of(self, generation: Generation) -> Result<TcbVersion, SnpRefusal> {
        let (tcb, reserved) = match (generation, self.0) {
            (Generation::Milan | Generation::Genoa, [bootloader, tee, a, b, c, d, snp, microcode]) => (
                TcbVersion {
                    fmc: None,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                },
                [a, b, c, d],
            ),
            (Generation::Turin, [fmc, bootloader, tee, snp, a, b, c, microcode]) => (
                TcbVersion {
                    fmc: Some(fmc),
                    bootloader,
                    tee,
                    snp,
                    microcode,
                },
                [a, b, c, 0],
            ),
        };
        (reserved == [0; 4]).then_some(tcb).ok_or(SnpRefusal::Malformed)
    }
}

/// Whose key signed, from the key information: `AUTHOR_KEY_EN` (0), `MASK_CHIP_KEY` (1), `SIGNING_KEY` (4:2), zeros.
fn signing_key(info: u32) -> Result<SigningKey, SnpRefusal> {
    if info & MASK_CHIP_KEY != 0 {
        return Err(SnpRefusal::MaskedChipKey);
    }
    if info >> 5 != 0 {
        return Err(SnpRefusal::Malformed);
    }
    match info >> 2 {
        0 => Ok(SigningKey::Vcek),
        1 => Ok(SigningKey::Vlek),
        other => Err(SnpRefusal::SigningKey(other)),
    }
}

/// The generation of the processor's family and model.
fn generation(signed: &[u8], version: u32) -> Result<Option<Generation>, SnpRefusal> {
    if version < VERSION_WITH_CPUID {
        return Ok(None);
    }
    let cpuid = signed.get(0x188..).and_then(|rest| rest.first_chunk::<2>());
    match cpuid {
        Some([0x19, 0x00..=0x0f]) => Ok(Some(Generation::Milan)),
        Some([0x19, 0x10..=0x1f | 0xa0..=0xaf]) => Ok(Some(Generation::Genoa)),
        Some([0x1a, 0x00..=0x11]) => Ok(Some(Generation::Turin)),
        // Later ones have no built-in root here.
        _ => Err(SnpRefusal::Malformed),
    }
}

/// r and s, from the little-endian form of the report to the big-endian one of the verifier. Everything else in the
/// signature's 512 bytes is zero, or one report could be written in many ways.
fn fixed_signature(bytes: &[u8]) -> Result<[u8; 2 * P384_LEN], SnpRefusal> {
    let (r, rest) = bytes.split_at_checked(SCALAR_LEN).ok_or(SnpRefusal::Malformed)?;
    let (s, reserved) = rest.split_at_checked(SCALAR_LEN).ok_or(SnpRefusal::Malformed)?;
    let mut out = [0u8; 2 * P384_LEN];
    let (out_r, out_s) = out.split_at_mut(P384_LEN);
    for (scalar, out) in [(r, out_r), (s, out_s)] {
        let (value, padding) = scalar.split_at_checked(P384_LEN).ok_or(SnpRefusal::Malformed)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(SnpRefusal::Malformed);
        }
        for (to, from) in out.iter_mut().zip(value.iter().rev()) {
            *to = *from;
        }
    }
    if reserved.iter().any(|byte| *byte != 0) {
        return Err(SnpRefusal::Malformed);
    }
    Ok(out)
}

/// Reads from front to back.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnpRefusal> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(SnpRefusal::Malformed)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, SnpRefusal> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, SnpRefusal> {
        self.take().map(u64::from_le_bytes)
    }

    fn zeros<const N: usize>(&mut self) -> Result<(), SnpRefusal> {
        let reserved = self.take::<N>()?;
        (reserved == [0; N]).then_some(()).ok_or(SnpRefusal::Malformed)
    }
}
