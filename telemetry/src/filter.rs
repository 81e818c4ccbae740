//! What other crates may log.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Prefix of the targets of the project's own crates.
const OWN: &str = "cloister";

/// Lets the project's own events through and caps everybody else's at `warn`. A list of who is trusted, not of who is
/// not: a new dependency starts capped.
pub(crate) fn cap() -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target(OWN, LevelFilter::TRACE)
}
