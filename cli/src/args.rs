//! The command line's grammar.

use clap::{Args, Parser, Subcommand, ValueEnum};
use cloister_attestation::{ModelDigest, UnixTime};
use cloister_client::collateral::http::BaseUrl;
use cloister_client::collateral::{FmspcCa, Product};
use cloister_client::config::ProxyFlags;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a check failed (doctor), the receipt was refused (receipt verify), the evidence is not affirmed (appraise), or
     collateral is missing or expired
  2  wrong usage, or input that cannot be read (appraise)
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
    /// A signed attestation result; `appraise` only
    Jwt,
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
    /// Fetch and look at what vendors sign: certificates, revocation lists, collateral, RIMs
    Collateral {
        #[command(subcommand)]
        command: CollateralCommand,
    },
    /// Appraise captured evidence of a TEE and its GPUs, offline, and say what was checked
    #[command(after_help = APPRAISE_HELP)]
    Appraise(Box<AppraiseArgs>),
    /// For trials and tests only
    Dev {
        #[command(subcommand)]
        command: DevCommand,
    },
}

const APPRAISE_HELP: &str = "\
A bundle is JSON; cpu or devices may be missing, and base64 has padding:
  {\"cpu\": {\"tee\": \"snp\", \"report\": base64, \"vek\": base64 of DER or PEM}
       or {\"tee\": \"tdx\", \"quote\": base64, \"collateral\": {QuoteCollateralV3}},
   \"devices\": [{\"arch\": \"HOPPER\"|\"BLACKWELL\"|\"LS10\", \"evidence\": base64, \"certificate\": base64 of PEM}],
   \"nonce\": hex}
Evidence as an enclave serves it, with identity_spki, boot_id and workload around a bundle, is read too; then its binding is checked.

Marks of the text:  \u{2713} holds   ! tolerated   \u{2717} refused   - not appraised: there is nothing to compare with

Exit codes:
  0  affirming
  1  not affirming
  2  the bundle, the policy or an option cannot be read: standard error says where";

#[derive(Debug, Args)]
pub(crate) struct AppraiseArgs {
    /// Bundle of evidence (JSON), or - for standard input
    #[arg(value_name = "BUNDLE.json")]
    pub(crate) bundle: PathBuf,
    /// Appraisal policy (YAML), or `genuine`: whether the evidence is genuine, which is no policy to run on
    #[arg(long, value_name = "POLICY.yaml|genuine")]
    pub(crate) policy: PathBuf,
    /// Time of the appraisal, as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "RFC3339")]
    pub(crate) now: String,
    /// Nonce that the evidence must answer
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// Private key that signs the result of `--output jwt`: PEM (PKCS #8) of ECDSA on P-384 or of Ed25519
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Folder of NVIDIA's reference manifests: XML, or base64 of it
    #[arg(long, value_name = "DIR")]
    pub(crate) rims: Option<PathBuf>,
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
pub(crate) enum CollateralCommand {
    /// Fetch what evidence needs from its vendors, into a directory
    Fetch(Box<FetchArgs>),
    /// Show what the directory holds, and until when; exits 1 when something has expired
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Evidence, as for `appraise`, of which `vek` and `collateral` may be missing; may be repeated
    #[arg(long = "for", value_name = "BUNDLE")]
    pub(crate) bundles: Vec<PathBuf>,
    /// Directory to keep it in
    #[arg(long, env = "CLOISTER_COLLATERAL", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Generation of the chip, for reports of SEV-SNP of version 2: Milan, Genoa or Turin
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: Option<Product>,
    /// Fetch AMD's chains and revocation list of this generation; may be repeated
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) crl: Vec<Product>,
    /// Fetch the RIM of this id, and the status of its certificates; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) rim: Vec<String>,
    /// Fetch Intel's collateral for this FMSPC (12 hex digits); may be repeated
    #[arg(long, value_name = "FMSPC")]
    pub(crate) fmspc: Vec<Fmspc>,
    /// Authority of the platforms of --fmspc: platform or processor
    #[arg(long, default_value = "platform", value_name = "CA")]
    pub(crate) ca: FmspcCa,
    /// AMD's key distribution service, or a mirror [default: https://kdsintf.amd.com]
    #[arg(long, env = "CLOISTER_AMD_KDS", value_name = "URL")]
    pub(crate) amd_kds: Option<BaseUrl>,
    /// Intel's provisioning certification service, or a cache of it [default: https://api.trustedservices.intel.com]
    #[arg(long, env = "CLOISTER_INTEL_PCS", value_name = "URL")]
    pub(crate) intel_pcs: Option<BaseUrl>,
    /// Revocation list of Intel's root [default: Intel's own, or the cache's with --intel-pcs]
    #[arg(long, env = "CLOISTER_INTEL_ROOT_CRL", value_name = "URL")]
    pub(crate) intel_root_crl: Option<BaseUrl>,
    /// NVIDIA's RIM service, or a mirror [default: https://rim.attestation.nvidia.com]
    #[arg(long, env = "CLOISTER_NVIDIA_RIM", value_name = "URL")]
    pub(crate) nvidia_rim: Option<BaseUrl>,
    /// NVIDIA's status service, or a mirror [default: https://ocsp.ndis.nvidia.com]
    #[arg(long, env = "CLOISTER_NVIDIA_OCSP", value_name = "URL")]
    pub(crate) nvidia_ocsp: Option<BaseUrl>,
    /// Ask nobody: say what is needed and whether it is there
    #[arg(long)]
    pub(crate) offline_check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The directory
    #[arg(long, env = "CLOISTER_COLLATERAL", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Time to judge by, RFC 3339 [default: this machine's clock]
    #[arg(long, value_name = "TIME")]
    pub(crate) now: Option<Moment>,
}

/// 12 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fmspc(pub(crate) [u8; 6]);

impl std::str::FromStr for Fmspc {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let fmspc = hex::FromHex::from_hex(text).map_err(|_| "expected 12 hex digits")?;
        Ok(Self(fmspc))
    }
}

/// A time in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) UnixTime);

impl std::str::FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let error = "expected a time such as 2026-01-31T12:00:00Z";
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| error)?;
        let seconds = u64::try_from(time.unix_timestamp()).map_err(|_| error)?;
        Ok(Self(UnixTime(seconds)))
    }
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
