//! The `cloister` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloister_transport::install_crypto();
    cloister_cli::run()
}
