//! `cloister dev`

use crate::args::{DevCommand, PkiArgs};
use crate::output::{Failed, Printer};
use cloister_transport::pki::{self, Existing, Outcome, Usage};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

pub(crate) fn run(command: &DevCommand, printer: &Printer) -> Result<(), Failed> {
    let DevCommand::Pki(args) = command;
    make_pki(args, printer)
}

fn make_pki(args: &PkiArgs, printer: &Printer) -> Result<(), Failed> {
    let created = pki::create(&args.dir, Existing::Keep).map_err(Failed::unusable)?;
    let mut made = vec![("ca".to_owned(), created)];
    let mut issue = |name: &str, subjects: &[String], usage| {
        let outcome = pki::issue(&args.dir, name, subjects, usage, Existing::Keep).map_err(Failed::unusable)?;
        made.push((name.to_owned(), outcome));
        Ok::<_, Failed>(())
    };
    for leaf in &args.server {
        issue(&leaf.name, &leaf.subjects, Usage::Server)?;
    }
    for leaf in &args.peer {
        issue(&leaf.name, &leaf.subjects, Usage::ServerAndClient)?;
    }
    for name in &args.client {
        issue(name, &[], Usage::Client)?;
    }
    report(&args.dir, &made, printer);
    Ok(())
}

fn report(dir: &Path, made: &[(String, Outcome)], printer: &Printer) {
    let mut text = String::new();
    let mut json = serde_json::Map::new();
    for (name, outcome) in made {
        let outcome = match outcome {
            Outcome::Created => "created",
            Outcome::Kept => "kept",
        };
        // Writing to a string has no error.
        let _ = writeln!(text, "{outcome:<8}{}", dir.join(format!("{name}.pem")).display());
        json.insert(name.clone(), outcome.into());
    }
    text.push_str("A throw-away authority, for trials and tests only.");
    printer.result(&text, &json!({ "directory": dir, "certificates": json }));
}
