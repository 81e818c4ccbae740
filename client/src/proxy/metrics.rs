//! Counters of the surface. Labels are the endpoint and a code of a closed list: no model, no tenant, no id.

use crate::openai::Endpoint;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use std::time::Instant;

pub(super) struct Metrics {
    calls: Counter<u64>,
    in_flight: UpDownCounter<i64>,
    first_byte: Histogram<f64>,
}

/// One call, from its admission to the end of its answer.
pub(super) struct Observed {
    endpoint: Endpoint,
    started: Instant,
    calls: Counter<u64>,
    in_flight: UpDownCounter<i64>,
    first_byte: Option<Histogram<f64>>,
    outcome: &'static str,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let meter = opentelemetry::global::meter("cloister-proxy");
        Self {
            calls: meter
                .u64_counter("cloister.proxy.calls")
                .with_description("Calls by endpoint and outcome")
                .build(),
            in_flight: meter
                .i64_up_down_counter("cloister.proxy.in_flight")
                .with_description("Calls admitted and not yet answered to their end")
                .build(),
            first_byte: meter
                .f64_histogram("cloister.proxy.first_byte")
                .with_unit("s")
                .with_description("Time from a call to the head of its answer")
                .build(),
        }
    }

    pub(super) fn observe(&self, endpoint: Endpoint) -> Observed {
        self.in_flight.add(1, &[]);
        Observed {
            endpoint,
            started: Instant::now(),
            calls: self.calls.clone(),
            in_flight: self.in_flight.clone(),
            first_byte: Some(self.first_byte.clone()),
            outcome: "cancelled",
        }
    }
}

impl Observed {
    /// The head of the answer is there.
    pub(super) fn head(&mut self) {
        if let Some(histogram) = self.first_byte.take() {
            histogram.record(
                self.started.elapsed().as_secs_f64(),
                &[KeyValue::new("endpoint", self.endpoint.name())],
            );
        }
    }

    /// How the call ended. Without this it was cancelled by the client.
    pub(super) fn outcome(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.in_flight.add(-1, &[]);
        self.calls.add(
            1,
            &[
                KeyValue::new("endpoint", self.endpoint.name()),
                KeyValue::new("outcome", self.outcome),
            ],
        );
        tracing::debug!(endpoint = self.endpoint.name(), outcome = self.outcome, "call ended");
    }
}
