//! Command line of Cloister: thin, over the client library.

mod args;
mod commands;
mod output;

use args::{Cli, Command, Output};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use output::{Failed, Printer};
use std::process::ExitCode;

/// Parses the command line, runs what it says, and gives the documented exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if cli.output == Output::Jwt && !matches!(cli.command, Command::Appraise(_)) {
        let message = "--output jwt is for appraise only";
        Cli::command().error(ErrorKind::InvalidValue, message).exit();
    }
    let printer = Printer::new(cli.output);
    let outcome = match cli.command {
        Command::Proxy(args) => commands::proxy::run(&args, &printer),
        Command::Doctor(args) => commands::doctor::run(&args, &printer),
        Command::Tenant { dir, command } => commands::tenant::run(dir.as_deref(), command, &printer),
        Command::Receipt { command } => commands::receipt::run(&command, &printer),
        Command::Appraise(args) => commands::appraise::run(&args, &printer),
        Command::Collateral { command } => commands::collateral::run(&command, &printer),
        Command::Dev { command } => commands::dev::run(&command, &printer),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { code, message }) => {
            if let Some(message) = message {
                printer.error(&message);
            }
            ExitCode::from(code)
        }
    }
}
