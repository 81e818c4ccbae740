//! `cargo xtask test`: every test of the repository, in three sizes.

mod counts;
mod fuzz;
mod scripts;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    str::FromStr,
    time::Instant,
};

use self::counts::{CargoTest, Counts, Line};
use crate::{
    args::Arguments,
    assets,
    error::{Context, Error, Result, bail},
    process, tools, up,
    workspace::{cache, cargo},
};

/// How much is tested.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tier {
    /// Everything that needs no real model: minutes.
    Quick,
    /// What CI runs: with the real engine and model, and with the official client in Python.
    Default,
    /// The same with many more generated cases: hours.
    Full,
}

/// One of the two kinds of tests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Rust,
    /// With the official OpenAI client.
    Python,
}

/// What the stages found, in their order.
#[derive(Default)]
struct Report {
    counts: Counts,
    skipped: Vec<String>,
    stages: Vec<(String, String)>,
}

/// Generated cases per property in the full tier; 256 is proptest's default.
const FULL_CASES: &str = "200000";

/// Runs the tests of `--tier` and prints the sums; the last line on standard output is `N passed, N failed, N skipped`.
///
/// # Errors
///
/// A test failed, or a stage could not be run.
pub(crate) fn main(mut arguments: Arguments) -> Result<()> {
    let tier = arguments.value("--tier")?.unwrap_or(Tier::Default);
    let only = arguments.value("--only")?;
    arguments.finish()?;

    let mut report = Report::default();
    let stopped = run(tier, only, &mut report).err();
    if stopped.is_some() {
        // What could not run did not pass.
        report.counts.failed = report.counts.failed.max(1);
    }
    report.print(stopped.as_ref());
    match report.counts.failed {
        0 => Ok(()),
        _ => bail!("not all tests passed"),
    }
}

fn run(tier: Tier, only: Option<Kind>, report: &mut Report) -> Result<()> {
    let wanted = |kind| only.is_none_or(|only| only == kind);
    if tier != Tier::Quick {
        report.stage("engine, model and client", |_| {
            tools::require(tools::TOOLS)?;
            assets::engine()?;
            assets::model()?;
            assets::openai_client()?;
            assets::result_reader().map(drop)
        })?;
    }
    report.stage("build", |_| {
        if !wanted(Kind::Rust) {
            return up::build();
        }
        // Tests start the programs of other packages, which cargo does not build for them. In one go with the tests, since
        // the features of dependencies differ without those that only tests have: it would all be built twice.
        process::run(cargo().args(["build", "--workspace", "--locked", "--bins", "--tests", "--examples"]))
    })?;
    // Failed tests do not keep the later stages from running: one run shows all that is wrong.
    let rust = match wanted(Kind::Rust) {
        true => report.stage("Rust tests", |report| cargo_test(tier, report)),
        false => Ok(()),
    };
    let python = match wanted(Kind::Python) && tier != Tier::Quick {
        true => report.stage("tests with the official client", scripts::run),
        false => Ok(()),
    };
    // Its first build takes as long as all else.
    let cluster = match wanted(Kind::Python) && tier == Tier::Full {
        true => report.stage("cluster", scripts::cluster),
        false => Ok(()),
    };
    let fuzz = match wanted(Kind::Rust) && tier == Tier::Full {
        true => report.stage("fuzzing", fuzz::run),
        false => Ok(()),
    };
    rust.and(python).and(cluster).and(fuzz)
}

fn cargo_test(tier: Tier, report: &mut Report) -> Result<()> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .env("CLOISTER_TEST_TIER", tier.name());
    if tier == Tier::Full {
        command.env("PROPTEST_CASES", FULL_CASES);
    }
    if tier != Tier::Quick {
        // Tests of the real engine run where this names a cache that has it.
        command.env("CLOISTER_CACHE", cache()?);
        // Without it the tests that compare with it say that they are skipped.
        match assets::signature_oracle() {
            Ok(folder) => drop(command.env("CLOISTER_RIM_ORACLE", folder)),
            Err(error) => eprintln!("no independent check of XML signatures: {error}"),
        }
    }
    command.args(["--", "--show-output"]);
    if tier == Tier::Full {
        command.arg("--include-ignored");
    }
    let mut reader = CargoTest::default();
    let success = lines(&mut command, |line| {
        if let Line::Shown(line) = reader.line(line) {
            println!("{line}");
        }
    })?;
    let (counts, skipped) = reader.finish();
    report.counts += counts;
    report.skipped.extend(skipped);
    if !success && counts.failed == 0 {
        bail!("cargo test failed, but no test did: see its output above");
    }
    Ok(())
}

/// Runs `command` and hands over each line of its standard output; whether it ended with success.
fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(format_args!("{name} cannot be started"))?;
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        // Not `lines`: a test may print what is not UTF-8.
        while stdout.read_until(b'\n', &mut line).context(&name)? > 0 {
            each(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
    }
    Ok(child.wait().context(&name)?.success())
}

// === impl Tier ===

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Default => "default",
            Self::Full => "full",
        }
    }
}

impl FromStr for Tier {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Quick, Self::Default, Self::Full]
            .into_iter()
            .find(|tier| tier.name() == text)
            .ok_or("the tiers are quick, default and full")
    }
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rust" => Ok(Self::Rust),
            "python" => Ok(Self::Python),
            _ => Err("the kinds are rust and python"),
        }
    }
}

// === impl Report ===

impl Report {
    fn stage<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = process::stage(name, || work(self));
        self.stages.push((name.to_owned(), process::seconds(started.elapsed())));
        result
    }

    fn print(&self, stopped: Option<&Error>) {
        println!();
        for (name, time) in &self.stages {
            println!("{name:<32} {time:>14}");
        }
        for reason in &self.skipped {
            println!("skipped {reason}");
        }
        if let Some(error) = stopped {
            println!("{error}");
        }
        println!("{}", self.counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_and_kinds_are_known_by_name() {
        assert_eq!("full".parse(), Ok(Tier::Full));
        assert!("fast".parse::<Tier>().is_err());
        assert_eq!("python".parse(), Ok(Kind::Python));
        assert!("go".parse::<Kind>().is_err());
    }

    #[test]
    fn lines_are_handed_over_with_the_verdict() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; printf 'two\\377'; exit 1"]);
        let mut seen = Vec::new();
        assert!(!lines(&mut command, |line| seen.push(line.to_owned())).unwrap());
        assert_eq!(seen, ["one", "two\u{fffd}"]);
    }
}
