//! Configuration: a YAML file, over which flags and environment variables win.

mod file;
mod flags;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cloister_attestation::Sha256Digest;
use cloister_scheduler_core::Policy;
use cloister_session::TenantRef;
use cloister_transport::TlsFiles;
use http::Uri;

pub use flags::Flags;

/// Most enclaves of one scheduler: each costs two connections.
pub const MAX_ENCLAVES: usize = 256;
/// Most tenants, and most credentials. Every credential is compared with every token that comes.
pub const MAX_TENANTS: usize = 4096;
/// Greatest weight of a tenant.
pub const MAX_WEIGHT: u32 = 100;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// This scheduler's certificate, shown to clients and to enclaves, and the authority of the enclaves.
    pub tls: TlsFiles,
    /// Name of the cluster, as tenants' references are derived for it.
    pub cluster_id: String,
    /// `https://host:port` of each enclave.
    pub enclaves: Vec<Uri>,
    /// Who may ask for anything.
    pub tenants: Vec<TenantConfig>,
    /// Outer credentials.
    pub credentials: Vec<CredentialConfig>,
    /// Lease policy.
    pub policy: Policy,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Other limits.
    pub limits: Limits,
}

/// A tenant, by its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantConfig {
    /// See `cloister tenant show`.
    pub tenant_ref: TenantRef,
    /// Multiplies the quantum, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// Longest queue.
    pub max_queued: usize,
}

/// An outer credential, by the hash of its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialConfig {
    /// SHA-256 of the token's text.
    pub token_sha256: Sha256Digest,
    /// For whom it may ask.
    pub tenant_refs: Vec<TenantRef>,
}

/// Time limits of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the dispatch to the enclave's first byte, which comes with the engine's first output: with its last when the answer is
    /// not streamed. To be above the enclaves' `lease.uploadTimeoutMillis` and `engine.firstByteTimeoutMillis` together.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
}

/// Limits per connection and tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests for key configurations, per tenant and minute.
    pub keys_per_minute: u32,
    /// Requests for evidence, per tenant and minute.
    pub evidence_per_minute: u32,
    /// Requests at once on one client connection.
    pub streams_per_connection: u32,
    /// Bytes of a body that are taken before it is dispatched: memory per waiting request is at most about this. It is also what
    /// an upload gets per round trip, so clients that are far away want it larger.
    pub stream_window: u32,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; check --config", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML of the known keys.
    #[error("{path}: {source}; see --help for the keys", path = .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_norway::Error,
    },
    /// A key is set nowhere.
    #[error("{key} is not set: put it into the configuration file, or give {flag}")]
    Missing {
        /// The key of the file.
        key: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// A value is out of its range.
    #[error("{key}: {problem}")]
    Invalid {
        /// The key of the file.
        key: String,
        /// What to change.
        problem: String,
    },
}

// === impl Config ===

impl Config {
    /// Reads the file that `flags` name, if any, lets flags win, and checks the result.
    ///
    /// # Errors
    /// Names the key and what to do.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => file::File::read(path)?,
            None => file::File::default(),
        };
        flags.over(file).resolve()
    }

    fn check(self) -> Result<Self, ConfigError> {
        self.check_cluster()?;
        self.check_tenants()?;
        self.check_credentials()?;
        self.policy
            .validate()
            .map_err(|error| invalid("lease", error.to_string()))?;
        if self.policy.quantum.is_zero() {
            return Err(invalid("lease.quantumMillis", "give at least 1"));
        }
        if self.limits.stream_window < 8 * 1024 {
            return Err(invalid(
                "limits.streamWindowBytes",
                "give at least 8192, so that header and wraps fit",
            ));
        }
        let window = u64::from(self.limits.stream_window).saturating_mul(self.limits.streams_per_connection.into());
        if self.limits.streams_per_connection == 0 || window > MAX_CONNECTION_WINDOW {
            return Err(invalid(
                "limits.streamsPerConnection",
                "give at least 1, and no more than 2147483647 divided by streamWindowBytes",
            ));
        }
        Ok(self)
    }

    fn check_cluster(&self) -> Result<(), ConfigError> {
        if !(1..=cloister_session::limits::MAX_NAME).contains(&self.cluster_id.len()) {
            return Err(invalid("clusterId", "give 1 to 128 bytes"));
        }
        if !(1..=MAX_ENCLAVES).contains(&self.enclaves.len()) {
            return Err(invalid("enclaves", format!("give 1 to {MAX_ENCLAVES}")));
        }
        for (index, enclave) in self.enclaves.iter().enumerate() {
            if self.enclaves.iter().take(index).any(|other| other == enclave) {
                return Err(invalid(
                    &format!("enclaves[{index}]"),
                    "is listed twice; one replica has one address",
                ));
            }
        }
        Ok(())
    }

    fn check_tenants(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_TENANTS).contains(&self.tenants.len()) {
            return Err(invalid("tenants", format!("give 1 to {MAX_TENANTS}")));
        }
        let mut seen = std::collections::HashSet::new();
        for (index, tenant) in self.tenants.iter().enumerate() {
            let key = format!("tenants[{index}]");
            if !seen.insert(tenant.tenant_ref) {
                return Err(invalid(&key, "its tenantRef is listed twice; merge the entries"));
            }
            if !(1..=MAX_WEIGHT).contains(&tenant.weight) {
                return Err(invalid(&key, format!("give a weight of 1 to {MAX_WEIGHT}")));
            }
            if tenant.max_queued == 0 {
                return Err(invalid(&key, "give a maxQueued of at least 1"));
            }
        }
        Ok(())
    }

    fn check_credentials(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_TENANTS).contains(&self.credentials.len()) {
            return Err(invalid("credentials", format!("give 1 to {MAX_TENANTS}")));
        }
        let known: std::collections::HashSet<_> = self.tenants.iter().map(|tenant| tenant.tenant_ref).collect();
        for (index, credential) in self.credentials.iter().enumerate() {
            let key = format!("credentials[{index}]");
            if credential.tenant_refs.is_empty() {
                return Err(invalid(
                    &key,
                    "tenantRefs is empty, so the token opens nothing; list one",
                ));
            }
            if !credential.tenant_refs.iter().all(|tenant| known.contains(tenant)) {
                return Err(invalid(
                    &key,
                    "names a tenantRef that is not among tenants; add it there",
                ));
            }
            let hash = credential.token_sha256;
            let earlier = self.credentials.iter().take(index);
            if earlier.into_iter().any(|other| other.token_sha256 == hash) {
                return Err(invalid(&key, "its tokenSha256 is listed twice; merge the entries"));
            }
        }
        Ok(())
    }
}

/// Greatest flow-control window of HTTP/2 (RFC 9113, section 6.9.1).
const MAX_CONNECTION_WINDOW: u64 = (1 << 31) - 1;

fn invalid(key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid {
        key: key.to_owned(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests;
