//! `cloister collateral`

use super::runtime;
use crate::args::{CollateralCommand, FetchArgs, ShowArgs};
use crate::output::{Failed, Printer};
use cloister_attestation::UnixTime;
use cloister_client::clock;
use cloister_client::collateral::expiry::{Listing, State, listing, look};
use cloister_client::collateral::fetch::{Kept, Outcome, Sources, fetch};
use cloister_client::collateral::http::{Http, Limits};
use cloister_client::collateral::need::{self, MAX_BUNDLE_BYTES, Need};
use cloister_client::collateral::{PCS_URL, Store};
use cloister_client::files;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{IsTerminal, Write as _};

pub(crate) fn run(command: &CollateralCommand, printer: &Printer) -> Result<(), Failed> {
    match command {
        CollateralCommand::Fetch(args) if args.offline_check => check(args, printer),
        CollateralCommand::Fetch(args) => run_fetch(args, printer),
        CollateralCommand::Show(args) => show(args, printer),
    }
}

fn run_fetch(args: &FetchArgs, printer: &Printer) -> Result<(), Failed> {
    let needs = needs(args)?;
    let store = Store::create(&args.store).map_err(Failed::unusable)?;
    let http = Http::new(Limits::default()).map_err(Failed::running)?;
    let sources = sources(args)?;
    let mut progress = Progress::new();
    let outcomes = runtime()?.block_on(fetch(&store, &http, &sources, needs, |need| progress.tell(need)));
    progress.end();
    let now = clock::now();
    let lines: Vec<_> = outcomes.iter().map(|outcome| fetched(&store, outcome, now)).collect();
    let good = lines.iter().all(|(good, ..)| *good);
    let text: Vec<&str> = lines.iter().map(|(_, text, _)| text.as_str()).collect();
    let json: Vec<&Value> = lines.iter().map(|(.., json)| json).collect();
    printer.result(&text.join("\n"), &json!({ "complete": good, "fetched": json }));
    if good { Ok(()) } else { Err(Failed::check()) }
}

/// One line and one object for what became of a need.
fn fetched(store: &Store, outcome: &Outcome, now: UnixTime) -> (bool, String, Value) {
    let need = outcome.need.to_string();
    match &outcome.result {
        Ok((entry, kept)) => {
            let file = look(store, entry, now);
            let how = match kept {
                Kept::Fetched => "fetched",
                Kept::Already => "there already",
            };
            let text = format!("{} {need}: {how}, {}", mark(file.state), ends(&file));
            let json = json!({ "need": need, "already": *kept == Kept::Already, "file": file });
            (file.is_usable(), text, json)
        }
        Err(error) => {
            let json = json!({ "need": need, "error": error.to_string() });
            (false, format!("✗ {need}: {error}"), json)
        }
    }
}

/// Says what is needed and whether it is there, and asks nobody.
fn check(args: &FetchArgs, printer: &Printer) -> Result<(), Failed> {
    let store = Store::open(&args.store).map_err(Failed::unusable)?;
    let now = clock::now();
    let (mut good, mut text, mut list) = (true, String::new(), Vec::new());
    for need in needs(args)? {
        let entry = need.entry().map_err(Failed::unusable)?;
        let there = store.read(&entry).map_err(Failed::unusable)?.is_some();
        let file = there.then(|| look(&store, &entry, now));
        let usable = file.as_ref().is_some_and(Listing::is_usable);
        good &= usable;
        let (mark, state) = match &file {
            Some(file) => (mark(file.state), ends(file)),
            None => ("✗", "not in the store".to_owned()),
        };
        // Writing to a string has no error.
        let _ = writeln!(text, "{mark} {need}: {state}");
        list.push(json!({ "need": need.to_string(), "file": file }));
    }
    printer.result(&text, &json!({ "complete": good, "needed": list }));
    if good { Ok(()) } else { Err(Failed::check()) }
}

fn show(args: &ShowArgs, printer: &Printer) -> Result<(), Failed> {
    let store = Store::open(&args.store).map_err(Failed::unusable)?;
    let now = args.now.map_or_else(clock::now, |now| now.0);
    let files = listing(&store, now).map_err(Failed::unusable)?;
    let good = files.iter().all(Listing::is_usable);
    let mut text = String::new();
    for file in &files {
        let _ = writeln!(text, "{} {}: {}", mark(file.state), file.name, ends(file));
    }
    if files.is_empty() {
        text.push_str("The store is empty: fill it with `cloister collateral fetch`.");
    }
    printer.result(&text, &json!({ "good": good, "files": files }));
    if good { Ok(()) } else { Err(Failed::check()) }
}

/// What the command line asks for.
fn needs(args: &FetchArgs) -> Result<BTreeSet<Need>, Failed> {
    let mut needs = BTreeSet::new();
    for path in &args.bundles {
        let bytes = files::read_public(path, MAX_BUNDLE_BYTES).map_err(Failed::unusable)?;
        let found = need::of_bundle(&bytes, args.product)
            .map_err(|error| Failed::unusable(format!("{}: {error}", path.display())))?;
        needs.extend(found);
    }
    needs.extend(args.crl.iter().copied().flat_map(Need::amd_product));
    needs.extend(args.rim.iter().cloned().map(Need::Rim));
    needs.extend(args.fmspc.iter().map(|fmspc| Need::Intel {
        fmspc: fmspc.0,
        ca: args.ca,
    }));
    Ok(needs)
}

fn sources(args: &FetchArgs) -> Result<Sources, Failed> {
    let vendors = Sources::vendors().map_err(Failed::running)?;
    // A cache of Intel's service serves the root's list too; Intel serves it at another host.
    let own = args.intel_pcs.as_ref().is_none_or(|pcs| pcs.as_str() == PCS_URL);
    Ok(Sources {
        intel_root_crl: args
            .intel_root_crl
            .clone()
            .or_else(|| vendors.intel_root_crl.clone().filter(|_| own)),
        amd_kds: args.amd_kds.clone().unwrap_or(vendors.amd_kds),
        intel_pcs: args.intel_pcs.clone().unwrap_or(vendors.intel_pcs),
        nvidia_rim: args.nvidia_rim.clone().unwrap_or(vendors.nvidia_rim),
        nvidia_ocsp: args.nvidia_ocsp.clone().unwrap_or(vendors.nvidia_ocsp),
    })
}

const fn mark(state: State) -> &'static str {
    match state {
        State::Good => "✓",
        State::Soon => "!",
        State::Expired | State::Unusable => "✗",
    }
}

fn ends(file: &Listing) -> String {
    let date = file.date().unwrap_or_default();
    match (&file.reason, file.state) {
        (Some(reason), _) => reason.clone(),
        (None, State::Expired) => format!("EXPIRED {date}: fetch it again"),
        (None, State::Soon) => format!("holds until {date}, soon: fetch it again"),
        (None, _) => format!("holds until {date}"),
    }
}

/// One line on a terminal that is written over, and nothing in a pipe.
struct Progress {
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, need: &Need) {
        self.print(&format!("\r\x1b[2K{need} ..."));
    }

    fn end(&mut self) {
        self.print("\r\x1b[2K");
    }

    fn print(&self, text: &str) {
        if self.shown {
            let mut out = std::io::stderr();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}
