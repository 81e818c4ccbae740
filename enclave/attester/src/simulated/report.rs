//! A report of SEV-SNP, written field by field at the offsets of AMD's table ATTESTATION_REPORT (SEV-SNP Firmware ABI, 56860).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use cloister_attestation::danger::{SIMULATED_HOST_DATA, SIMULATED_TCB};
use cloister_attestation::snp::{REPORT_LEN, SIGNED_LEN};

use crate::AttesterError;

/// Version of the report's format.
const VERSION: u32 = 5;
/// Guest policy: SMT allowed (16), the bit that is always one (17); debugging (19) and migration (18) are not allowed.
const POLICY: u64 = 1 << 16 | 1 << 17;
/// Platform: SMT on (0), memory checked for aliases (5).
const PLATFORM: u64 = 1 | 1 << 5;
/// ECDSA P-384 with SHA-384.
const SIGNATURE_ALGORITHM: u32 = 1;
/// Family, model and stepping of a Genoa.
const CPUID: [u8; 3] = [0x19, 0x11, 0x01];
/// Stands in the fields that a guest's owner may name his image with.
const NAME: &[u8; 16] = b"SIMULATED\0\0\0\0\0\0\0";
/// Build, minor and major of a firmware's version, and a reserved byte.
const FIRMWARE: [u8; 4] = [0, 55, 1, 0];

/// What differs between two reports.
pub(super) struct ReportFields<'a> {
    pub(super) report_data: &'a [u8; 64],
    pub(super) measurement: &'a [u8; 48],
    pub(super) report_id: &'a [u8; 32],
    pub(super) chip_id: &'a [u8; 64],
}

impl ReportFields<'_> {
    /// The report with zeros for its signature.
    pub(super) fn unsigned(&self) -> [u8; REPORT_LEN] {
        let tcb = [
            SIMULATED_TCB.bootloader,
            SIMULATED_TCB.tee,
            0,
            0,
            0,
            0,
            SIMULATED_TCB.snp,
            SIMULATED_TCB.microcode,
        ];
        let mut report = [0; REPORT_LEN];
        put(&mut report, 0x000, &VERSION.to_le_bytes());
        put(&mut report, 0x008, &POLICY.to_le_bytes());
        put(&mut report, 0x010, NAME);
        put(&mut report, 0x020, NAME);
        put(&mut report, 0x034, &SIGNATURE_ALGORITHM.to_le_bytes());
        put(&mut report, 0x038, &tcb);
        put(&mut report, 0x040, &PLATFORM.to_le_bytes());
        put(&mut report, 0x050, self.report_data);
        put(&mut report, 0x090, self.measurement);
        put(&mut report, 0x0c0, SIMULATED_HOST_DATA.as_bytes());
        put(&mut report, 0x140, self.report_id);
        // No migration agent.
        put(&mut report, 0x160, &[0xff; 32]);
        put(&mut report, 0x180, &tcb);
        put(&mut report, 0x188, &CPUID);
        put(&mut report, 0x1a0, self.chip_id);
        put(&mut report, 0x1e0, &tcb);
        put(&mut report, 0x1e8, &FIRMWARE);
        put(&mut report, 0x1ec, &FIRMWARE);
        put(&mut report, 0x1f0, &tcb);
        report
    }
}

/// Signs the first 0x2a0 bytes of `report` and puts the signature behind them: r and s, little-endian, 72 bytes each.
pub(super) fn sign(mut report: [u8; REPORT_LEN], key: &EcdsaKeyPair) -> Result<[u8; REPORT_LEN], AttesterError> {
    let refused = AttesterError::Crypto("a report's signature");
    let (signed, _) = report.split_at(SIGNED_LEN);
    let signature = key.sign(&SystemRandom::new(), signed);
    let Ok(signature) = signature.as_ref().map(AsRef::as_ref) else {
        return Err(refused);
    };
    let Some((r, s)) = <[u8]>::split_at_checked(signature, 48) else {
        return Err(refused);
    };
    for (at, scalar) in [(SIGNED_LEN, r), (SIGNED_LEN + 72, s)] {
        let little: Vec<u8> = scalar.iter().rev().copied().collect();
        put(&mut report, at, &little);
    }
    Ok(report)
}

/// Only called with the offsets above, all of which are inside.
fn put(report: &mut [u8; REPORT_LEN], at: usize, bytes: &[u8]) {
    for (to, from) in report.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
