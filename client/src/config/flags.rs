//! The same keys as flags and environment variables.

use cloister_attestation::ModelDigest;
use cloister_session::TenantId;
use std::path::PathBuf;
use std::str::FromStr;

/// Flags of `cloister proxy` and `cloister doctor`. A flag wins over its variable, and both win over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ProxyFlags {
    /// Configuration file (YAML); paths in it are relative to it
    #[arg(long, env = "CLOISTER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Loopback address to listen on [default: 127.0.0.1:8080]
    #[arg(long, env = "CLOISTER_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// The scheduler, https://host:port
    #[arg(long, env = "CLOISTER_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// PEM of the authorities that may have issued the scheduler's certificate
    #[arg(long, env = "CLOISTER_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Cluster that the credential is for
    #[arg(long, env = "CLOISTER_CLUSTER_ID", value_name = "ID")]
    pub cluster_id: Option<String>,
    /// Member credential, from `cloister tenant issue`; read again when it changes
    #[arg(long, env = "CLOISTER_CREDENTIAL", value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// Private key of the member
    #[arg(long, env = "CLOISTER_MEMBER_KEY", value_name = "FILE")]
    pub member_key: Option<PathBuf>,
    /// Bearer token for the scheduler, from `cloister tenant token`
    #[arg(long, env = "CLOISTER_OUTER_TOKEN", value_name = "FILE")]
    pub outer_token: Option<PathBuf>,
    /// Appraisal policy (YAML): which enclaves to trust
    #[arg(long, env = "CLOISTER_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Tenant id whose root must have signed the policy, which is then a signed file and no YAML
    #[arg(long, env = "CLOISTER_POLICY_ROOT", value_name = "HEX")]
    pub policy_root: Option<TenantId>,
    /// Model name and the digests it may mean; the flag may be repeated, the variable separates models by commas
    #[arg(
        long,
        env = "CLOISTER_MODELS",
        value_name = "NAME=DIGEST[+DIGEST]",
        value_delimiter = ','
    )]
    pub models: Vec<ModelArg>,
    /// File of API keys that clients must present, one a line
    #[arg(long, env = "CLOISTER_API_KEYS", value_name = "FILE")]
    pub api_keys: Option<PathBuf>,
    /// Directory in which to save the receipt of each answer
    #[arg(long, env = "CLOISTER_RECEIPTS", value_name = "DIR")]
    pub receipts: Option<PathBuf>,
    /// Directory of collateral and RIMs, from `cloister collateral fetch`; read again when it changes
    #[arg(long, env = "CLOISTER_COLLATERAL", value_name = "DIR")]
    pub collateral: Option<PathBuf>,
    /// Enclaves that one request is sealed for, 1 to 4 [default: 2]
    #[arg(long, env = "CLOISTER_CANDIDATES", value_name = "N")]
    pub candidates: Option<usize>,
    /// Calls in flight at most [default: 128]
    #[arg(long, env = "CLOISTER_MAX_IN_FLIGHT", value_name = "N")]
    pub max_in_flight: Option<usize>,
    /// Time for a connection and for each key or evidence request [default: 5]
    #[arg(
        long = "timeouts-connect-seconds",
        env = "CLOISTER_TIMEOUTS_CONNECT_SECONDS",
        value_name = "S"
    )]
    pub connect_seconds: Option<u64>,
    /// Time that a request may wait for an enclave, at most 120 [default: 120]
    #[arg(
        long = "timeouts-queue-seconds",
        env = "CLOISTER_TIMEOUTS_QUEUE_SECONDS",
        value_name = "S"
    )]
    pub queue_seconds: Option<u64>,
    /// Time from an enclave's turn to the first byte of its answer, above the scheduler's own limit [default: 345]
    #[arg(
        long = "timeouts-first-byte-seconds",
        env = "CLOISTER_TIMEOUTS_FIRST_BYTE_SECONDS",
        value_name = "S"
    )]
    pub first_byte_seconds: Option<u64>,
    /// Time without a byte of an answer after which it is given up [default: 120]
    #[arg(
        long = "timeouts-idle-seconds",
        env = "CLOISTER_TIMEOUTS_IDLE_SECONDS",
        value_name = "S"
    )]
    pub idle_seconds: Option<u64>,
    /// Attempts at one call, 1 to 16 [default: 4]
    #[arg(long = "retries-attempts", env = "CLOISTER_RETRIES_ATTEMPTS", value_name = "N")]
    pub attempts: Option<u32>,
    /// Bound of the wait before the second attempt; it doubles with each [default: 100]
    #[arg(
        long = "retries-base-millis",
        env = "CLOISTER_RETRIES_BASE_MILLIS",
        value_name = "MS"
    )]
    pub base_millis: Option<u64>,
    /// Bound of every wait between attempts [default: 5000]
    #[arg(long = "retries-max-millis", env = "CLOISTER_RETRIES_MAX_MILLIS", value_name = "MS")]
    pub max_millis: Option<u64>,
    /// Whether to try again, too, what may have run, after a timeout or a broken answer [default: false]
    #[arg(
        long = "retries-after-execution",
        env = "CLOISTER_RETRIES_AFTER_EXECUTION",
        value_name = "BOOL"
    )]
    pub after_execution: Option<bool>,
}

/// `NAME=DIGEST[+DIGEST]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelArg {
    /// The name that clients use.
    pub name: String,
    /// What it may mean.
    pub digests: Vec<ModelDigest>,
}

/// Text that is not `NAME=DIGEST[+DIGEST]`.
#[derive(Debug, thiserror::Error)]
#[error("expected NAME=DIGEST with a digest of 64 hex digits, or several joined by +")]
pub struct ModelArgError;

impl FromStr for ModelArg {
    type Err = ModelArgError;

    fn from_str(text: &str) -> Result<Self, ModelArgError> {
        let (name, digests) = text.rsplit_once('=').ok_or(ModelArgError)?;
        let digests = digests
            .split('+')
            .map(|digest| digest.parse().map_err(|_| ModelArgError))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            digests,
        })
    }
}
