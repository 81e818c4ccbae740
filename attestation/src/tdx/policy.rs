//! What a relying party accepts of Intel TDX. Left out, it accepts nothing.
//!
//! ```yaml
//! mrtd: ["<96 hex digits>"]
//! rtmr0: ["<96 hex digits>"]     # and rtmr1, rtmr2, rtmr3
//! mrConfigId: ["<96 hex digits>"]
//! mrSeam: ["<96 hex digits>"]
//! xfam: [{value: e702060000000000}]
//! tdAttributes: [{value: "0000001000000000"}]
//! allowedFmspcs: [b0c06f000000]
//! minTcbEvaluationDataNumber: 17
//! minTeeTcbSvn: "06010300000000000000000000000000"
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fixed_bytes;
use crate::policy::Measurement;

fixed_bytes!(
    /// Eight bytes of a quote that are a set of bits, as they stand there: the first byte holds bits 0 to 7.
    BitSet,
    8
);
fixed_bytes!(
    /// Intel's name for a family of platforms with the same firmware (`FMSPC`).
    Fmspc,
    6
);
fixed_bytes!(
    /// Identity that Intel's certificates give one platform (`PPID`).
    Ppid,
    16
);
fixed_bytes!(
    /// Security versions of the TDX module and of what loads it (`TEE_TCB_SVN`): 16 numbers.
    TeeTcbSvn,
    16
);

/// How Intel rates the firmware of a platform. It has no `Revoked`: no policy can allow that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// The newest.
    UpToDate,
    /// The newest, and the software in it has to work around a weakness.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The newest, and the firmware's settings may leave a weakness.
    ConfigurationNeeded,
    /// Both of the above.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Older than the newest.
    OutOfDate,
    /// Older than the newest, and the settings may leave a weakness.
    OutOfDateConfigurationNeeded,
    /// The TDX module was updated below a running guest: it was launched on an older one.
    #[serde(rename = "TDRelaunchAdvised")]
    TdRelaunchAdvised,
    /// The same, and the settings may leave a weakness.
    #[serde(rename = "TDRelaunchAdvisedConfigurationNeeded")]
    TdRelaunchAdvisedConfigurationNeeded,
}

/// Bits that must have a value: `found & mask == value & mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixedBits {
    /// The bits.
    pub value: BitSet,
    /// Which of them count; all when left out.
    #[serde(default = "all_bits")]
    pub mask: BitSet,
}

/// What is accepted of Intel TDX. See the module for an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TdxPolicy {
    /// Measurements of the guest's first memory (`MRTD`). None listed: none accepted.
    pub mrtd: BTreeSet<Measurement>,
    /// Runtime measurement 0, the virtual firmware's settings. None listed: none accepted.
    pub rtmr0: BTreeSet<Measurement>,
    /// Runtime measurement 1, the boot loader and kernel. None listed: none accepted.
    pub rtmr1: BTreeSet<Measurement>,
    /// Runtime measurement 2, the kernel's arguments and initial disk. None listed: none accepted.
    pub rtmr2: BTreeSet<Measurement>,
    /// Runtime measurement 3, the guest's own. None listed: none accepted.
    pub rtmr3: BTreeSet<Measurement>,
    /// Digests of the init data (`MRCONFIGID`). None listed: none accepted.
    pub mr_config_id: BTreeSet<Measurement>,
    /// Who launched the guest (`MROWNER`). None listed: zeros alone.
    pub mr_owner: BTreeSet<Measurement>,
    /// What its launcher configured (`MROWNERCONFIG`). None listed: zeros alone.
    pub mr_owner_config: BTreeSet<Measurement>,
    /// Guests that serve this one, such as one that migrates it (`MRSERVICETD`). None listed: zeros alone, so no such guest.
    pub mr_service_td: BTreeSet<Measurement>,
    /// TDX modules (`MRSEAM`). None listed: none accepted.
    pub mr_seam: BTreeSet<Measurement>,
    /// Signers of TDX modules; not looked at while empty, for Intel's signed TCB info names the one.
    pub mr_signer_seam: BTreeSet<Measurement>,
    /// What the guest may use of the processor (`XFAM`). None listed: none accepted.
    pub xfam: BTreeSet<FixedBits>,
    /// Attributes of the guest, beside those that are always refused. None listed: none accepted.
    pub td_attributes: BTreeSet<FixedBits>,
    /// How Intel may rate the platform's firmware: `UpToDate` alone when left out.
    pub tcb_statuses: BTreeSet<TcbStatus>,
    /// Advisories that the platform's firmware may be subject to. One that is not listed is refused.
    pub allowed_advisories: BTreeSet<String>,
    /// Least number of the TCB evaluation in Intel's collateral, lest an older one vouch for older firmware. None named:
    /// none accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tcb_evaluation_data_number: Option<u32>,
    /// Least security versions of the TDX module, number by number. None named: none accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tee_tcb_svn: Option<TeeTcbSvn>,
    /// Oldest collateral in seconds since Intel issued it; not looked at when left out, for it has an end of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_collateral_age_seconds: Option<u64>,
    /// Families of platforms. None listed: none accepted.
    pub allowed_fmspcs: BTreeSet<Fmspc>,
    /// Families of platforms that are refused whatever they show.
    pub denied_fmspcs: BTreeSet<Fmspc>,
    /// With this list, a platform that is not on it is refused: an inventory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_ppids: Option<BTreeSet<Ppid>>,
    /// Platforms that are refused whatever they show.
    pub denied_ppids: BTreeSet<Ppid>,
    /// Accept platforms that processors can be added to.
    pub allow_dynamic_platform: bool,
    /// Accept platforms whose root keys Intel's registration service keeps.
    pub allow_cached_keys: bool,
    /// Accept platforms with two threads per core.
    pub allow_smt: bool,
}

