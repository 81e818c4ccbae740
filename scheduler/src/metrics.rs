//! What is counted. Labels are closed sets: no tenant, no request, no enclave.

use std::time::Duration;

use cloister_scheduler_core::Rejection;
use cloister_telemetry::metrics::{Counter, Histogram, UpDownCounter};

use crate::refusal::Code;

cloister_telemetry::labels! {
    /// How a command to an enclave ended.
    pub(crate) enum CommandResult("result") {
        /// It took effect.
        Applied => "applied",
        /// The enclave's state had moved on.
        Stale => "stale",
        /// No answer came.
        Failed => "failed",
    }
}

cloister_telemetry::labels! {
    /// What was commanded.
    pub(crate) enum CommandKind("command") {
        /// A lease.
        Grant => "grant",
        /// The end of one.
        Drain => "drain",
    }
}

cloister_telemetry::labels! {
    /// How a wait for a lease ended.
    pub(crate) enum WaitEnd("end") {
        /// Forwarded.
        Dispatched => "dispatched",
        /// Rejected, whatever for.
        Rejected => "rejected",
    }
}

/// Upper bounds in seconds, up to the longest time to live.
const SECONDS: &[f64] = &[
    0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];

#[derive(Debug)]
pub(crate) struct Metrics {
    answered: Counter<()>,
    refused: Counter<Code>,
    waited: Histogram<WaitEnd>,
    first_byte: Histogram<()>,
    retries: Counter<()>,
    running: UpDownCounter<()>,
    commands: Counter<(CommandKind, CommandResult)>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = cloister_telemetry::meter();
        Self {
            answered: meter.counter(
                "cloister.scheduler.answered",
                "{request}",
                "Requests whose answer began.",
            ),
            refused: meter.counter("cloister.scheduler.refused", "{request}", "Refused requests by code."),
            waited: meter.histogram(
                "cloister.scheduler.wait",
                "s",
                "Time in the queue, until dispatch or rejection.",
                SECONDS,
            ),
            first_byte: meter.histogram(
                "cloister.scheduler.first_byte",
                "s",
                "Time from dispatch to the first byte of the answer.",
                SECONDS,
            ),
            retries: meter.counter(
                "cloister.scheduler.retries",
                "{request}",
                "Requests that went back into the queue after an attempt.",
            ),
            running: meter.up_down_counter(
                "cloister.scheduler.running",
                "{request}",
                "Requests that an enclave has and whose answer has not ended.",
            ),
            commands: meter.counter(
                "cloister.scheduler.commands",
                "{command}",
                "Commands to enclaves by result.",
            ),
        }
    }

    pub(crate) fn refused(&self, code: Code) {
        self.refused.add(1, code);
    }

    pub(crate) fn waited(&self, time: Duration, rejection: Option<Rejection>) {
        let end = rejection.map_or(WaitEnd::Dispatched, |_| WaitEnd::Rejected);
        self.waited.record(time.as_secs_f64(), end);
    }

    pub(crate) fn answered(&self, first_byte: Duration) {
        self.answered.add(1, ());
        self.first_byte.record(first_byte.as_secs_f64(), ());
    }

    pub(crate) fn retried(&self) {
        self.retries.add(1, ());
    }

    pub(crate) fn running(&self, change: i64) {
        self.running.add(change, ());
    }

    pub(crate) fn command(&self, kind: CommandKind, result: CommandResult) {
        self.commands.add(1, (kind, result));
    }
}
