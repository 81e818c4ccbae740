//! Bits of a guest's attributes (`ATTRIBUTES`) and of what it may use of the processor (`XFAM`): Intel TDX Module ABI
//! Specification 348551, tables "TD_ATTRIBUTES" and "XFAM".

use super::policy::BitSet;
use super::refusal::{TdxRefusal, UntrustedBit};

const DEBUG: u64 = 1;
/// `HGS_PLUS_PROF`, `PERF_PROF`, `PMT_PROF`.
const PROFILING: u64 = 0b111 << 4;
const ICSSD: u64 = 1 << 16;
const SERVTD_EXT: u64 = 1 << 17;
const LASS: u64 = 1 << 27;
const SEPT_VE_DISABLE: u64 = 1 << 28;
const MIGRATABLE: u64 = 1 << 29;
const PKS: u64 = 1 << 30;
const KEY_LOCKER: u64 = 1 << 31;
const TPA: u64 = 1 << 62;
const PERFMON: u64 = 1 << 63;
const KNOWN: u64 =
    DEBUG | PROFILING | ICSSD | SERVTD_EXT | LASS | SEPT_VE_DISABLE | MIGRATABLE | PKS | KEY_LOCKER | TPA | PERFMON;

/// x87 and SSE, which every guest has.
const XFAM_ONES: u64 = 0b11;
/// All that a TDX module lets a guest have: x87, SSE, AVX, MPX, AVX-512, processor trace, PKRU, PASID, control-flow
/// enforcement, user interrupts, last branch records, AMX, APX.
const XFAM_KNOWN: u64 = 0x000e_dbe7;

/// Attributes of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdAttributes(u64);

impl TdAttributes {
    /// Reads all 64 bits.
    #[must_use]
    pub const fn new(bits: BitSet) -> Self {
        Self(bits.bits())
    }

    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// The host can read and change all of the guest.
    #[must_use]
    pub const fn debug(self) -> bool {
        self.has(DEBUG)
    }

    /// The host can sample what the guest runs.
    #[must_use]
    pub const fn profiling(self) -> bool {
        self.has(PROFILING)
    }

    /// Another guest can move this one to another platform.
    #[must_use]
    pub const fn migratable(self) -> bool {
        self.has(MIGRATABLE)
    }

    /// Other guests serve this one, and the report holds a digest of them.
    #[must_use]
    pub const fn service_td(self) -> bool {
        self.has(SERVTD_EXT)
    }

    /// The host cannot make the guest's own memory fault.
    #[must_use]
    pub const fn sept_ve_disable(self) -> bool {
        self.has(SEPT_VE_DISABLE)
    }

    /// The guest may use supervisor protection keys.
    #[must_use]
    pub const fn protection_keys(self) -> bool {
        self.has(PKS)
    }

    /// The guest may use Key Locker.
    #[must_use]
    pub const fn key_locker(self) -> bool {
        self.has(KEY_LOCKER)
    }

    /// The guest shares performance counters, which show the host what it does.
    #[must_use]
    pub const fn perfmon(self) -> bool {
        self.has(PERFMON)
    }

    /// Every bit that gives the guest away, or that this verifier does not know, each with whether it is as it should be.
    pub(crate) fn checks(self) -> [(&'static str, Result<(), TdxRefusal>); 6] {
        let unless = |bad: bool, bit| if bad { Err(TdxRefusal::Attribute(bit)) } else { Ok(()) };
        [
            (
                "the guest cannot be debugged",
                unless(self.debug(), UntrustedBit::Debug),
            ),
            (
                "the guest is not profiled",
                unless(self.profiling(), UntrustedBit::Profiling),
            ),
            (
                "the guest shares no performance counters",
                unless(self.perfmon(), UntrustedBit::Perfmon),
            ),
            (
                "the guest cannot be migrated",
                unless(self.migratable(), UntrustedBit::Migratable),
            ),
            (
                "the host cannot inject faults (SEPT_VE_DISABLE)",
                unless(!self.sept_ve_disable(), UntrustedBit::SeptVeDisable),
            ),
            (
                "no reserved attribute is set",
                unless(self.0 & !KNOWN != 0, UntrustedBit::Reserved),
            ),
        ]
    }

    /// Those that no quote may have, not even one that is only looked at: `dcap-qvl` refuses them, too.
    pub(crate) fn verify(self) -> Result<(), TdxRefusal> {
        let bit = if self.migratable() {
            UntrustedBit::Migratable
        } else if !self.sept_ve_disable() {
            UntrustedBit::SeptVeDisable
        } else if self.0 & !KNOWN != 0 {
            UntrustedBit::Reserved
        } else {
            return Ok(());
        };
        Err(TdxRefusal::Attribute(bit))
    }
}

/// Bits that every guest has, and none that no TDX module knows.
pub(crate) fn check_xfam(found: BitSet) -> Result<(), TdxRefusal> {
    let bits = found.bits();
    if bits & XFAM_ONES == XFAM_ONES && bits & !XFAM_KNOWN == 0 {
        Ok(())
    } else {
        Err(TdxRefusal::XfamReserved(found))
    }
}
