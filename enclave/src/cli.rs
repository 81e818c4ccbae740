//! Command line of `cloister-enclave`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use cloister_enclave_engine::Confinement;
use cloister_telemetry::LogFormat;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    boot::{boot, measure},
    config::{Config, TeeConfig},
    measure::program,
    show,
};

/// The part of Cloister that runs inside the TEE: it ends sealed sessions, enforces leases and owns its engine.
///
/// Exit codes: 0 stopped on request; 1 something failed, named on standard error; 2 wrong arguments.
#[derive(Parser)]
#[command(name = "cloister-enclave", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Args)]
struct Serve {
    /// Configuration file (YAML).
    #[arg(long, env = "CLOISTER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: Log,
}

#[derive(Args)]
struct Log {
    /// Format of the log on standard error.
    #[arg(long, env = "CLOISTER_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
    /// What is logged, as tracing's filter directives.
    #[arg(long, env = "CLOISTER_LOG_FILTER")]
    log_filter: Option<String>,
    /// OTLP endpoint (gRPC) for traces and metrics; none without.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Prints, as JSON, the digests that a client's policy has to name for this configuration. Starts nothing.
    Measure {
        /// Configuration file (YAML).
        #[arg(long, env = "CLOISTER_CONFIG")]
        config: PathBuf,
    },
    /// Prints evidence of this machine's CPU and GPUs, as a bundle that `cloister appraise` reads. It is bound to the nonce and
    /// to no enclave.
    Attest {
        /// Configuration file (YAML).
        #[arg(long, env = "CLOISTER_CONFIG")]
        config: PathBuf,
        /// 32 bytes in hex, from whoever will appraise the evidence.
        #[arg(long, value_parser = nonce)]
        nonce: [u8; 32],
    },
    /// Prints, as JSON, which TEE and GPUs are seen here; fails if not all of them can be used.
    Doctor {
        /// Configuration file (YAML).
        #[arg(long, env = "CLOISTER_CONFIG")]
        config: PathBuf,
    },
    /// Prints how far an engine that is started from here would be confined: `full` or `weak`.
    Confinement,
    /// The SIMULATED TEE of machines without a real one. It protects nothing.
    #[cfg(feature = "simulated")]
    SimulatedTee {
        #[command(subcommand)]
        command: SimulatedTeeCommand,
    },
}

#[cfg(feature = "simulated")]
#[derive(Subcommand)]
enum SimulatedTeeCommand {
    /// Makes its keys and certificates, once, and prints the SHA-256 of its root.
    Init {
        /// Folder for them; made with mode 0700.
        #[arg(long)]
        dir: PathBuf,
    },
}

/// Runs the command line.
pub async fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        None => serve(cli.serve).await,
        Some(Command::Measure { config }) => print_measurement(&config),
        Some(Command::Attest { config, nonce }) => print_evidence(&config, &nonce),
        Some(Command::Doctor { config }) => print_machine(&config),
        Some(Command::Confinement) => {
            print_confinement();
            Ok(())
        }
        #[cfg(feature = "simulated")]
        Some(Command::SimulatedTee {
            command: SimulatedTeeCommand::Init { dir },
        }) => init_simulated(&dir),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloister-enclave: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve(arguments: Serve) -> Result<(), Failure> {
    let path = arguments.config.ok_or("--config FILE is missing; see --help")?;
    let options = cloister_telemetry::Options {
        log_format: match arguments.log.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        },
        log_filter: arguments.log.log_filter,
        otlp_endpoint: arguments.log.otlp_endpoint,
    };
    let telemetry = cloister_telemetry::init("cloister-enclave", &options)?;
    forbid_core_dumps()?;
    let config = Config::read(&path)?;
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        on_signal.cancel();
    });
    // Hashing the model takes a while; the runtime has nothing else to do yet.
    let booted = boot(&config)?;
    tracing::info!(address = %config.listen, tee = booted.enclave().facts.tee.label(), "serving");
    booted.run(&config, stop).await?;
    tracing::info!("stopped");
    telemetry.shutdown().await?;
    Ok(())
}

/// A dump of this process would hold keys and prompts.
fn forbid_core_dumps() -> Result<(), Failure> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|error| format!("core dumps cannot be switched off: {error}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("the process cannot be made undumpable: {error}"))?;
    Ok(())
}

fn print_measurement(config: &std::path::Path) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let measured = measure(&config)?;
    let report = json!({
        "measurement": measured.measurement.to_string(),
        "workload": hex::encode(measured.workload.to_cbor()),
        "workloadDigest": measured.workload.digest().to_string(),
        "modelDigest": measured.workload.model.to_string(),
        "engineImage": measured.workload.engine_image.to_string(),
        "simulatedRoot": simulated_root(&config.tee)?,
    });
    println!("{report:#}");
    Ok(())
}

/// What a policy has to name for the SIMULATED TEE; nothing for a real one.
#[cfg(feature = "simulated")]
fn simulated_root(tee: &TeeConfig) -> Result<Option<String>, Failure> {
    let TeeConfig::Simulated(tee) = tee else {
        return Ok(None);
    };
    let root = cloister_enclave_attester::SimulatedTee::root_hash(&tee.dir)?;
    Ok(Some(root.to_string()))
}

#[cfg(not(feature = "simulated"))]
fn simulated_root(tee: &TeeConfig) -> Result<Option<String>, Failure> {
    match tee {
        TeeConfig::Simulated(_) => Err(crate::machine::MachineError::NoSimulated.into()),
        TeeConfig::Snp(_) | TeeConfig::Tdx(_) => Ok(None),
    }
}

fn print_evidence(config: &std::path::Path, nonce: &[u8; 32]) -> Result<(), Failure> {
    let bundle = show::attest(&Config::read(config)?, program()?, nonce)?;
    println!("{}", bundle.to_json());
    Ok(())
}

fn print_machine(config: &std::path::Path) -> Result<(), Failure> {
    let (seen, usable) = show::doctor(&Config::read(config)?, program()?);
    println!("{seen:#}");
    if usable {
        Ok(())
    } else {
        Err("not all of this machine can be used".into())
    }
}

fn nonce(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "a nonce is 32 bytes in hex, 64 digits".to_owned())
}

fn print_confinement() {
    let strongest = Confinement::strongest();
    if strongest == Confinement::Full {
        println!("full");
    } else {
        println!("weak");
        eprintln!("missing: {}", strongest.missing());
    }
}

#[cfg(feature = "simulated")]
fn init_simulated(dir: &std::path::Path) -> Result<(), Failure> {
    cloister_enclave_attester::SimulatedTee::install(dir)?;
    println!("{}", cloister_enclave_attester::SimulatedTee::root_hash(dir)?);
    Ok(())
}
