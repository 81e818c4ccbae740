//! Flags and environment variables.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Parser, ValueEnum};
use cloister_telemetry::{LogFormat, Options};

use super::file::{Credential, File, Tenant};

/// Routes sealed requests of tenants to enclaves. It can read none of them.
///
/// It holds each request until an enclave is leased to the request's tenant, forwards it, and passes the sealed answer back.
#[derive(Debug, Default, Parser)]
#[command(name = "cloister-scheduler", version, after_long_help = AFTER_HELP)]
pub struct Flags {
    /// Configuration file; its paths are relative to it. Flags and variables win over its keys.
    #[arg(long, env = "CLOISTER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address and port for clients (key `listen`).
    #[arg(long, env = "CLOISTER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// PEM of the authority that issued the enclaves' certificates (key `tls.ca`).
    #[arg(long, env = "CLOISTER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// PEM of the scheduler's certificate, for clients and enclaves (key `tls.certificate`).
    #[arg(long, env = "CLOISTER_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// PEM of its key, readable by its owner only (key `tls.key`).
    #[arg(long, env = "CLOISTER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Name of the cluster (key `clusterId`).
    #[arg(long, env = "CLOISTER_CLUSTER_ID", value_name = "NAME")]
    pub cluster_id: Option<String>,

    /// An enclave, `https://host:port` (key `enclaves`); replaces the file's list.
    #[arg(
        long = "enclave",
        env = "CLOISTER_ENCLAVES",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub enclaves: Vec<String>,

    /// A tenant: its reference, then its weight and longest queue (key `tenants`); replaces the file's list.
    #[arg(
        long = "tenant",
        env = "CLOISTER_TENANTS",
        value_delimiter = ',',
        value_name = "REF[:WEIGHT[:MAX_QUEUED]]"
    )]
    pub tenants: Vec<TenantFlag>,

    /// An outer credential: SHA-256 of the token, then the tenants it is for (key `credentials`); replaces the file's list.
    #[arg(
        long = "credential",
        env = "CLOISTER_CREDENTIALS",
        value_delimiter = ',',
        value_name = "SHA256:REF[:REF...]"
    )]
    pub credentials: Vec<CredentialFlag>,

    /// How long a lease in use lasts before another tenant may end it, in milliseconds (key `lease.quantumMillis`) [default: 2000].
    #[arg(long, env = "CLOISTER_LEASE_QUANTUM_MILLIS", value_name = "MS")]
    pub lease_quantum_millis: Option<u64>,

    /// How long an empty lease is kept while another tenant waits (key `lease.switchCostMillis`) [default: 200].
    #[arg(long, env = "CLOISTER_LEASE_SWITCH_COST_MILLIS", value_name = "MS")]
    pub lease_switch_cost_millis: Option<u64>,

    /// The enclaves' cap on a drain (key `lease.drainCapMillis`) [default: 30000].
    #[arg(long, env = "CLOISTER_LEASE_DRAIN_CAP_MILLIS", value_name = "MS")]
    pub lease_drain_cap_millis: Option<u64>,

    /// Requests at once per lease (key `lease.maxInFlight`) [default: 64].
    #[arg(long, env = "CLOISTER_LEASE_MAX_IN_FLIGHT", value_name = "N")]
    pub lease_max_in_flight: Option<usize>,

    /// From dispatch to the first byte of an answer, above the enclaves' own limit (key `timeouts.firstByteMillis`) [default: 330000].
    #[arg(long, env = "CLOISTER_TIMEOUTS_FIRST_BYTE_MILLIS", value_name = "MS")]
    pub timeouts_first_byte_millis: Option<u64>,

    /// Between two pieces of an answer (key `timeouts.idleMillis`) [default: 120000].
    #[arg(long, env = "CLOISTER_TIMEOUTS_IDLE_MILLIS", value_name = "MS")]
    pub timeouts_idle_millis: Option<u64>,

    /// Requests for key configurations per tenant and minute (key `limits.keysPerMinute`) [default: 240].
    #[arg(long, env = "CLOISTER_LIMITS_KEYS_PER_MINUTE", value_name = "N")]
    pub limits_keys_per_minute: Option<u32>,

    /// Requests for evidence per tenant and minute (key `limits.evidencePerMinute`) [default: 60].
    #[arg(long, env = "CLOISTER_LIMITS_EVIDENCE_PER_MINUTE", value_name = "N")]
    pub limits_evidence_per_minute: Option<u32>,

    /// Requests at once on a client connection (key `limits.streamsPerConnection`) [default: 512].
    #[arg(long, env = "CLOISTER_LIMITS_STREAMS_PER_CONNECTION", value_name = "N")]
    pub limits_streams_per_connection: Option<u32>,

    /// Bytes of a waiting request's body that are taken in, and of any body per round trip (key `limits.streamWindowBytes`)
    /// [default: 16384].
    #[arg(long, env = "CLOISTER_LIMITS_STREAM_WINDOW_BYTES", value_name = "BYTES")]
    pub limits_stream_window_bytes: Option<u32>,

    /// Form of the log on standard error.
    #[arg(long, env = "CLOISTER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: Format,

    /// Filter of the log, like `info,cloister_scheduler=debug` [default: info].
    #[arg(long, env = "CLOISTER_LOG_FILTER", value_name = "FILTER")]
    pub log_filter: Option<String>,

    /// gRPC address of an OpenTelemetry collector, `http://host:port`.
    #[arg(long, env = "CLOISTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

