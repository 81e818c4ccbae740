//! The command line's grammar.

use clap::{Args, Parser, Subcommand, ValueEnum};
use cloister_attestation::ModelDigest;
use cloister_client::config::ProxyFlags;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a check failed (doctor), or the receipt was refused (receipt verify)
  2  wrong usage
  3  a file or the configuration cannot be used
  4  the program failed while it ran";

/// Talk to language models that their operator cannot eavesdrop on
#[derive(Debug, Parser)]
#[command(name = "cloister", version, after_help = EXIT_CODES, max_term_width = 120)]
pub(crate) struct Cli {
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve OpenAI's API on this machine and seal each request for attested enclaves
    Proxy(Box<ProxyArgs>),
    /// Check, in order, everything that the proxy needs, and say what to do
    Doctor(Box<DoctorArgs>),
    /// Make the files of a tenant and its members
    Tenant {
        /// Directory of tenants [default: $XDG_CONFIG_HOME/cloister/tenants or ~/.config/cloister/tenants]
        #[arg(long, global = true, env = "CLOISTER_TENANTS", value_name = "DIR")]
        dir: Option<PathBuf>,
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Look at receipts
    Receipt {
        #[command(subcommand)]
        command: ReceiptCommand,
    },
    /// For trials and tests only
    Dev {
        #[command(subcommand)]
        command: DevCommand,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    pub(crate) flags: ProxyFlags,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) flags: ProxyFlags,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Form of log lines, on standard error
    #[arg(long, env = "CLOISTER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged, such as `info` or `cloister_client=debug`; never what a request says
    #[arg(long, env = "CLOISTER_LOG_FILTER", value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
    /// OpenTelemetry collector, http://host:port
    #[arg(long, env = "CLOISTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant: a root key (mode 0600) that is never overwritten
    Create {
        /// Name of its directory; the tenant's identity is its key
        name: String,
    },
    /// Issue a member credential of at most an hour, and the member's key the first time
    Issue(IssueArgs),
    /// Print the tenant's id and its tenant_ref in a cluster
    Show {
        /// The tenant
        name: String,
        /// Cluster to print the tenant_ref for
        #[arg(long, env = "CLOISTER_CLUSTER_ID", value_name = "ID")]
        cluster: Option<String>,
    },
    /// Make a bearer token for the scheduler (mode 0600) and print the SHA-256 for its configuration
    Token {
        /// The tenant
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// The tenant
    pub(crate) name: String,
    /// Cluster that the credential is for
    #[arg(long, env = "CLOISTER_CLUSTER_ID", value_name = "ID")]
    pub(crate) cluster: String,
    /// Digests of the models that the member may use, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "DIGEST")]
    pub(crate) models: Vec<ModelDigest>,
    /// Name of the member, for its directory only
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) member: String,
    /// Life in seconds, at most 3600; it begins a minute ago, for clocks that are behind
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub(crate) life: u64,
    /// Whose prefix cache the member's requests may hit
    #[arg(long, value_enum, default_value_t = SaltScope::Member)]
    pub(crate) salt_scope: SaltScope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaltScope {
    /// Only the member's own
    Member,
    /// That of every member of the tenant
    Tenant,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Verify a saved receipt: its signature, and the evidence for the enclave under your policy
    Verify {
        /// The receipt; its evidence file lies in the same directory
        file: PathBuf,
        /// Appraisal policy (YAML)
        #[arg(long, env = "CLOISTER_POLICY", value_name = "FILE")]
        policy: PathBuf,
        /// Also write it as COSE_Sign1 (RFC 9052), for other tools; refuses to overwrite. The key is `identity_spki` of the evidence
        #[arg(long, value_name = "FILE")]
        cose: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevCommand {
    /// Make a throw-away certificate authority and certificates; running it again changes nothing
    Pki(PkiArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PkiArgs {
    /// Directory for ca.pem, ca.key, and NAME.pem and NAME.key of each certificate
    pub(crate) dir: PathBuf,
    /// A server's certificate: NAME=SUBJECT[,SUBJECT], subjects being DNS names or IP addresses; may be repeated
    #[arg(long, value_name = "NAME=SUBJECTS")]
    pub(crate) server: Vec<Leaf>,
    /// A certificate for serving and calling, as enclaves and schedulers do among themselves; may be repeated
    #[arg(long, value_name = "NAME=SUBJECTS")]
    pub(crate) peer: Vec<Leaf>,
    /// A client's certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Vec<String>,
}

/// `NAME=SUBJECT[,SUBJECT]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) name: String,
    pub(crate) subjects: Vec<String>,
}

impl std::str::FromStr for Leaf {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (name, subjects) = text.split_once('=').ok_or("expected NAME=SUBJECT[,SUBJECT]")?;
        let subjects = subjects.split(',').map(str::to_owned).collect();
        Ok(Self {
            name: name.to_owned(),
            subjects,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn leaves_are_a_name_and_subjects() {
        let leaf: Leaf = "scheduler=localhost,127.0.0.1".parse().unwrap();
        assert_eq!((leaf.name.as_str(), leaf.subjects.len()), ("scheduler", 2));
        assert!("scheduler".parse::<Leaf>().is_err());
    }
}
