//! `cloister-enclave`.

use std::process::ExitCode;

use clap::Parser;
use cloister_enclave::cli::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    cloister_transport::install_crypto();
    run(Cli::parse()).await
}
