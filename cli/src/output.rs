//! What is printed, and how it ends.

use crate::args::Output;
use serde_json::Value;
use std::fmt::Display;

/// A check failed, or a receipt was refused.
pub(crate) const CHECK_FAILED: u8 = 1;
/// `appraise` was given what it cannot read.
pub(crate) const WRONG_INPUT: u8 = 2;
/// A file or the configuration cannot be used.
pub(crate) const UNUSABLE: u8 = 3;
/// The program failed while it ran.
pub(crate) const RUN_FAILED: u8 = 4;

/// A command that did not do what it should.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Exit code.
    pub(crate) code: u8,
    /// What to tell; nothing when the command has told it.
    pub(crate) message: Option<String>,
}

/// Prints results on standard output, errors on standard error.
pub(crate) struct Printer {
    output: Output,
}

// === impl Failed ===

impl Failed {
    pub(crate) fn unusable(error: impl Display) -> Self {
        Self {
            code: UNUSABLE,
            message: Some(error.to_string()),
        }
    }

    pub(crate) fn running(error: impl Display) -> Self {
        Self {
            code: RUN_FAILED,
            message: Some(error.to_string()),
        }
    }

    /// The output says it all.
    pub(crate) fn check() -> Self {
        Self {
            code: CHECK_FAILED,
            message: None,
        }
    }
}

// === impl Printer ===

impl Printer {
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    pub(crate) const fn output(&self) -> Output {
        self.output
    }

    /// Prints one result in the form that was asked for.
    pub(crate) fn result(&self, text: &str, json: &Value) {
        match self.output {
            Output::Text | Output::Jwt => println!("{}", text.trim_end()),
            Output::Json => println!("{json:#}"),
        }
    }

    pub(crate) fn error(&self, message: &str) {
        match self.output {
            Output::Text | Output::Jwt => eprintln!("error: {message}"),
            Output::Json => eprintln!("{}", serde_json::json!({ "error": message })),
        }
    }
}
