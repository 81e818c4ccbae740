//! Configuration of the local proxy: a file, over it environment variables, over them flags.
//!
//! The key `timeouts.queueSeconds` of the file is the flag `--timeouts-queue-seconds` and the variable
//! `CLOISTER_TIMEOUTS_QUEUE_SECONDS`, and so on for every key. Paths in the file are relative to the file.

mod file;
mod flags;

pub use flags::{ModelArg, ProxyFlags};

use crate::retry::RetryPolicy;
use cloister_attestation::ModelDigest;
use cloister_session::TenantId;
use file::ConfigFile;
use http::Uri;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Largest configuration file, bytes.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;
/// Most models of one proxy.
pub const MAX_MODELS: usize = 64;
/// Most candidates of one request: the wire format's limit of wraps.
pub const MAX_CANDIDATES: usize = cloister_session::limits::MAX_WRAPS;
/// Longest time that a request may wait for an enclave, seconds: the wire format's limit.
pub const MAX_QUEUE_SECONDS: u64 = cloister_session::limits::MAX_TTL as u64;

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// The configuration of a proxy, complete and within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Loopback address to listen on.
    pub listen: SocketAddr,
    /// `https://host:port` of the scheduler.
    pub endpoint: Uri,
    /// PEM of the authorities that may have issued the scheduler's certificate.
    pub ca: PathBuf,
    /// The cluster that credentials are for.
    pub cluster_id: String,
    /// The member credential.
    pub credential: PathBuf,
    /// The member's private key.
    pub member_key: PathBuf,
    /// The bearer token for the scheduler.
    pub outer_token: PathBuf,
    /// The appraisal policy.
    pub policy: PathBuf,
    /// Tenant whose root must have signed the policy: then the file is a signed one. Without it, the file is this machine's own.
    pub policy_root: Option<TenantId>,
    /// Names that clients may use, and the model digests that each may mean, in order of preference.
    pub models: BTreeMap<String, Vec<ModelDigest>>,
    /// Keys that clients must present.
    pub api_keys: Option<PathBuf>,
    /// Directory for receipts.
    pub receipts: Option<PathBuf>,
    /// Directory of collateral and RIMs.
    pub collateral: Option<PathBuf>,
    /// Enclaves that one request is sealed for.
    pub candidates: usize,
    /// Calls in flight at most.
    pub max_in_flight: usize,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Retries.
    pub retries: RetryPolicy,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection and for each key or evidence request.
    pub connect: Duration,
    /// For an enclave: the time to live that is sealed into a request, 1 to [`MAX_QUEUE_SECONDS`] seconds.
    pub queue: Duration,
    /// For the first bytes of an answer, after the queue: an answer that is not streamed comes when all of it is there. Enclaves give
    /// an answer up after 310 s and schedulers after 330 s, unless configured otherwise, and both say so.
    pub first_byte: Duration,
    /// For the next bytes of an answer. Without padding an enclave is silent while its engine is.
    pub idle: Duration,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    /// The file is not the YAML that it should be.
    #[error("{path}: {source}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: serde_norway::Error,
    },
    /// A key that has no default is not set.
    #[error("{key} is not set: set it in the file, as --{flag} or as {variable}")]
    Missing {
        /// Its name in the file.
        key: &'static str,
        /// Its name as a flag.
        flag: String,
        /// Its name in the environment.
        variable: String,
    },
    /// A key is out of its bounds.
    #[error("{key}: {reason}")]
    Invalid {
        /// Its name in the file.
        key: &'static str,
        /// What it should be.
        reason: String,
    },
}

impl ProxyConfig {
    /// Reads the file that the flags name, if any, and puts flags and environment variables over it.
    ///
    /// # Errors
    ///
    /// The first thing that is unreadable, unknown, missing or out of bounds.
    pub fn load(flags: &ProxyFlags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        Self::merge(flags, file)
    }

    fn merge(flags: &ProxyFlags, file: ConfigFile) -> Result<Self, ConfigError> {
        let flags = flags.clone();
        Ok(Self {
            listen: listen(flags.listen.or(file.listen))?,
            endpoint: endpoint(&required("endpoint", flags.endpoint.or(file.endpoint))?)?,
            ca: required("ca", flags.ca.or(file.ca))?,
            cluster_id: cluster_id(required("clusterId", flags.cluster_id.or(file.cluster_id))?)?,
            credential: required("credential", flags.credential.or(file.credential))?,
            member_key: required("memberKey", flags.member_key.or(file.member_key))?,
            outer_token: required("outerToken", flags.outer_token.or(file.outer_token))?,
            policy: required("policy", flags.policy.or(file.policy))?,
            policy_root: flags.policy_root.or(file.policy_root),
            models: models(flags.models, file.models)?,
            api_keys: flags.api_keys.or(file.api_keys),
            receipts: flags.receipts.or(file.receipts),
            collateral: flags.collateral.or(file.collateral),
            candidates: bounded("candidates", flags.candidates.or(file.candidates), 2, 1, MAX_CANDIDATES)?,
            max_in_flight: bounded("maxInFlight", flags.max_in_flight.or(file.max_in_flight), 128, 1, 4096)?,
            timeouts: Timeouts {
                connect: seconds(
                    "timeouts.connectSeconds",
                    flags.connect_seconds.or(file.timeouts.connect_seconds),
                    5,
                    60,
                )?,
                queue: seconds(
                    "timeouts.queueSeconds",
                    flags.queue_seconds.or(file.timeouts.queue_seconds),
                    MAX_QUEUE_SECONDS,
                    MAX_QUEUE_SECONDS,
                )?,
                first_byte: seconds(
                    "timeouts.firstByteSeconds",
                    flags.first_byte_seconds.or(file.timeouts.first_byte_seconds),
                    345,
                    3600,
                )?,
                idle: seconds(
                    "timeouts.idleSeconds",
                    flags.idle_seconds.or(file.timeouts.idle_seconds),
                    120,
                    3600,
                )?,
            },
            retries: RetryPolicy {
                attempts: bounded("retries.attempts", flags.attempts.or(file.retries.attempts), 4, 1, 16)?,
                base: millis(
                    "retries.baseMillis",
                    flags.base_millis.or(file.retries.base_millis),
                    100,
                    10_000,
                )?,
                max: millis(
                    "retries.maxMillis",
                    flags.max_millis.or(file.retries.max_millis),
                    5_000,
                    60_000,
                )?,
                after_execution: flags.after_execution.or(file.retries.after_execution).unwrap_or(false),
            },
        })
    }