fn all_bits() -> BitSet {
    BitSet::from_bytes([0xff; BitSet::LEN])
}

// === impl BitSet ===

impl BitSet {
    /// As a number: bit 0 is the lowest of the first byte.
    #[must_use]
    pub const fn bits(self) -> u64 {
        u64::from_le_bytes(*self.as_bytes())
    }
}

// === impl FixedBits ===

impl FixedBits {
    /// True if `found` has these bits.
    #[must_use]
    pub const fn matches(&self, found: BitSet) -> bool {
        (found.bits() ^ self.value.bits()) & self.mask.bits() == 0
    }
}

// === impl TeeTcbSvn ===

impl TeeTcbSvn {
    /// True if no number is lower than in `floor`.
    #[must_use]
    pub fn reaches(&self, floor: &Self) -> bool {
        let pairs = self.as_bytes().iter().zip(floor.as_bytes());
        pairs.into_iter().all(|(have, least)| have >= least)
    }
}

// === impl TcbStatus ===

impl TcbStatus {
    /// Intel's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl TdxPolicy ===

impl Default for TdxPolicy {
    fn default() -> Self {
        Self {
            mrtd: BTreeSet::new(),
            rtmr0: BTreeSet::new(),
            rtmr1: BTreeSet::new(),
            rtmr2: BTreeSet::new(),
            rtmr3: BTreeSet::new(),
            mr_config_id: BTreeSet::new(),
            mr_owner: BTreeSet::new(),
            mr_owner_config: BTreeSet::new(),
            mr_service_td: BTreeSet::new(),
            mr_seam: BTreeSet::new(),
            mr_signer_seam: BTreeSet::new(),
            xfam: BTreeSet::new(),
            td_attributes: BTreeSet::new(),
            tcb_statuses: BTreeSet::from([TcbStatus::UpToDate]),
            allowed_advisories: BTreeSet::new(),
            min_tcb_evaluation_data_number: None,
            min_tee_tcb_svn: None,
            max_collateral_age_seconds: None,
            allowed_fmspcs: BTreeSet::new(),
            denied_fmspcs: BTreeSet::new(),
            allowed_ppids: None,
            denied_ppids: BTreeSet::new(),
            allow_dynamic_platform: false,
            allow_cached_keys: false,
            allow_smt: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_can_name_revoked() {
        assert!(serde_norway::from_str::<TdxPolicy>("tcbStatuses: [Revoked]").is_err());
        let named: TdxPolicy = serde_norway::from_str("tcbStatuses: [SWHardeningNeeded, TDRelaunchAdvised]").unwrap();
        assert_eq!(
            named.tcb_statuses,
            BTreeSet::from([TcbStatus::SwHardeningNeeded, TcbStatus::TdRelaunchAdvised])
        );
        for status in &named.tcb_statuses {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn unknown_keys_and_wrong_lengths_do_not_parse() {
        for text in ["mrtdd: []", "mrtd: [\"00\"]", "xfam: [{value: \"00\"}]", "allowSmt: 1"] {
            assert!(serde_norway::from_str::<TdxPolicy>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bits_outside_of_the_mask_do_not_count() {
        let rule: FixedBits = serde_norway::from_str("{value: e702060000000000, mask: ff00000000000000}").unwrap();
        assert!(rule.matches(BitSet::from_bytes([0xe7, 0xff, 0, 0, 0, 0, 0, 1])));
        assert!(!rule.matches(BitSet::from_bytes([0xe6, 2, 6, 0, 0, 0, 0, 0])));
        let all: FixedBits = serde_norway::from_str("{value: e702060000000000}").unwrap();
        assert!(all.matches(BitSet::from_bytes([0xe7, 2, 6, 0, 0, 0, 0, 0])));
        assert!(!all.matches(BitSet::from_bytes([0xe7, 2, 6, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn every_number_of_the_module_counts() {
        let floor = TeeTcbSvn::from_bytes([5; 16]);
        assert!(floor.reaches(&floor));
        for at in 0..16 {
            let mut lower = [9; 16];
            lower[at] = 4;
            assert!(!TeeTcbSvn::from_bytes(lower).reaches(&floor), "{at}");
        }
    }
}
