//! What a relying party accepts: its own configuration, never anything that it was sent.
//!
//! An empty policy accepts nothing, and every list that is left out stays empty.
//!
//! ```yaml
//! tees: [snp]
//! allowedGenerations: [genoa]
//! minTcb:
//!   genoa: {bootloader: 10, tee: 0, snp: 25, microcode: 84}
//! measurements: ["<96 hex digits>"]
//! hostData: ["<64 hex digits>"]
//! workloads:
//!   engineImages: ["<64 hex digits>"]
//!   models: {smollm2: "<64 hex digits>"}
//!   forbiddenArguments: ["--slot-save-path"]
//!   switchIsolation: restart
//!   digests: ["<64 hex digits>"]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canonical_json;
use crate::fixed_bytes;
use crate::identity::sha256;
use crate::ids::{ModelDigest, PolicyHash, Sha256Digest, WorkloadDigest};
use crate::nvidia::NvidiaPolicy;
use crate::snp::SnpPolicy;
use crate::tdx::TdxPolicy;
use crate::tee::Tee;
use crate::workload::{EngineConfinement, SwitchIsolation, Workload};

/// Longest policy in bytes of YAML.
pub const MAX_POLICY_LEN: usize = 256 * 1024;
/// Longest life of an attestation result in seconds.
pub const MAX_RESULT_AGE: u64 = 24 * 3600;
/// Life of an attestation result in seconds when the policy names none.
pub const DEFAULT_RESULT_AGE: u64 = 3600;
/// Oldest version of SEV-SNP's report that is taken when the policy names none: version 2 does not say which processor it is of.
pub const DEFAULT_REPORT_VERSION: u32 = 3;

fixed_bytes!(
    /// SHA-384 that a TEE computed over what it was started with. The simulated TEE's is that of the enclave's program.
    Measurement,
    48
);
fixed_bytes!(
    /// SHA-384 of a key that signed a guest's identity block.
    KeyDigest,
    48
);
fixed_bytes!(
    /// Identity of one processor: the `CHIP_ID` of SEV-SNP.
    PlatformId,
    64
);

/// Generation of AMD EPYC processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Zen 3.
    Milan,
    /// Zen 4: Genoa, Bergamo and Siena.
    Genoa,
    /// Zen 5.
    Turin,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        })
    }
}

/// Security versions of the parts of a processor's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcbVersion {
    /// FMC: from Turin on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode of the cores.
    pub microcode: u8,
}

impl TcbVersion {
    /// True if no part is older than in `floor`, and both have the same parts.
    #[must_use]
    pub fn reaches(&self, floor: &Self) -> bool {
        let fmc = match (self.fmc, floor.fmc) {
            (None, None) => true,
            (Some(have), Some(least)) => have >= least,
            _ => false,
        };
        fmc && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

/// What a relying party accepts. See the module for an example.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AppraisalPolicy {
    /// Kinds of TEE. `simulated` also needs [`Danger::simulated_tee`].
    pub tees: BTreeSet<Tee>,
    /// Generations of AMD processors. The simulated TEE plays a Genoa.
    pub allowed_generations: BTreeSet<Generation>,
    /// Least firmware of each allowed generation; a generation without a floor is refused.
    pub min_tcb: BTreeMap<Generation, TcbVersion>,
    /// Oldest version of SEV-SNP's report: 2 to 5.
    pub min_report_version: ReportVersion,
    /// Measurements of the guest. None listed: none accepted.
    pub measurements: BTreeSet<Measurement>,
    /// Digests of the init data (`HOST_DATA`). None listed: none accepted.
    pub host_data: BTreeSet<Sha256Digest>,
    /// Keys that signed the guest's identity block; not looked at while empty.
    pub id_key_digests: BTreeSet<KeyDigest>,
    /// Keys that certified those; not looked at while empty.
    pub author_key_digests: BTreeSet<KeyDigest>,
    /// Processors that are refused whatever they show.
    pub denied_platforms: BTreeSet<PlatformId>,
    /// What is accepted of Intel TDX.
    pub tdx: TdxPolicy,
    /// What else is accepted of SEV-SNP.
    pub snp: SnpPolicy,
    /// NVIDIA's GPUs and NVSwitches.
    pub nvidia: NvidiaPolicy,
    /// What may run in the TEE.
    pub workloads: WorkloadPolicy,
    /// Life of a result in seconds: 1 to [`MAX_RESULT_AGE`].
    pub max_age_seconds: MaxAge,
    /// On how many processors the candidates of one request must be at least; kept by the client that draws them.
    pub min_distinct_platforms: DistinctPlatforms,
    /// Weakenings.
    pub danger: Danger,
}

/// What may run in the TEE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadPolicy {
    /// SHA-256 of engine images. None listed: none accepted.
    pub engine_images: BTreeSet<Sha256Digest>,
    /// Served model names and the one digest of each. None listed: none accepted.
    pub models: BTreeMap<String, ModelDigest>,
    /// Names of arguments (`--name`, also refused as `--name=value` and with `_` for `-`) and of environment variables.
    pub forbidden_arguments: BTreeSet<String>,
    /// Weakest isolation at a switch of tenants; `restart` when left out.
    pub switch_isolation: SwitchIsolation,
    /// Digests of whole workloads, as `cloister-enclave measure` prints them: with this list a workload that is not on it
    /// is refused, so that nothing of it can change, no argument, variable, program or version. Without it, arguments and
    /// variables are held by [`Self::forbidden_arguments`] and by the enclave's own list of harmless ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digests: Option<BTreeSet<WorkloadDigest>>,
}

