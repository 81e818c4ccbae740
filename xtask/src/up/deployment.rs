//! The running whole: set up in order, watched, stopped.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::{
    EngineKind, Options,
    child::{self, Child},
    config::{self, Engine, MODEL_NAME},
    identities::{self, Tenants},
    interrupts::{Event, Interrupts},
    ports::Ports,
    programs::Programs,
    ready::{self, Readiness},
    state::State,
};
use crate::{
    assets,
    error::{Result, bail},
};

/// Between the first start of a program and the first request that would succeed.
const READY_LIMIT: Duration = Duration::from_secs(180);
const READY_POLL: Duration = Duration::from_millis(200);
/// Between TERM and KILL: all is over within 5 s of a signal.
const GRACE: Duration = Duration::from_secs(3);
/// Member credentials live for an hour.
const RENEWAL: Duration = Duration::from_secs(30 * 60);
/// How often the wall clock is looked at, which goes on while the machine sleeps and other clocks do not.
const RENEWAL_POLL: Duration = Duration::from_secs(60);

/// Every program of Cloister, running and answering. Dropping it stops them.
pub(crate) struct Deployment {
    children: Vec<Child>,
    state: Option<State>,
    folder: PathBuf,
    base_urls: Vec<String>,
    tenants: Tenants,
    renew_at: SystemTime,
    interrupts: Interrupts,
}

impl Deployment {
    /// Starts everything and waits until a request of each tenant would succeed; none if a signal came before that.
    ///
    /// # Errors
    ///
    /// A program does not start, or dies.
    pub(crate) fn start(options: &Options, parts: Parts, interrupts: Interrupts) -> Result<Option<Self>> {
        let ports = Ports::choose(options)?;
        let state = State::open(options.state.as_deref())?;
        let folder = state.path().to_owned();
        let started = Self::start_in(options, interrupts, parts, &ports, state);
        if started.is_err() {
            eprintln!("configurations and logs are kept in {}", folder.display());
        }
        started
    }

    fn start_in(
        options: &Options,
        interrupts: Interrupts,
        parts: Parts,
        ports: &Ports,
        state: State,
    ) -> Result<Option<Self>> {
        let (tenants, plan) = set_up(options, ports, parts, &state)?;
        let logs = state.folder("logs")?;
        let mut deployment = Self {
            children: Vec::new(),
            folder: state.path().to_owned(),
            state: Some(state),
            base_urls: ports
                .proxies
                .iter()
                .map(|port| format!("http://127.0.0.1:{port}/v1"))
                .collect(),
            tenants,
            renew_at: SystemTime::now() + RENEWAL,
            interrupts,
        };
        for planned in plan {
            let log = logs.join(format!("{}.log", planned.name));
            deployment
                .children
                .push(Child::start(&planned.name, &planned.program, planned.arguments, log)?);
        }
        if deployment.await_ready(&ports.proxies)? {
            return Ok(Some(deployment));
        }
        deployment.stop()?;
        Ok(None)
    }

    /// Base URL of the OpenAI API of each tenant's proxy.
    pub(crate) fn base_urls(&self) -> &[String] {
        &self.base_urls
    }

    /// Folder of keys, configurations and logs.
    pub(crate) fn state(&self) -> &Path {
        &self.folder
    }

    /// Name under which the model is served.
    pub(crate) fn model_name(&self) -> &'static str {
        MODEL_NAME
    }

    /// Whether every process still runs.
    ///
    /// # Errors
    ///
    /// A process cannot be waited for.
    pub(crate) fn is_whole(&mut self) -> Result<bool> {
        for child in &mut self.children {
            if child.ended()?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps everything running until a signal asks to stop.
    ///
    /// # Errors
    ///
    /// A process died, or credentials cannot be renewed.
    pub(crate) fn supervise(&mut self) -> Result<()> {
        loop {
            if self.interrupts.wait(RENEWAL_POLL) == Event::Stop {
                return Ok(());
            }
            self.check_children()?;
            if self.renew_at <= SystemTime::now() {
                self.tenants.renew()?;
                self.renew_at = SystemTime::now() + RENEWAL;
            }
        }
    }

    /// Keeps the folder after the end, even a temporary one: its logs say what went wrong.
    pub(crate) fn keep_state(&mut self) {
        if self.state.take().is_some() {
            eprintln!("configurations and logs are kept in {}", self.folder.display());
        }
    }

    /// Stops every process, within seconds, and removes a temporary folder.
    ///
    /// # Errors
    ///
    /// A process cannot be waited for, or the folder cannot be removed.
    pub(crate) fn stop(mut self) -> Result<()> {
        let stopped = child::stop_all(&mut self.children, GRACE);
        self.children.clear();
        stopped?;
        self.state.take().map_or(Ok(()), State::close)
    }

    /// Waits until every proxy is ready; false if a signal came first.
    fn await_ready(&mut self, proxies: &[u16]) -> Result<bool> {
        let deadline = Instant::now() + READY_LIMIT;
        let mut waiting: Vec<_> = proxies.to_vec();
        let mut reason = String::new();
        loop {
            waiting.retain(|port| match ready::ask(*port) {
                Readiness::Ready => false,
                Readiness::NotYet(text) => {
                    reason = text;
                    true
                }
            });
            if waiting.is_empty() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                bail!("no request would succeed after {} s: {reason}", READY_LIMIT.as_secs());
            }
            if self.interrupts.wait(READY_POLL) == Event::Stop {
                return Ok(false);
            }
            self.check_children()?;
        }
    }

    fn check_children(&mut self) -> Result<()> {
        for child in &mut self.children {
            if child.ended()?.is_some() {
                bail!("{}", child.obituary());
            }
        }
        Ok(())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if let Err(error) = child::stop_all(&mut self.children, GRACE) {
            eprintln!("{error}");
        }
    }
}

