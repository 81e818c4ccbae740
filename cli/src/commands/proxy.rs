//! `cloister proxy`

use super::runtime;
use crate::args::{LogArgs, LogFormat, ProxyArgs};
use crate::output::{Failed, Printer, RUN_FAILED};
use cloister_client::config::ProxyConfig;
use cloister_client::run::{self, RunError};
use cloister_telemetry::Options;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) fn run(args: &ProxyArgs, printer: &Printer) -> Result<(), Failed> {
    let config = ProxyConfig::load(&args.flags).map_err(Failed::unusable)?;
    keep_out_of_core_dumps()?;
    runtime()?.block_on(serve(&config, &args.log, printer))
}

async fn serve(config: &ProxyConfig, log: &LogArgs, printer: &Printer) -> Result<(), Failed> {
    let telemetry = cloister_telemetry::init("cloister-proxy", &options(log)).map_err(Failed::unusable)?;
    let stop = stop_signal().map_err(Failed::running)?;
    let listening = |address: std::net::SocketAddr| {
        let url = format!("http://{address}/v1");
        printer.result(&format!("listening {url}"), &json!({ "listening": url }));
    };
    let served = run::run(config, stop, listening).await;
    if let Err(error) = telemetry.shutdown().await {
        tracing::warn!(%error, "the last telemetry was lost");
    }
    served.map_err(|error| match error {
        RunError::Setup(_) => Failed::unusable(error),
        RunError::Serve(_) => Failed {
            code: RUN_FAILED,
            message: Some(error.to_string()),
        },
    })
}

/// Prompts are in this process's memory: no core dump may hold them, and no other process of the user may attach.
fn keep_out_of_core_dumps() -> Result<(), Failed> {
    let refused = |error| Failed::running(format!("core dumps cannot be switched off: {error}"));
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(refused)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)
}

fn options(log: &LogArgs) -> Options {
    Options {
        log_format: match log.log_format {
            LogFormat::Text => cloister_telemetry::LogFormat::Text,
            LogFormat::Json => cloister_telemetry::LogFormat::Json,
        },
        log_filter: log.log_filter.clone(),
        otlp_endpoint: log.otlp_endpoint.clone(),
    }
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
