//! `cloister-scheduler`.

use std::process::ExitCode;

use clap::Parser;
use cloister_scheduler::{config::Flags, run};

#[tokio::main]
async fn main() -> ExitCode {
    cloister_transport::install_crypto();
    Box::pin(run(Flags::parse())).await
}
