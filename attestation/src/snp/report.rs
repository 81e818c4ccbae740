//! The report: parsed by `sev`, its unsigned and unchecked parts by hand.

use sev::firmware::guest::AttestationReport;
use sev::firmware::host::TcbVersion as SevTcb;
use sev::parser::ByteParser;
use sev::{CpuFamily, CpuModel};

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
/// `SIGNING_KEY` of a VCEK.
const SIGNED_BY_VCEK: u32 = 0;

/// A report whose form is right; nothing in it is proven.
pub(super) struct Report<'a> {
    pub(super) fields: AttestationReport,
    /// The bytes that are signed, as received.
    pub(super) signed: &'a [u8],
    /// r and s, each 48 bytes big-endian.
    pub(super) signature: [u8; 2 * P384_LEN],
    /// The guest's policy as received: `sev` sets bit 17 when it is asked for the number.
    pub(super) guest_policy: u64,
    /// From the CPUID fields; version 2 has none.
    pub(super) generation: Option<Generation>,
}

impl<'a> Report<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SnpRefusal> {
        if bytes.len() != REPORT_LEN {
            return Err(SnpRefusal::Length(bytes.len()));
        }
        let (signed, signature) = bytes.split_at_checked(SIGNED_LEN).ok_or(SnpRefusal::Malformed)?;
        let version = signed
            .first_chunk::<4>()
            .map(|version| u32::from_le_bytes(*version))
            .ok_or(SnpRefusal::Malformed)?;
        // `sev` reads every later version as if it were 5.
        if !(2..=5).contains(&version) {
            return Err(SnpRefusal::Version(version));
        }
        // `sev` reads the layout of TCB versions from this field, and answers with an error that does not say so.
        if field::<64>(signed, 0x1a0)? == [0; 64] {
            return Err(SnpRefusal::MaskedChipId);
        }
        let fields = AttestationReport::from_bytes(bytes).map_err(|_| SnpRefusal::Malformed)?;
        check_signer(&fields, &field::<4>(signed, 0x48)?)?;
        Ok(Self {
            guest_policy: u64::from_le_bytes(field::<8>(signed, 0x08)?),
            generation: generation(&fields)?,
            fields,
            signed,
            signature: fixed_signature(signature)?,
        })
    }
}

/// Whether the report says that the chip's own key signed it.
fn check_signer(fields: &AttestationReport, key_info: &[u8; 4]) -> Result<(), SnpRefusal> {
    if fields.sig_algo != ECDSA_P384_SHA384 {
        return Err(SnpRefusal::SignatureAlgorithm(fields.sig_algo));
    }
    if fields.key_info.mask_chip_key() {
        return Err(SnpRefusal::MaskedChipKey);
    }
    if fields.key_info.signing_key() != SIGNED_BY_VCEK {
        return Err(SnpRefusal::SigningKey(fields.key_info.signing_key()));
    }
    // Bits 31:5 are reserved; `sev` does not look at them.
    if u32::from_le_bytes(*key_info) >> 5 != 0 {
        return Err(SnpRefusal::Malformed);
    }
    Ok(())
}

fn generation(fields: &AttestationReport) -> Result<Option<Generation>, SnpRefusal> {
    let (Some(family), Some(model)) = (fields.cpuid_fam_id, fields.cpuid_mod_id) else {
        return Ok(None);
    };
    let (family, model): (CpuFamily, CpuModel) = (family, model);
    match sev::Generation::identify_cpu(family, model) {
        Ok(sev::Generation::Milan) => Ok(Some(Generation::Milan)),
        Ok(sev::Generation::Genoa) => Ok(Some(Generation::Genoa)),
        Ok(sev::Generation::Turin) => Ok(Some(Generation::Turin)),
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

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], SnpRefusal> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(SnpRefusal::Malformed)
}

impl From<SevTcb> for TcbVersion {
    fn from(tcb: SevTcb) -> Self {
        Self {
            fmc: tcb.fmc,
            bootloader: tcb.bootloader,
            tee: tcb.tee,
            snp: tcb.snp,
            microcode: tcb.microcode,
        }
    }
}
