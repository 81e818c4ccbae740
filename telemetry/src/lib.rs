//! Logs, traces and metrics of every binary.
//!
//! Nothing here may carry what a request says. Three rules hold that by construction rather than by care:
//!
//! - Other crates' events are capped at `warn` whatever the filter says: below it HTTP libraries log headers and bodies.
//! - A panic is logged as a place in the source, never with its message, which may quote what was being worked on. (A
//!   `tokio::task::JoinError` carries that message too: never log one.)
//! - A metric's labels are variants of enums whose values are constants; a string cannot become one ([`mod@labels`]).
//!
//! The project's own events are held to the same by review: no content, no tenants, no ids of requests.

mod filter;
pub mod labels;
pub mod metrics;
mod otlp;
mod panics;

use std::io::{self, IsTerminal};

use opentelemetry_sdk::trace::SdkTracer;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::FilterExt,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
};

pub use metrics::meter;
pub use panics::hide_panic_messages;

/// The filter when none is given.
pub const DEFAULT_FILTER: &str = "info";
/// Environment variable that names the collector when the options do not.
pub const OTLP_ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// How log lines look, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// What a binary's configuration says of telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Looks of the log.
    pub log_format: LogFormat,
    /// Directives as `tracing_subscriber::EnvFilter` reads them; [`DEFAULT_FILTER`] when `None`. They can lower, never
    /// raise, what other crates may log.
    pub log_filter: Option<String>,
    /// gRPC address of an OpenTelemetry collector, `http://host:port`; else the environment's
    /// [`OTLP_ENDPOINT_VARIABLE`]; else nothing is exported.
    pub otlp_endpoint: Option<String>,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse.
    #[error("the log filter does not parse: {0}; write it as `info,cloister_scheduler=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The collector's address is not `http://host:port`. Not quoted: such addresses tend to hold passwords.
    #[error(
        "the collector's address, from the options or {OTLP_ENDPOINT_VARIABLE}, is not of the form http://host:port; export to a collector on this host, which can add TLS"
    )]
    Endpoint,
    /// Exporting needs a runtime.
    #[error("telemetry that exports must start inside a tokio runtime; call `init` from async code")]
    NoRuntime,
    /// An exporter cannot be built.
    #[error("cannot export telemetry: {0}")]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
    /// What was left could not be exported.
    #[error("the last telemetry was not exported: {0}; check the collector")]
    Flush(String),
    /// `init` was called before, or something else set a subscriber.
    #[error("telemetry is set up already; call `init` once, in `main`")]
    AlreadySet,
}

/// Exports what is left when it goes, for which it blocks some seconds at most. Keep it in `main` until the end, and
/// prefer [`Guard::shutdown`]: on a runtime of one thread, dropping it waits for an export that cannot go on.
#[must_use = "telemetry ends when the guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    exporters: Option<otlp::Exporters>,
}

/// Sets up logging on standard error, the panic hook, and, where a collector is named, the export of traces and metrics
/// under the name `service`. Make instruments ([`meter`]) after it.
///
/// # Errors
///
/// See [`Error`]; on an error nothing is set up.
pub fn init(service: &'static str, options: &Options) -> Result<Guard, Error> {
    let exporters = otlp::endpoint(options.otlp_endpoint.as_deref())?
        .map(|endpoint| otlp::Exporters::new(service, &endpoint))
        .transpose()?;
    let tracer = exporters.as_ref().map(otlp::Exporters::tracer);
    let subscriber = subscriber(options, tracer, io::stderr, io::stderr().is_terminal())?;
    // Not `init()` of the subscriber, which would also take in the `log` crate's records: rustls writes peers' messages
    // there.
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::AlreadySet)?;
    hide_panic_messages(options.log_format);
    if let Some(exporters) = &exporters {
        exporters.install();
    }
    Ok(Guard { exporters })
}

// === impl Guard ===

impl Guard {
    /// Exports what is left and ends. Takes as long as the collector does, some seconds at most.
    ///
    /// # Errors
    ///
    /// [`Error::Flush`] when the collector did not take it.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        let Some(exporters) = self.exporters.take() else {
            return Ok(());
        };
        // It blocks, and needs the runtime to send.
        tokio::task::spawn_blocking(move || exporters.shutdown())
            .await
            .map_err(|_| Error::Flush("the export ended early".to_owned()))?
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(exporters) = self.exporters.take()
            && let Err(error) = exporters.shutdown()
        {
            tracing::warn!(%error, "telemetry was lost");
        }
    }
}

/// All layers, each under the same filter.
fn subscriber<W>(
    options: &Options,
    tracer: Option<SdkTracer>,
    writer: W,
    ansi: bool,
) -> Result<impl Subscriber + Send + Sync, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let directives = options.log_filter.as_deref().unwrap_or(DEFAULT_FILTER);
    let wanted = || EnvFilter::try_new(directives);
    let log = log_layer(options.log_format, writer, ansi).with_filter(wanted()?.and(filter::cap()));
    let traces = tracer
        .map(|tracer| {
            let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_threads(false);
            Ok::<_, Error>(layer.with_filter(wanted()?.and(filter::cap())))
        })
        .transpose()?;
    Ok(Registry::default().with(log).with(traces))
}

fn log_layer<S, W>(format: LogFormat, writer: W, ansi: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_ansi(ansi);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    }
}

#[cfg(test)]
mod tests;
