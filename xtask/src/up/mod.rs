//! `cargo xtask up`: every program of Cloister on this machine, each a process of its own, behind the OpenAI API.

mod child;
mod config;
mod deployment;
mod identities;
mod interrupts;
mod ports;
mod programs;
mod ready;
mod state;

use std::{num::NonZeroU16, path::PathBuf, str::FromStr};

use self::programs::Programs;
pub(crate) use self::{
    deployment::{Deployment, Parts},
    interrupts::Interrupts,
};
use crate::{
    args::Arguments,
    assets,
    error::{Error, Result},
    tools,
};

/// More would only fight for the cores of one machine.
const MAX_TENANTS: u16 = 64;
const MAX_REPLICAS: u16 = 16;
const DEFAULT_PORT: u16 = 8080;

/// What is to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    /// Port of the first tenant's proxy; the others have the next ones. Without it each proxy gets some free port.
    port: Option<NonZeroU16>,
    tenants: u16,
    replicas: u16,
    engine: EngineKind,
    /// Answers in fixed-size records at a fixed rate.
    padding: bool,
    /// Where keys, configurations and logs are kept; without it in a temporary folder.
    state: Option<PathBuf>,
    /// Whether the programs have been built.
    built: bool,
}

/// Which engine the enclaves own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EngineKind {
    LlamaCpp,
    Simulator,
}

/// Runs until a signal arrives or a process dies.
///
/// # Errors
///
/// Something is missing, does not start, or dies.
pub(crate) fn main(mut arguments: Arguments) -> Result<()> {
    let options = Options::parse(&mut arguments)?;
    arguments.finish()?;
    tools::require(tools::TOOLS)?;
    // Before there are children to stop in order, a signal ends this process, and what it runs with it.
    let parts = Parts::gather(&options)?;
    let Some(mut deployment) = Deployment::start(&options, parts, Interrupts::install()?)? else {
        return Ok(());
    };
    announce(&deployment);
    let ended = deployment.supervise();
    if ended.is_err() {
        deployment.keep_state();
    }
    let stopped = deployment.stop();
    ended.and(stopped)
}

/// Builds the programs that a deployment consists of.
///
/// # Errors
///
/// They do not build.
pub(crate) fn build() -> Result<()> {
    Programs::build().map(drop)
}

/// Prints what the caller can paste; nothing else of this task goes to standard output.
fn announce(deployment: &Deployment) {
    for base_url in deployment.base_urls() {
        println!("ready {base_url}");
    }
    let Some(base_url) = deployment.base_urls().first() else {
        return;
    };
    let model = deployment.model_name();
    println!("{}", curl_line(base_url, model));
    // Offline with the simulator nothing else has to be fetched: then the line is for a client that is installed already.
    let client = assets::openai_client()
        .map_err(|error| eprintln!("the OpenAI client cannot be fetched: {error}"))
        .ok();
    println!(
        "{}",
        python_line(base_url, model, client.as_deref().and_then(|path| path.to_str()))
    );
    eprintln!("keys, configurations and logs: {}", deployment.state().display());
    eprintln!("trusted execution environment: SIMULATED, so nothing here is protected from this machine's owner");
    eprintln!("stop with Ctrl-C");
}

fn curl_line(base_url: &str, model: &str) -> String {
    let body = serde_json::json!({
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    });
    format!("curl {base_url}/chat/completions --header 'content-type: application/json' --data '{body}'")
}

fn python_line(base_url: &str, model: &str, client: Option<&str>) -> String {
    let path = client
        .map(|client| format!("PYTHONPATH='{client}' "))
        .unwrap_or_default();
    format!(
        "{path}python3 -c 'from openai import OpenAI; \
         client = OpenAI(base_url=\"{base_url}\", api_key=\"none\"); \
         print(client.chat.completions.create(model=\"{model}\", \
         messages=[{{\"role\": \"user\", \"content\": \"What is the capital of France?\"}}]).choices[0].message.content)'"
    )
}

// === impl Options ===

impl Options {
    /// Reads the options of `up`.
    ///
    /// # Errors
    ///
    /// A value that cannot be used.
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self> {
        let options = Self {
            port: Some(
                arguments
                    .value("--port")?
                    .unwrap_or(NonZeroU16::new(DEFAULT_PORT).unwrap_or(NonZeroU16::MAX)),
            ),
            tenants: arguments.value("--tenants")?.unwrap_or(1),
            replicas: arguments.value("--replicas")?.unwrap_or(1),
            engine: arguments.value("--engine")?.unwrap_or(EngineKind::LlamaCpp),
            padding: match arguments.value::<String>("--padding")?.as_deref() {
                None | Some("on") => true,
                Some("off") => false,
                Some(other) => return Err(Error::usage(format!("--padding cannot be {other:?}: on or off"))),
            },
            state: arguments.value("--state")?,
            built: arguments.flag("--built"),
        };
        for (name, value, most) in [
            ("--tenants", options.tenants, MAX_TENANTS),
            ("--replicas", options.replicas, MAX_REPLICAS),
        ] {
            if !(1..=most).contains(&value) {
                return Err(Error::usage(format!("{name} cannot be {value}: from 1 to {most}")));
            }
        }
        if options
            .port
            .is_some_and(|port| port.checked_add(options.tenants - 1).is_none())
        {
            return Err(Error::usage(
                "--port leaves no ports for the other tenants: choose a lower one",
            ));
        }
        Ok(options)
    }

    /// The same on ports that nothing else uses.
    pub(crate) fn on_free_ports(self) -> Self {
        Self { port: None, ..self }
    }

    /// The same with programs that have been built already.
    pub(crate) fn built(self) -> Self {
        Self { built: true, ..self }
    }
}

impl FromStr for EngineKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "llamacpp" => Ok(Self::LlamaCpp),
            "simulator" => Ok(Self::Simulator),
            _ => Err("the engines are llamacpp and simulator"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&mut Arguments::new(line.split_whitespace().map(OsString::from)).unwrap())
    }

    #[test]
    fn defaults_are_one_of_each_with_the_real_engine() {
        let options = parse("").unwrap();
        assert_eq!(options.port.map(NonZeroU16::get), Some(8080));
        assert_eq!((options.tenants, options.replicas, options.padding), (1, 1, true));
        assert!(!options.built && parse("--built").unwrap().built);
        assert_eq!(options.engine, EngineKind::LlamaCpp);
        assert_eq!(options.on_free_ports().port, None);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for line in [
            "--tenants 0",
            "--tenants 65",
            "--replicas 0",
            "--port 0",
            "--padding maybe",
            "--engine gpt",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(parse("--port 65535").is_ok());
        assert!(parse("--port 65535 --tenants 2").is_err());
    }

    #[test]
    fn pasted_lines_are_valid_shell() {
        for line in [
            curl_line("http://127.0.0.1:1/v1", "m"),
            python_line("http://127.0.0.1:1/v1", "m", Some("/c")),
        ] {
            let status = std::process::Command::new("sh")
                .args(["-n", "-c", &line])
                .status()
                .unwrap();
            assert!(status.success(), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }
}
