//! What `cloister appraise` prints.

use std::fmt::Write;

use cloister_attestation::check::{Check, Finding, Trust, TrustVector};
use serde_json::{Map, Value, json};

/// An appraisal as it is shown.
pub(super) struct Report {
    pub(super) status: Trust,
    /// By name: `cpu0`, `gpu0` and so on.
    pub(super) parts: Vec<Part>,
    /// What was looked at across all parts.
    pub(super) common: Vec<Line>,
}

/// One part of an appraisal.
pub(super) struct Part {
    pub(super) name: String,
    /// What is printed after the name: that it is SIMULATED, for example.
    pub(super) label: String,
    pub(super) status: Trust,
    pub(super) vector: TrustVector,
    pub(super) claims: Value,
    pub(super) lines: Vec<Line>,
}

/// One thing that was looked at.
pub(super) struct Line {
    mark: Mark,
    what: String,
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Passed,
    Warned,
    Refused,
    NotAppraised,
}

// === impl Report ===

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            heading(&mut text, &part.name, &part.label, part.status);
            part.lines.iter().for_each(|line| line.write(&mut text));
            text.push('\n');
        }
        if !self.common.is_empty() {
            text.push_str("together\n");
            self.common.iter().for_each(|line| line.write(&mut text));
            text.push('\n');
        }
        // Writing to a string has no error, here and below.
        let _ = write!(text, "status: {}", self.status);
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let parts = self.parts.iter().map(|part| {
            let shown = json!({
                "status": part.status.as_str(),
                "trustworthiness": part.vector,
                "claims": part.claims,
                "reasons": reasons(&part.lines),
            });
            (part.name.clone(), shown)
        });
        json!({
            "status": self.status.as_str(),
            "submods": parts.collect::<Map<_, _>>(),
            "reasons": reasons(&self.common),
        })
    }
}

fn heading(text: &mut String, name: &str, label: &str, status: Trust) {
    let _ = writeln!(text, "{name}  {label}: {status}");
}

fn reasons(lines: &[Line]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.reason.as_deref()).collect()
}

// === impl Line ===

impl Line {
    pub(super) fn of<R: ToString>(check: &Check<R>) -> Self {
        let (mark, reason) = match &check.finding {
            Finding::Passed => (Mark::Passed, None),
            Finding::Warned(reason) => (Mark::Warned, Some(reason.to_string())),
            Finding::Refused(reason) => (Mark::Refused, Some(reason.to_string())),
            Finding::NotAppraised => (Mark::NotAppraised, None),
        };
        Self {
            mark,
            what: check.what.to_string(),
            reason,
        }
    }

    fn write(&self, text: &mut String) {
        let _ = write!(text, "  {} {}", self.mark.as_str(), printable(&self.what));
        match &self.reason {
            Some(reason) => _ = writeln!(text, ": {}", printable(reason)),
            None if self.mark == Mark::NotAppraised => text.push_str(": not appraised\n"),
            None => text.push('\n'),
        }
    }
}

/// On one line, and without what a terminal would obey: a reason may quote evidence.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

// === impl Mark ===

impl Mark {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "✓",
            Self::Warned => "!",
            Self::Refused => "✗",
            Self::NotAppraised => "-",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_attestation::check::{Checks, Dimension};

    fn report() -> Report {
        let mut checks = Checks::new();
        checks.require(Dimension::Hardware, "signature", Ok(()));
        checks.prefer(
            Dimension::Configuration,
            "privilege level",
            Err("it is 1\u{1b}[2J".to_owned()),
        );
        checks.require(Dimension::Configuration, "debug", Err("debug is on".to_owned()));
        checks.skip(Dimension::Executables, "measurement");
        Report {
            status: checks.trust(),
            parts: vec![Part {
                name: "cpu0".to_owned(),
                label: "AMD SEV-SNP".to_owned(),
                status: checks.trust(),
                vector: checks.vector(),
                claims: json!({"vmpl": 1}),
                lines: checks.iter().map(Line::of).collect(),
            }],
            common: Vec::new(),
        }
    }

    #[test]
    fn each_check_is_one_line_with_its_mark_and_reason() {
        let text = report().text();
        let expected = "cpu0  AMD SEV-SNP: contraindicated\n  ✓ signature\n  ! privilege level: it is 1?[2J\n  \
                        ✗ debug: debug is on\n  - measurement: not appraised\n\nstatus: contraindicated";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_the_documented_shape() {
        let json = report().json();
        let cpu = &json["submods"]["cpu0"];
        assert_eq!(
            (&json["status"], &cpu["status"]),
            (&"contraindicated".into(), &"contraindicated".into())
        );
        assert_eq!(cpu["trustworthiness"]["hardware"], 2);
        assert_eq!(cpu["trustworthiness"]["executables"], 0);
        assert_eq!(cpu["trustworthiness"]["configuration"], 96);
        assert_eq!(cpu["claims"]["vmpl"], 1);
        assert_eq!(cpu["reasons"], json!(["it is 1\u{1b}[2J", "debug is on"]));
    }
}