const AFTER_HELP: &str = "\
A configuration file:

  listen: 127.0.0.1:9443
  tls: { ca: pki/ca.pem, certificate: pki/scheduler.pem, key: pki/scheduler.key }
  clusterId: example
  enclaves: [ https://127.0.0.1:9001 ]
  tenants:
    - { tenantRef: 00112233445566778899aabbccddeeff, weight: 1, maxQueued: 1024 }
  credentials:
    - { tokenSha256: <64 hex digits>, tenantRefs: [ 00112233445566778899aabbccddeeff ] }
  lease: { quantumMillis: 2000, switchCostMillis: 200, drainCapMillis: 30000, maxInFlight: 64 }
  timeouts: { firstByteMillis: 330000, idleMillis: 120000 }
  limits: { keysPerMinute: 240, evidencePerMinute: 60, streamsPerConnection: 512, streamWindowBytes: 16384 }

`cloister tenant show` prints a tenantRef, `cloister tenant token` a token and its hash.

Signals: SIGTERM and SIGINT end it within 5 seconds; requests under way may finish within 4 of them.

Exit codes:
  0  ended by a signal
  1  cannot start or serve: certificates, address, telemetry
  2  the command line or the configuration is wrong";

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `REF[:WEIGHT[:MAX_QUEUED]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantFlag(Tenant);

/// `SHA256:REF[:REF...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFlag(Credential);

// === impl Flags ===

impl Flags {
    /// What telemetry is to do.
    #[must_use]
    pub fn telemetry(&self) -> Options {
        Options {
            log_format: match self.log_format {
                Format::Text => LogFormat::Text,
                Format::Json => LogFormat::Json,
            },
            log_filter: self.log_filter.clone(),
            otlp_endpoint: self.otlp_endpoint.clone(),
        }
    }

    /// Puts what is given over the file's keys.
    pub(super) fn over(self, mut file: File) -> File {
        set(&mut file.listen, self.listen);
        set(&mut file.tls.ca, self.tls_ca);
        set(&mut file.tls.certificate, self.tls_certificate);
        set(&mut file.tls.key, self.tls_key);
        set(&mut file.cluster_id, self.cluster_id);
        if !self.enclaves.is_empty() {
            file.enclaves = self.enclaves;
        }
        if !self.tenants.is_empty() {
            file.tenants = self.tenants.into_iter().map(|flag| flag.0).collect();
        }
        if !self.credentials.is_empty() {
            file.credentials = self.credentials.into_iter().map(|flag| flag.0).collect();
        }
        set(&mut file.lease.quantum_millis, self.lease_quantum_millis);
        set(&mut file.lease.switch_cost_millis, self.lease_switch_cost_millis);
        set(&mut file.lease.drain_cap_millis, self.lease_drain_cap_millis);
        set(&mut file.lease.max_in_flight, self.lease_max_in_flight);
        set(&mut file.timeouts.first_byte_millis, self.timeouts_first_byte_millis);
        set(&mut file.timeouts.idle_millis, self.timeouts_idle_millis);
        set(&mut file.limits.keys_per_minute, self.limits_keys_per_minute);
        set(&mut file.limits.evidence_per_minute, self.limits_evidence_per_minute);
        set(
            &mut file.limits.streams_per_connection,
            self.limits_streams_per_connection,
        );
        set(&mut file.limits.stream_window_bytes, self.limits_stream_window_bytes);
        file
    }
}

fn set<T>(to: &mut Option<T>, from: Option<T>) {
    if from.is_some() {
        *to = from;
    }
}

// === impl TenantFlag ===

impl FromStr for TenantFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let tenant_ref = parts.next().unwrap_or_default();
        let tenant = Tenant {
            tenant_ref: tenant_ref.parse().map_err(|_| "the reference is not 32 hex digits")?,
            weight: number(parts.next(), "the weight")?,
            max_queued: number(parts.next(), "the longest queue")?,
        };
        match parts.next() {
            None => Ok(Self(tenant)),
            Some(_) => Err("there is more than reference, weight and longest queue".to_owned()),
        }
    }
}

fn number<T: FromStr>(text: Option<&str>, what: &str) -> Result<Option<T>, String> {
    text.map(|text| text.parse().map_err(|_| format!("{what} is not a number")))
        .transpose()
}

// === impl CredentialFlag ===

impl FromStr for CredentialFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let hash = parts.next().unwrap_or_default();
        let token_sha256 = hash.parse().map_err(|_| "the hash is not 64 hex digits")?;
        let tenant_refs = parts.map(str::parse).collect::<Result<Vec<_>, _>>();
        Ok(Self(Credential {
            token_sha256,
            tenant_refs: tenant_refs.map_err(|_| "a reference is not 32 hex digits")?,
        }))
    }
}
