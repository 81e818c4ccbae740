//! What is counted. The operator reads these: no label tells one refusal of the seal from another, and none names a tenant
//! or a request.

use cloister_telemetry::metrics::Counter;

cloister_telemetry::labels! {
    /// How a request ended.
    pub(crate) enum RequestEnd("end") {
        /// Not opened: key or lease not there, worth another try.
        Deferred => "deferred",
        /// Not opened.
        Refused => "refused",
        /// Opened, and all of the answer sealed, whatever it says.
        Answered => "answered",
        /// Opened, and the answer was cut: nothing took it.
        Cut => "cut",
    }
}

cloister_telemetry::labels! {
    /// How the engine was emptied.
    pub(crate) enum ScrubKind("kind") {
        /// In its process, or by a new one where the configuration says so.
        Scrub => "scrub",
        /// By a new process, after a start, an exit or a failed scrub.
        Restart => "restart",
    }
}

cloister_telemetry::labels! {
    /// How that ended.
    pub(crate) enum ScrubEnd("end") {
        /// With a proof.
        Proven => "proven",
        /// Without one.
        Failed => "failed",
    }
}

/// Instruments of the enclave.
pub(crate) struct Metrics {
    requests: Counter<RequestEnd>,
    scrubs: Counter<(ScrubKind, ScrubEnd)>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = cloister_telemetry::meter();
        Self {
            requests: meter.counter("cloister.enclave.requests", "{request}", "Requests by how they ended."),
            scrubs: meter.counter(
                "cloister.enclave.scrubs",
                "{scrub}",
                "Scrubs of the engine by kind and end.",
            ),
        }
    }

    pub(crate) fn request(&self, end: RequestEnd) {
        self.requests.add(1, end);
    }

    pub(crate) fn scrub(&self, restart: bool, proven: bool) {
        let kind = if restart { ScrubKind::Restart } else { ScrubKind::Scrub };
        let end = if proven { ScrubEnd::Proven } else { ScrubEnd::Failed };
        self.scrubs.add(1, (kind, end));
    }
}
