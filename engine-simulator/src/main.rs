//! `cloister-engine-simulator`: the simulated engine as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloister_engine_simulator::{Faults, Profile, Simulator, SimulatorConfig, VERSION};
use tokio::signal::unix::{SignalKind, signal};

/// Simulated inference engine: vLLM's API and metrics over a latency model. It runs no model.
#[derive(Parser)]
#[command(name = "cloister-engine-simulator", version)]
struct Arguments {
    /// Unix socket to listen on.
    #[arg(long, conflicts_with = "listen", required_unless_present = "listen")]
    socket: Option<PathBuf>,
    /// TCP address to listen on.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Latencies: 8b-h100, 70b-tp8 or instant.
    #[arg(long, default_value = "8b-h100")]
    profile: Profile,
    /// Sequences in a full batch, instead of the profile's.
    #[arg(long)]
    max_num_seqs: Option<usize>,
    /// The model name that is served.
    #[arg(long, default_value = "simulated")]
    model: String,
    /// Length of every answer in tokens, unless the request limits it.
    #[arg(long)]
    output_tokens: Option<u32>,
    /// Most tokens of prompt and answer together.
    #[arg(long, default_value_t = 131_072)]
    max_model_len: u32,
    /// Blocks of 16 tokens in the KV cache.
    #[arg(long, default_value_t = 16_384)]
    kv_blocks: usize,
    /// What /version answers.
    #[arg(long, default_value = VERSION)]
    engine_version: String,
    /// File that gets one JSON line each time the batch changes.
    #[arg(long)]
    batch_log: Option<PathBuf>,
    /// Faults that are on from the start, as JSON; see /simulator/faults.
    #[arg(long, value_parser = parse_faults, default_value = "{}")]
    faults: Faults,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let mut profile = arguments.profile;
    profile.max_num_seqs = arguments.max_num_seqs.unwrap_or(profile.max_num_seqs);
    let simulator = Simulator::new(SimulatorConfig {
        profile,
        model: arguments.model,
        output_tokens: arguments.output_tokens,
        max_model_len: arguments.max_model_len,
        kv_blocks: arguments.kv_blocks,
        version: arguments.engine_version,
        batch_log: arguments.batch_log,
        faults: arguments.faults,
        may_exit: true,
        ..SimulatorConfig::default()
    })?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _listening = match (arguments.socket, arguments.listen) {
        (Some(path), _) => simulator.listen_unix(&path)?,
        (None, Some(address)) => {
            let listening = simulator.listen_tcp(address).await?;
            if let Some(address) = listening.address() {
                println!("simulated engine on http://{address}/v1");
            }
            listening
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    Ok(tokio::select! {
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        () = simulator.exit_requested() => ExitCode::FAILURE,
    })
}

fn parse_faults(text: &str) -> Result<Faults, serde_json::Error> {
    serde_json::from_str(text)
}