impl Default for WorkloadPolicy {
    fn default() -> Self {
        Self {
            engine_images: BTreeSet::new(),
            models: BTreeMap::new(),
            forbidden_arguments: BTreeSet::new(),
            switch_isolation: SwitchIsolation::Restart,
            digests: None,
        }
    }
}

/// Weakenings: each one gives up what the rest of the policy is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Danger {
    /// SHA-256 of the DER of the one root certificate whose SIMULATED TEE is accepted. Whoever reads the simulated key, and
    /// that is whoever administers its machine, reads every prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated_tee: Option<Sha256Digest>,
    /// Accept processors whose firmware did not report that no two addresses of memory are one and the same (BadRAM). Firmware
    /// of version 2 reports never says it.
    pub skip_alias_check: bool,
    /// Look at evidence that comes without the identity of an enclave, other people's for example. Nothing then shows that its
    /// CPU and its devices are of one machine, or whose machine that is.
    pub unbound_evidence: bool,
    /// Accept enclaves whose engine is not confined: whoever takes over the engine, by a prompt for example, may read the
    /// keys and prompts of every tenant.
    pub weak_confinement: bool,
}

/// A number of the policy with a default and bounds; out of bounds it does not parse.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $int:ty, $default:expr, $range:expr, $text:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name($int);

        impl $name {
            /// The number.
            #[must_use]
            pub const fn value(self) -> $int {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl TryFrom<u64> for $name {
            type Error = PolicyError;

            fn try_from(value: u64) -> Result<Self, PolicyError> {
                <$int>::try_from(value)
                    .ok()
                    .filter(|value| ($range).contains(value))
                    .map(Self)
                    .ok_or(PolicyError::OutOfBounds($text))
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> Self {
                Self::from(value.0)
            }
        }
    };
}

bounded!(
    /// Life of an attestation result in seconds: 1 to [`MAX_RESULT_AGE`].
    MaxAge,
    u64,
    DEFAULT_RESULT_AGE,
    1..=MAX_RESULT_AGE,
    "maxAgeSeconds is 1 to 86400"
);
bounded!(
    /// Oldest version of SEV-SNP's report that is accepted: 2 to 5.
    ReportVersion,
    u32,
    DEFAULT_REPORT_VERSION,
    2..=5,
    "minReportVersion is 2 to 5"
);
bounded!(
    /// Number of processors: 1 to 4, the most candidates of one request.
    DistinctPlatforms,
    u8,
    1,
    1..=4,
    "minDistinctPlatforms is 1 to 4"
);

/// Text that is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// More than [`MAX_POLICY_LEN`] bytes.
    #[error("policy is longer than {MAX_POLICY_LEN} bytes")]
    TooLong,
    /// Not YAML of a policy: an unknown key, a wrong type, a digest of the wrong length, a number out of bounds.
    #[error("policy does not parse: {0}")]
    Yaml(#[from] serde_norway::Error),
    /// A number that is out of its bounds.
    #[error("{0}")]
    OutOfBounds(&'static str),
}

/// Why a workload is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadRefusal {
    /// The engine's image is not listed.
    #[error("engine image {0} is not among the policy's workloads.engineImages")]
    EngineImage(Sha256Digest),
    /// The served name is not listed.
    #[error("model name {0:?} is not among the policy's workloads.models")]
    ModelName(String),
    /// The name is listed with another digest.
    #[error("model {name:?} has digest {found}, and the policy's workloads.models names {expected}")]
    Model {
        /// Served name.
        name: String,
        /// Digest in the evidence.
        found: ModelDigest,
        /// Digest in the policy.
        expected: ModelDigest,
    },
    /// An argument or environment variable of the engine is forbidden.
    #[error("the engine runs with {0:?}, which the policy's workloads.forbiddenArguments forbids")]
    ForbiddenArgument(String),
    /// The workload is not one of those that the policy pins.
    #[error(
        "workload {0} is not among the policy's workloads.digests: its arguments, variables, program or version differ"
    )]
    Digest(WorkloadDigest),
    /// The engine is not confined.
    #[error("the engine's confinement is weak, and the policy's danger.weakConfinement is not set")]
    WeakConfinement,
    /// The isolation at a switch is too weak.
    #[error("switch isolation is {found}, and the policy's workloads.switchIsolation asks for {least}")]
    SwitchIsolation {
        /// Isolation of the workload.
        found: SwitchIsolation,
        /// Weakest one that the policy takes.
        least: SwitchIsolation,
    },
}

