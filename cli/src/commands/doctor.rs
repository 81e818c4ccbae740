//! `cloister doctor`

use super::runtime;
use crate::args::DoctorArgs;
use crate::output::{Failed, Printer};
use cloister_client::config::ProxyConfig;
use cloister_client::doctor::{Check, Report, Status, examine};
use serde_json::json;
use std::fmt::Write;

pub(crate) fn run(args: &DoctorArgs, printer: &Printer) -> Result<(), Failed> {
    let report = match ProxyConfig::load(&args.flags) {
        Ok(config) => runtime()?.block_on(examine(&config)),
        Err(error) => Report::without_configuration(&error),
    };
    printer.result(
        &text(&report),
        &json!({ "good": report.is_good(), "checks": report.checks }),
    );
    if report.is_good() { Ok(()) } else { Err(Failed::check()) }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for Check {
        name,
        status,
        detail,
        advice,
    } in &report.checks
    {
        let mark = match status {
            Status::Ok => "✓",
            Status::Warning => "!",
            Status::Failed => "✗",
            Status::Skipped => "-",
        };
        // Writing to a string has no error.
        let _ = writeln!(text, "{mark} {name:<20}{detail}");
        if let Some(advice) = advice {
            let _ = writeln!(text, "{:<22}-> {advice}", "");
        }
    }
    let verdict = if report.is_good() {
        "Requests will succeed."
    } else {
        "Requests will fail."
    };
    let _ = write!(text, "\n{verdict}");
    text
}
