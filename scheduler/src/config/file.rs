//! The YAML file; every key is optional here, since a flag may set it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use cloister_attestation::Sha256Digest;
use cloister_scheduler_core::Policy;
use cloister_session::TenantRef;
use cloister_transport::TlsFiles;
use serde::Deserialize;

use super::{Config, ConfigError, CredentialConfig, Limits, TenantConfig, Timeouts, invalid};

/// Longest configuration file.
const MAX_FILE: u64 = 4 * 1024 * 1024;

const DEFAULT_MAX_QUEUED: usize = 1024;
/// Above what an enclave itself allows by default before its first byte: 10 s for the upload and 300 s for the engine, which for
/// an answer that is not streamed is the whole generation. The enclave is to give up first: it seals why.
const DEFAULT_FIRST_BYTE: Duration = Duration::from_secs(330);
const DEFAULT_IDLE: Duration = Duration::from_secs(120);
const DEFAULT_KEYS_PER_MINUTE: u32 = 240;
const DEFAULT_EVIDENCE_PER_MINUTE: u32 = 60;
const DEFAULT_STREAMS: u32 = 512;
/// A waiting request holds two of them at most: what was read for its outer part, and what arrived after that. Ten thousand hold
/// 370 MB, whatever the size of their bodies, and an upload gets 16 KiB per round trip.
const DEFAULT_WINDOW: u32 = 16 * 1024;
/// Requests at once per lease; below the streams that an enclave allows on one connection.
const DEFAULT_MAX_IN_FLIGHT: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Option<SocketAddr>,
    pub(super) tls: Tls,
    pub(super) cluster_id: Option<String>,
    pub(super) enclaves: Vec<String>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) credentials: Vec<Credential>,
    pub(super) lease: Lease,
    pub(super) timeouts: TimeoutSection,
    pub(super) limits: LimitSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tenant {
    pub(super) tenant_ref: TenantRef,
    pub(super) weight: Option<u32>,
    pub(super) max_queued: Option<usize>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) token_sha256: Sha256Digest,
    pub(super) tenant_refs: Vec<TenantRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Lease {
    pub(super) quantum_millis: Option<u64>,
    pub(super) switch_cost_millis: Option<u64>,
    pub(super) drain_cap_millis: Option<u64>,
    pub(super) max_in_flight: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct TimeoutSection {
    pub(super) first_byte_millis: Option<u64>,
    pub(super) idle_millis: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct LimitSection {
    pub(super) keys_per_minute: Option<u32>,
    pub(super) evidence_per_minute: Option<u32>,
    pub(super) streams_per_connection: Option<u32>,
    pub(super) stream_window_bytes: Option<u32>,
}

// === impl File ===

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE {
            return Err(read(std::io::Error::other("it is longer than 4 MiB")));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let mut file: Self = serde_norway::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source,
        })?;
        if let Some(dir) = path.parent() {
            file.tls.resolve_in(dir);
        }
        Ok(file)
    }

    /// Fills in defaults and checks.
    pub(super) fn resolve(self) -> Result<Config, ConfigError> {
        let enclaves = self.enclaves.iter().enumerate();
        let enclaves = enclaves.map(|(index, address)| {
            address.parse().map_err(|_| {
                invalid(
                    &format!("enclaves[{index}]"),
                    "is not an address; write https://host:port",
                )
            })
        });
        let policy = self.lease.policy();
        let config = Config {
            listen: require(self.listen, "listen", "--listen")?,
            tls: TlsFiles {
                ca: require(self.tls.ca, "tls.ca", "--tls-ca")?,
                certificate: require(self.tls.certificate, "tls.certificate", "--tls-certificate")?,
                key: require(self.tls.key, "tls.key", "--tls-key")?,
            },
            cluster_id: require(self.cluster_id, "clusterId", "--cluster-id")?,
            enclaves: enclaves.collect::<Result<_, _>>()?,
            tenants: self.tenants.into_iter().map(Tenant::resolve).collect(),
            credentials: self.credentials.into_iter().map(Credential::resolve).collect(),
            policy,
            timeouts: Timeouts {
                first_byte: millis(self.timeouts.first_byte_millis, DEFAULT_FIRST_BYTE),
                idle: millis(self.timeouts.idle_millis, DEFAULT_IDLE),
            },
            limits: Limits {
                keys_per_minute: self.limits.keys_per_minute.unwrap_or(DEFAULT_KEYS_PER_MINUTE),
                evidence_per_minute: self.limits.evidence_per_minute.unwrap_or(DEFAULT_EVIDENCE_PER_MINUTE),
                streams_per_connection: self.limits.streams_per_connection.unwrap_or(DEFAULT_STREAMS),
                stream_window: self.limits.stream_window_bytes.unwrap_or(DEFAULT_WINDOW),
            },
        };
        config.check()
    }
}

impl Tls {
    /// Paths of the file are relative to it.
    fn resolve_in(&mut self, dir: &Path) {
        for path in [&mut self.ca, &mut self.certificate, &mut self.key]
            .into_iter()
            .flatten()
        {
            *path = dir.join(&*path);
        }
    }
}

impl Lease {
    fn policy(&self) -> Policy {
        let default = Policy::default();
        Policy {
            quantum: millis(self.quantum_millis, default.quantum),
            linger: millis(self.switch_cost_millis, default.linger),
            drain_cap: millis(self.drain_cap_millis, default.drain_cap),
            max_in_flight: self.max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT),
            ..default
        }
    }
}

impl Tenant {
    fn resolve(self) -> TenantConfig {
        TenantConfig {
            tenant_ref: self.tenant_ref,
            weight: self.weight.unwrap_or(1),
            max_queued: self.max_queued.unwrap_or(DEFAULT_MAX_QUEUED),
        }
    }
}

impl Credential {
    fn resolve(self) -> CredentialConfig {
        CredentialConfig {
            token_sha256: self.token_sha256,
            tenant_refs: self.tenant_refs,
        }
    }
}

fn require<T>(value: Option<T>, key: &'static str, flag: &'static str) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing { key, flag })
}

fn millis(value: Option<u64>, default: Duration) -> Duration {
    value.map_or(default, Duration::from_millis)
}
