//! What a relying party accepts of SEV-SNP, beyond what the whole policy says of processors.
//!
//! ```yaml
//! snp:
//!   maxVmpl: 0
//!   vlekProviders: ["CN=cc-us-east-2.amazonaws.com"]
//!   platforms: ["<128 hex digits>"]
//!   maxCrlAgeSeconds: 604800
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::policy::{PlatformId, PolicyError};

/// What is accepted of a report of SEV-SNP. See the module for an example.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SnpPolicy {
    /// Least privileged level of the guest that may ask for a report.
    pub max_vmpl: MaxVmpl,
    /// Cloud providers, as AMD's certificates name them, whose key (VLEK) may sign in place of the chip's. None listed: none
    /// accepted.
    pub vlek_providers: BTreeSet<String>,
    /// Inventory of processors; not looked at while empty. A report that names no chip is on none.
    pub platforms: BTreeSet<PlatformId>,
    /// Greatest age in seconds of AMD's list of revoked certificates, which then has to be there. Without this, a list that is
    /// there still counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_crl_age_seconds: Option<u64>,
}

/// Privilege level of a guest: 0, the most privileged, to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct MaxVmpl(u32);

impl MaxVmpl {
    /// Least privileged level that there is.
    pub(super) const LAST: Self = Self(3);

    /// The number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for MaxVmpl {
    type Error = PolicyError;

    fn try_from(value: u64) -> Result<Self, PolicyError> {
        u32::try_from(value)
            .ok()
            .filter(|level| *level <= Self::LAST.0)
            .map(Self)
            .ok_or(PolicyError::OutOfBounds("snp.maxVmpl is 0 to 3"))
    }
}

impl From<MaxVmpl> for u64 {
    fn from(level: MaxVmpl) -> Self {
        Self::from(level.0)
    }
}
