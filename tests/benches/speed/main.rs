//! `cargo xtask bench`: what sealing costs, as medians of one run. Nothing here passes or fails by a time.
//!
//! `--quick` takes a look in under a minute, `--json FILE` writes the run, `--only sealed,real,scheduler,session` picks
//! sections. The programs under test are those of this build's profile.

mod exchange;
mod latency;
mod machine;
mod report;
mod scheduler;
mod session;
mod statistics;
mod usage;

use std::{env, path::PathBuf, process::ExitCode};

use crate::{machine::Machine, report::Report};

/// What to measure.
#[derive(Default)]
struct Arguments {
    quick: bool,
    json: Option<PathBuf>,
    only: Option<Vec<String>>,
}

/// How often.
struct Counts {
    pairs: usize,
    padded_pairs: usize,
    real_pairs: usize,
    cold: usize,
    processor_rounds: usize,
    processor_batch: usize,
    waiting_rounds: usize,
    streams: usize,
    session: usize,
}

const FULL: Counts = Counts {
    pairs: 200,
    padded_pairs: 30,
    real_pairs: 6,
    cold: 10,
    processor_rounds: 20,
    processor_batch: 25,
    waiting_rounds: 3,
    streams: 10_000,
    session: 200,
};

const QUICK: Counts = Counts {
    pairs: 6,
    padded_pairs: 2,
    real_pairs: 1,
    cold: 1,
    processor_rounds: 3,
    processor_batch: 10,
    waiting_rounds: 1,
    streams: 1000,
    session: 20,
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("{what}; the options are --quick, --json FILE and --only sealed,real,scheduler,session");
            return ExitCode::from(2);
        }
    };
    let machine = Machine::describe();
    println!("{}", machine.summary());
    let mut report = Report::new(machine, arguments.quick);
    let counts = if arguments.quick { &QUICK } else { &FULL };
    measure(&mut report, counts, &arguments).await;
    match report.finish(arguments.json.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the JSON cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(report: &mut Report, counts: &Counts, arguments: &Arguments) {
    if arguments.wants("session") {
        session::all(report, counts.session);
    }
    if arguments.wants("sealed") {
        latency::simulated(report, false, counts.pairs, counts.cold).await;
        latency::simulated(report, true, counts.padded_pairs, 0).await;
    }
    if arguments.wants("scheduler") {
        scheduler::processor(report, counts.processor_rounds, counts.processor_batch).await;
        scheduler::waiting(report, counts.waiting_rounds, counts.streams).await;
    }
    if arguments.wants("real") {
        latency::real(report, counts.real_pairs).await;
    }
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => arguments.quick = true,
                "--json" => arguments.json = Some(value()?.into()),
                "--only" => arguments.only = Some(value()?.split(',').map(ToOwned::to_owned).collect()),
                // What cargo adds for every bench.
                "--bench" => {}
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        Ok(arguments)
    }

    fn wants(&self, section: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.iter().any(|name| name == section))
    }
}
