//! Set-up, tests, checks and generation: `cargo xtask help`.

mod args;
mod assets;
mod bench;
mod claims;
mod cluster;
mod compatibility;
mod dependencies;
mod error;
mod generate;
mod installed;
mod mutants;
mod process;
mod suite;
mod tools;
mod up;
mod workspace;

use std::{env, process::ExitCode};

use crate::{
    args::Arguments,
    error::{Error, Result},
};

const HELP: &str = "\
cargo xtask up       run everything on this machine and serve the OpenAI API on 127.0.0.1
    --port PORT              of the first tenant's proxy (8080); the others follow it
    --tenants N              one proxy each (1)
    --replicas N             enclaves (1)
    --engine NAME            llamacpp, a real model, or simulator (llamacpp)
    --padding on|off         fixed-size records at a fixed rate (on)
    --state DIR              keys, configurations and logs; kept afterwards
                             (without it a temporary folder, removed after a clean stop)
    --built                  use the programs as they are, without building them
cargo xtask test     run the tests
    --tier NAME              quick (minutes, no model), default (as CI) or full (hours)
    --only NAME              rust, or python: the tests with the official client
cargo xtask cluster  a real Kubernetes of two nodes on this machine (as root; Debian's containerd, Go)
    up                       from any state that an earlier one left; built once, in minutes
    down                     removes all of it
    load FILE.tar...         imports images into both nodes
    env                      prints KUBECONFIG and PATH (kubectl, helm) for a shell
cargo xtask gen      write the generated files, and look for the tests that documents name
    --check                  only compare them
cargo xtask deps     check layers, licences and sources of the dependencies
cargo xtask mutants  list changes of the code that no test notices
    --package NAME           of this package only
    --file GLOB              in these files only
cargo xtask bench    measure what sealing costs, with the release profile
    --quick                  only a look
    --only SECTIONS          of session,sealed,scheduler,real
    --json FILE              where the numbers go (bench.json in the build folder)
cargo xtask help     print this
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = Arguments::new(env::args_os().skip(1))?;
    if arguments.flag("--help") || arguments.flag("-h") {
        print!("{HELP}");
        return Ok(());
    }
    match arguments.subcommand().as_deref() {
        Some("up") => up::main(arguments),
        Some("test") => suite::main(arguments),
        Some("gen") => generate::main(arguments),
        Some("deps") => dependencies::main(arguments),
        Some("cluster") => cluster::main(arguments),
        Some("bench") => bench::main(arguments),
        Some("mutants") => mutants::main(arguments),
        Some("help") => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => Err(Error::usage(format!("unknown task {other:?}\n\n{HELP}"))),
        None => Err(Error::usage(format!("which task?\n\n{HELP}"))),
    }
}
