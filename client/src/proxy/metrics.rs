//! Counters of the surface. Labels are the endpoint and a code of a closed list: no model, no tenant, no id.

use crate::failure::Code;
use crate::openai::Endpoint;
use cloister_telemetry::labels;
use cloister_telemetry::labels::Label;
use cloister_telemetry::metrics::{Counter, Histogram, UpDownCounter};
use std::time::Instant;

labels! {
    /// Where a call was sent.
    enum Route("endpoint") {
        /// Chat completions.
        ChatCompletions => "chat_completions",
        /// Responses.
        Responses => "responses",
        /// Completions.
        Completions => "completions",
        /// Embeddings.
        Embeddings => "embeddings",
    }
}

/// How a call ended.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// With a whole answer.
    Answered,
    /// The enclave's API refused the request.
    Refused,
    /// The enclave's API reported an error of its own.
    Failed5xx,
    /// The client went away.
    Cancelled,
    /// The proxy gave an error.
    Failed(Code),
}

/// Outcomes that are not codes.
const OWN: [&str; 4] = ["answered", "refused_by_enclave", "failed_in_enclave", "cancelled"];

const OUTCOMES: [&str; OWN.len() + Code::ALL.len()] = {
    let mut names = [""; OWN.len() + Code::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = if index < OWN.len() {
            OWN[index]
        } else {
            Code::ALL[index - OWN.len()].as_str()
        };
        index += 1;
    }
    names
};

/// Upper bounds of the time to the head of an answer, seconds.
const FIRST_BYTE_BOUNDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

pub(super) struct Metrics {
    calls: Counter<(Route, Outcome)>,
    in_flight: UpDownCounter<Route>,
    first_byte: Histogram<Route>,
}

/// One call, from its admission to the end of its answer.
pub(super) struct Observed {
    route: Route,
    started: Instant,
    calls: Counter<(Route, Outcome)>,
    in_flight: UpDownCounter<Route>,
    first_byte: Option<Histogram<Route>>,
    outcome: Outcome,
}

// === impl Outcome ===

impl Outcome {
    /// Of an answer that the enclave gave.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Answered,
            400..=499 => Self::Refused,
            _ => Self::Failed5xx,
        }
    }
}

impl Label for Outcome {
    const KEY: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &OUTCOMES;

    fn index(self) -> usize {
        match self {
            Self::Answered => 0,
            Self::Refused => 1,
            Self::Failed5xx => 2,
            Self::Cancelled => 3,
            Self::Failed(code) => OWN.len().saturating_add(code as usize),
        }
    }
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new() -> Self {
        let meter = cloister_telemetry::meter();
        Self {
            calls: meter.counter("cloister.proxy.calls", "{call}", "Calls by endpoint and outcome."),
            in_flight: meter.up_down_counter(
                "cloister.proxy.in_flight",
                "{call}",
                "Calls admitted and not yet answered to their end.",
            ),
            first_byte: meter.histogram(
                "cloister.proxy.first_byte",
                "s",
                "Time from a call to the head of its answer.",
                FIRST_BYTE_BOUNDS,
            ),
        }
    }

    pub(super) fn observe(&self, endpoint: Endpoint) -> Observed {
        let route = match endpoint {
            Endpoint::ChatCompletions => Route::ChatCompletions,
            Endpoint::Responses => Route::Responses,
            Endpoint::Completions => Route::Completions,
            Endpoint::Embeddings => Route::Embeddings,
        };
        self.in_flight.add(1, route);
        Observed {
            route,
            started: Instant::now(),
            calls: self.calls.clone(),
            in_flight: self.in_flight.clone(),
            first_byte: Some(self.first_byte.clone()),
            outcome: Outcome::Cancelled,
        }
    }
}

// === impl Observed ===

impl Observed {
    /// The head of the answer is there.
    pub(super) fn head(&mut self) {
        if let Some(histogram) = self.first_byte.take() {
            histogram.record(self.started.elapsed().as_secs_f64(), self.route);
        }
    }

    /// How the call ended. Without this it was cancelled by the client.
    pub(super) fn outcome(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.in_flight.add(-1, self.route);
        self.calls.add(1, (self.route, self.outcome));
        tracing::debug!(
            endpoint = self.route.value(),
            outcome = self.outcome.value(),
            "call ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name_as_a_label() {
        for code in Code::ALL {
            assert_eq!(Outcome::Failed(*code).value(), code.as_str());
        }
        assert_eq!(Outcome::Cancelled.value(), "cancelled");
    }
}