    /// Every digest that some name stands for.
    pub fn digests(&self) -> BTreeSet<ModelDigest> {
        self.models.values().flatten().copied().collect()
    }
}

fn required<T>(key: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or_else(|| {
        let flag = flag_name(key);
        let variable = format!("CLOISTER_{}", flag.replace('-', "_").to_uppercase());
        ConfigError::Missing { key, flag, variable }
    })
}

/// `memberKey` -> `member-key`, `timeouts.idleSeconds` -> `timeouts-idle-seconds`
fn flag_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for letter in key.chars() {
        match letter {
            '.' => name.push('-'),
            upper if upper.is_ascii_uppercase() => {
                name.push('-');
                name.push(upper.to_ascii_lowercase());
            }
            other => name.push(other),
        }
    }
    name
}

fn invalid(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid {
        key,
        reason: reason.into(),
    }
}

fn listen(value: Option<String>) -> Result<SocketAddr, ConfigError> {
    let text = value.unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
    let address: SocketAddr = text
        .parse()
        .map_err(|_| invalid("listen", format!("{text:?} is not an address such as {DEFAULT_LISTEN}")))?;
    if !address.ip().is_loopback() {
        let reason =
            "not a loopback address: prompts cross this connection in the clear, so it must not leave the machine";
        return Err(invalid("listen", reason));
    }
    Ok(address)
}

fn endpoint(text: &str) -> Result<Uri, ConfigError> {
    let uri: Uri = text
        .parse()
        .map_err(|_| invalid("endpoint", format!("{text:?} is not a URL")))?;
    let sound = uri.scheme_str() == Some("https") && uri.host().is_some() && uri.path() == "/" && uri.query().is_none();
    if sound {
        Ok(uri)
    } else {
        Err(invalid(
            "endpoint",
            format!("{text:?} is not of the form https://host:port"),
        ))
    }
}

fn cluster_id(text: String) -> Result<String, ConfigError> {
    let limit = cloister_session::limits::MAX_NAME;
    if text.is_empty() || text.len() > limit {
        return Err(invalid("clusterId", format!("1 to {limit} bytes are allowed")));
    }
    Ok(text)
}

fn models(
    flags: Vec<ModelArg>,
    file: BTreeMap<String, file::Digests>,
) -> Result<BTreeMap<String, Vec<ModelDigest>>, ConfigError> {
    let models: BTreeMap<String, Vec<ModelDigest>> = if flags.is_empty() {
        file.into_iter().map(|(name, digests)| (name, digests.into())).collect()
    } else {
        flags.into_iter().map(|model| (model.name, model.digests)).collect()
    };
    if models.is_empty() {
        return Err(required::<()>("models", None)
            .err()
            .unwrap_or_else(|| invalid("models", "not set")));
    }
    if models.len() > MAX_MODELS {
        return Err(invalid("models", format!("at most {MAX_MODELS} are allowed")));
    }
    for (name, digests) in &models {
        if name.is_empty() || name.len() > crate::openai::MAX_MODEL_NAME_BYTES {
            return Err(invalid("models", "a name is empty or too long"));
        }
        if digests.is_empty() {
            return Err(invalid("models", format!("{name:?} has no digest")));
        }
    }
    Ok(models)
}

fn bounded<T>(key: &'static str, value: Option<T>, default: T, least: T, most: T) -> Result<T, ConfigError>
where
    T: PartialOrd + Copy + std::fmt::Display,
{
    let value = value.unwrap_or(default);
    if value < least || value > most {
        return Err(invalid(key, format!("{value} is not between {least} and {most}")));
    }
    Ok(value)
}

fn seconds(key: &'static str, value: Option<u64>, default: u64, most: u64) -> Result<Duration, ConfigError> {
    bounded(key, value, default, 1, most).map(Duration::from_secs)
}

fn millis(key: &'static str, value: Option<u64>, default: u64, most: u64) -> Result<Duration, ConfigError> {
    bounded(key, value, default, 1, most).map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