impl AppraisalPolicy {
    /// Parses YAML (of which JSON is a part).
    ///
    /// # Errors
    /// [`PolicyError`] for oversized text, unknown keys, wrong types and numbers out of bounds.
    pub fn from_yaml(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_LEN {
            return Err(PolicyError::TooLong);
        }
        Ok(serde_norway::from_str(text)?)
    }

    /// YAML that [`Self::from_yaml`] reads back.
    ///
    /// # Errors
    /// [`PolicyError::Yaml`] if the writer fails.
    pub fn to_yaml(&self) -> Result<String, PolicyError> {
        Ok(serde_norway::to_string(self)?)
    }

    /// SHA-256 over `"cloister/v1 appraisal-policy"`, a zero byte, and the policy as JSON in the form of RFC 8785, with
    /// every default written out and lists of sets in ascending order. So neither order nor spelling changes it.
    #[must_use]
    pub fn canonical_hash(&self) -> PolicyHash {
        let canonical = canonical_json::of(self);
        let digest = sha256(&[b"cloister/v1 appraisal-policy\0", canonical.as_bytes()]);
        PolicyHash::from_bytes(*digest.as_bytes())
    }
}

impl WorkloadPolicy {
    /// Checks everything that the policy says of a workload, with its weakenings.
    ///
    /// # Errors
    /// [`WorkloadRefusal`] names the first thing that is not allowed.
    pub fn check(&self, workload: &Workload, danger: &Danger) -> Result<(), WorkloadRefusal> {
        if !self.engine_images.contains(&workload.engine_image) {
            return Err(WorkloadRefusal::EngineImage(workload.engine_image));
        }
        let name = &workload.served_model_name;
        match self.models.get(name) {
            None => return Err(WorkloadRefusal::ModelName(name.clone())),
            Some(expected) if *expected != workload.model => {
                return Err(WorkloadRefusal::Model {
                    name: name.clone(),
                    found: workload.model,
                    expected: *expected,
                });
            }
            Some(_) => {}
        }
        let variables = workload.engine_env.keys();
        if let Some(found) = workload.engine_args.iter().chain(variables).find(|a| self.forbids(a)) {
            return Err(WorkloadRefusal::ForbiddenArgument(found.clone()));
        }
        if workload.switch_isolation < self.switch_isolation {
            return Err(WorkloadRefusal::SwitchIsolation {
                found: workload.switch_isolation,
                least: self.switch_isolation,
            });
        }
        if workload.confinement < EngineConfinement::Full && !danger.weak_confinement {
            return Err(WorkloadRefusal::WeakConfinement);
        }
        // Last: the others say better what it is that differs.
        if let Some(digests) = &self.digests {
            let found = workload.digest();
            if !digests.contains(&found) {
                return Err(WorkloadRefusal::Digest(found));
            }
        }
        Ok(())
    }

    /// Both engines read `--a_b` as `--a-b`, so they are compared as the same.
    fn forbids(&self, argument: &str) -> bool {
        let name = |text: &str| text.split('=').next().unwrap_or_default().replace('_', "-");
        let found = name(argument);
        self.forbidden_arguments
            .iter()
            .any(|forbidden| name(forbidden) == found)
    }
}
