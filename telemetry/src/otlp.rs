//! Export to an OpenTelemetry collector.

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    metrics::SdkMeterProvider,
    trace::{SdkTracer, SdkTracerProvider},
};

use crate::{Error, OTLP_ENDPOINT_VARIABLE};

/// Instrumentation scope of everything that is exported.
pub(crate) const SCOPE: &str = "cloister";

/// The collector's address, from the options or the environment; an empty one means none.
pub(crate) fn endpoint(option: Option<&str>) -> Result<Option<String>, Error> {
    let variable = std::env::var(OTLP_ENDPOINT_VARIABLE).ok();
    let Some(endpoint) = option.or(variable.as_deref()).filter(|e| !e.is_empty()) else {
        return Ok(None);
    };
    // The exporter is built without TLS and would only fail later, at every export.
    let host = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '@', '?', '#']) => Ok(Some(endpoint.to_owned())),
        _ => Err(Error::Endpoint),
    }
}

#[derive(Debug)]
pub(crate) struct Exporters {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

// === impl Exporters ===

impl Exporters {
    pub(crate) fn new(service: &'static str, endpoint: &str) -> Result<Self, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::NoRuntime);
        }
        let resource = Resource::builder().with_service_name(service).build();
        let spans = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
        let points = MetricExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
        Ok(Exporters {
            traces: SdkTracerProvider::builder()
                .with_batch_exporter(spans)
                .with_resource(resource.clone())
                .build(),
            metrics: SdkMeterProvider::builder()
                .with_periodic_exporter(points)
                .with_resource(resource)
                .build(),
        })
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.traces.tracer(SCOPE)
    }

    /// Makes [`crate::meter`] export.
    pub(crate) fn install(&self) {
        global::set_meter_provider(self.metrics.clone());
    }

    /// Exports what is left; both are tried.
    pub(crate) fn shutdown(self) -> Result<(), Error> {
        let traces = self.traces.shutdown();
        let metrics = self.metrics.shutdown();
        traces.and(metrics).map_err(|error| {
            Error::Flush(match error {
                OTelSdkError::AlreadyShutdown => "it was shut down before".to_owned(),
                OTelSdkError::Timeout(limit) => format!("no answer within {limit:?}"),
                OTelSdkError::InternalFailure(reason) => reason,
            })
        })
    }
}