/// A program to be started.
struct Planned {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// What is built and fetched before anything is started.
pub(crate) struct Parts {
    programs: Programs,
    engine: EngineFiles,
}

/// The engine's files, if it is not the simulator.
enum EngineFiles {
    LlamaCpp { wheel: PathBuf, model: PathBuf },
    Simulator,
}

impl Parts {
    /// Builds and fetches what `options` need.
    ///
    /// # Errors
    ///
    /// The programs do not build, or something cannot be fetched.
    pub(crate) fn gather(options: &Options) -> Result<Self> {
        // Before the minutes of a build, and once more after them.
        Ports::choose(options)?;
        let programs = if options.built {
            Programs::built()?
        } else {
            Programs::build()?
        };
        let engine = match options.engine {
            EngineKind::LlamaCpp => EngineFiles::LlamaCpp {
                wheel: assets::engine()?,
                model: assets::model()?,
            },
            EngineKind::Simulator => EngineFiles::Simulator,
        };
        Ok(Self { programs, engine })
    }
}

/// Makes identities and configurations, and says what is to be started, in this order.
fn set_up(options: &Options, ports: &Ports, parts: Parts, state: &State) -> Result<(Tenants, Vec<Planned>)> {
    let programs = &parts.programs;
    let confined = identities::confined(programs)?;
    let engine = match parts.engine {
        EngineFiles::LlamaCpp { wheel, model } => Engine::llama_cpp(wheel, model, options.replicas, confined)?,
        EngineFiles::Simulator => {
            let model = state.write(
                "simulated-model",
                "The simulator has no model; this file has a digest.\n",
            )?;
            Engine::simulator(programs.engine_simulator.clone(), model, confined)
        }
    };
    identities::infrastructure(state, programs)?;
    let mut plan = Vec::new();
    let mut planned = |name: String, program: &Path, subcommand: Option<&str>, config: serde_json::Value| {
        let path = state.write(&format!("{name}.yaml"), &config::yaml(&config)?)?;
        let options = ["--config".into(), path.clone().into_os_string()];
        let arguments = subcommand.map(OsString::from).into_iter().chain(options).collect();
        plan.push(Planned {
            name,
            program: program.to_owned(),
            arguments,
        });
        Result::Ok(path)
    };
    let mut measured = None;
    for (number, port) in (1..).zip(&ports.enclaves) {
        let name = format!("enclave-{number}");
        let runtime = state.folder(format!("run/{number}"))?;
        let config = config::enclave(number, *port, state, &runtime, &engine, options.padding);
        let path = planned(name, &programs.enclave, None, config)?;
        // The others run the same program with the same engine.
        if measured.is_none() {
            measured = Some(identities::measure(programs, &path)?);
        }
    }
    let Some(measured) = measured else {
        bail!("a deployment has at least one enclave")
    };
    let tenants = Tenants::create(state, programs, options.tenants, &measured)?;
    state.write("policy.yaml", &config::yaml(&config::policy(&measured, &engine))?)?;
    planned(
        "scheduler".to_owned(),
        &programs.scheduler,
        None,
        config::scheduler(ports, state, tenants.files()),
    )?;
    for (number, (port, tenant)) in (1..).zip(ports.proxies.iter().zip(tenants.files())) {
        let config = config::proxy(*port, ports, state, tenant, &measured);
        planned(format!("proxy-{number}"), &programs.cloister, Some("proxy"), config)?;
    }
    Ok((tenants, plan))
}
