//! What an owned engine is set to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloister_attestation::SwitchIsolation;

use crate::arguments::OperatorOptions;
use crate::error::{Changed, StartError};
use crate::image::LLAMACPP_LAUNCHER;
use crate::program;

/// Placeholder of the engine's socket in arguments.
pub(crate) const SOCKET: &str = "{socket}";
/// Placeholder of the slot directory in arguments. An engine whose arguments lack it gets none.
pub(crate) const SLOTS: &str = "{slots}";
/// Placeholder of the launcher's source in arguments.
const LAUNCHER: &str = "{launcher}";
/// Placeholder of a program that is given as a path of the configuration.
const PROGRAM: &str = "{program}";

/// How to run an engine, and within which limits.
///
/// Arguments hold placeholders instead of paths, so that [`measured_arguments`](Self::measured_arguments) are the same on
/// every machine: `{socket}`, `{slots}`, `{launcher}`, and one for each key of `paths`.
#[derive(Debug, Clone)]
pub struct OwnedEngineConfig {
    /// The program: a name that is looked up, a path, or `{program}`.
    pub program: String,
    /// Arguments that the enclave itself gives.
    pub arguments: Vec<String>,
    /// Arguments of the operator; only those of `operator_options` are taken.
    pub operator_arguments: Vec<String>,
    /// Which arguments the operator may give.
    pub operator_options: OperatorOptions,
    /// Variables that the enclave itself gives. Nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Variables of the operator; only those that [`check_environment`](crate::check_environment) lets pass are taken.
    pub operator_environment: BTreeMap<String, String>,
    /// Files and directories that the engine reads, by placeholder name. In full confinement it sees them read-only.
    pub paths: BTreeMap<String, PathBuf>,
    /// Directory for the socket and the process record; made with mode 0700. One per enclave.
    pub runtime_dir: PathBuf,
    /// User of the engine; of use only when the enclave runs as root. One of its own per replica.
    pub user: EngineUser,
    /// How the engine is emptied between tenants.
    pub isolation: SwitchIsolation,
    /// Asked before every start of a process, whatever it is for.
    pub precondition: Precondition,
    /// Whether the model takes images, for engines that do not say. Such a model is scrubbed by restart only.
    pub vision: bool,
    /// Whether an engine may run that is not fully confined; it is confined as far as the enclave's rights reach in any case.
    pub weak_confinement: bool,
    /// Limits of waiting.
    pub timeouts: Timeouts,
}

/// What has to hold before a process is started: that engine and model are still what was measured.
///
/// It may read files for minutes; it runs where blocking is allowed.
#[derive(Clone)]
pub struct Precondition(Arc<dyn Fn() -> Result<(), Changed> + Send + Sync>);

impl Precondition {
    /// Holds when `check` says so.
    pub fn new(check: impl Fn() -> Result<(), Changed> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// Whether it holds now; not if the check panics.
    pub(crate) async fn holds(&self) -> Result<(), Changed> {
        let check = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || check())
            .await
            .unwrap_or(Err(Changed))
    }
}

impl Default for Precondition {
    /// Always holds: for an engine that nobody was promised.
    fn default() -> Self {
        Self::new(|| Ok(()))
    }
}

impl fmt::Debug for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Precondition")
    }
}

/// User and group ids of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineUser {
    /// User id; never that of the enclave or of another replica.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Default for EngineUser {
    /// `nobody`, for a machine with one replica.
    fn default() -> Self {
        Self {
            uid: 65_534,
            gid: 65_534,
        }
    }
}

/// Limits of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the spawn to the first ready answer. Loading weights takes long.
    pub start: Duration,
    /// From TERM to KILL.
    pub stop: Duration,
    /// For a connection to the socket.
    pub connect: Duration,
    /// From the request to the head of the answer: for an answer that is not streamed, the whole generation.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// For a whole answer of a control route.
    pub control: Duration,
    /// For the engine to become idle after its last call has ended.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(600),
            stop: Duration::from_secs(3),
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(120),
            control: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

impl OwnedEngineConfig {
    /// llama.cpp's server out of an unpacked xllamacpp wheel, through the built-in launcher.
    ///
    /// The operator's arguments are the launcher's: `--parallel`, `--context`, `--threads`.
    #[must_use]
    pub fn llamacpp(wheel: PathBuf, model: PathBuf, runtime_dir: PathBuf, operator_arguments: Vec<String>) -> Self {
        let arguments = ["-I", "-B", "-c", LAUNCHER, "--wheel", "{wheel}", "--model", "{model}"];
        let arguments = arguments.into_iter().chain(["--socket", SOCKET, "--slots-dir", SLOTS]);
        Self {
            program: "python3".to_owned(),
            arguments: arguments.map(ToOwned::to_owned).collect(),
            operator_arguments,
            paths: BTreeMap::from([("wheel".to_owned(), wheel), ("model".to_owned(), model)]),
            ..Self::bare(runtime_dir, OperatorOptions::LlamaCpp)
        }
    }

    /// The simulated engine.
    #[must_use]
    pub fn simulator(program: PathBuf, runtime_dir: PathBuf, operator_arguments: Vec<String>) -> Self {
        Self {
            program: PROGRAM.to_owned(),
            arguments: vec!["--socket".to_owned(), SOCKET.to_owned()],
            operator_arguments,
            paths: BTreeMap::from([("program".to_owned(), program)]),
            ..Self::bare(runtime_dir, OperatorOptions::Simulator)
        }
    }

    /// A vLLM server. `program` is its command, outside of `paths`: a virtual environment must be readable to the engine.
    #[must_use]
    pub fn vllm(program: String, model: PathBuf, runtime_dir: PathBuf, operator_arguments: Vec<String>) -> Self {
        let arguments = [
            "serve",
            "{model}",
            "--uds",
            SOCKET,
            "--enable-prompt-tokens-details",
            "--mm-processor-cache-gb",
            "0",
        ];
        let environment = [
            ("VLLM_SERVER_DEV_MODE", "1"),
            ("VLLM_NO_USAGE_STATS", "1"),
            ("VLLM_LOGGING_LEVEL", "ERROR"),
            ("DO_NOT_TRACK", "1"),
            ("HF_HUB_OFFLINE", "1"),
        ];
        Self {
            program,
            arguments: arguments.into_iter().map(ToOwned::to_owned).collect(),
            operator_arguments,
            environment: environment
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            paths: BTreeMap::from([("model".to_owned(), model)]),
            ..Self::bare(runtime_dir, OperatorOptions::Vllm)
        }
    }

    fn bare(runtime_dir: PathBuf, operator_options: OperatorOptions) -> Self {
        Self {
            program: String::new(),
            arguments: Vec::new(),
            operator_arguments: Vec::new(),
            operator_options,
            environment: BTreeMap::new(),
            operator_environment: BTreeMap::new(),
            paths: BTreeMap::new(),
            runtime_dir,
            user: EngineUser::default(),
            isolation: SwitchIsolation::Reset,
            precondition: Precondition::default(),
            vision: false,
            weak_confinement: false,
            timeouts: Timeouts::default(),
        }
    }

    /// The program's file: where the name is found, with every link followed. None when it is one of `paths`.
    ///
    /// # Errors
    /// When it is not there, or is a script whose interpreter is looked up anew at each start.
    pub fn program_file(&self) -> Result<Option<PathBuf>, StartError> {
        if self.program.starts_with('{') {
            return Ok(None);
        }
        program::resolve(&self.program).map(Some)
    }

    /// The arguments as the workload description holds them: with placeholders, the operator's last.
    #[must_use]
    pub fn measured_arguments(&self) -> Vec<String> {
        self.arguments.iter().chain(&self.operator_arguments).cloned().collect()
    }

    /// The variables as the workload description holds them.
    #[must_use]
    pub fn measured_environment(&self) -> BTreeMap<String, String> {
        let mut environment = self.operator_environment.clone();
        environment.extend(self.environment.clone());
        environment
    }

    /// Whether the engine is given a slot directory.
    pub(crate) fn has_slots(&self) -> bool {
        self.arguments.iter().any(|argument| argument == SLOTS)
    }

    /// Program and arguments with every placeholder filled in.
    pub(crate) fn command_line(&self, substitutes: &BTreeMap<String, String>) -> Vec<String> {
        let fill = |argument: &String| match argument.as_str() {
            LAUNCHER => LLAMACPP_LAUNCHER.to_owned(),
            _ => substitutes.get(argument).unwrap_or(argument).clone(),
        };
        // The operator's arguments have no placeholders: what they name is theirs to name.
        std::iter::once(&self.program)
            .chain(&self.arguments)
            .map(fill)
            .chain(self.operator_arguments.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_arguments_name_no_path() {
        let config = OwnedEngineConfig::llamacpp(
            "/a/wheel".into(),
            "/a/model".into(),
            "/run/x".into(),
            vec!["--parallel".into(), "4".into()],
        );
        assert!(
            config
                .measured_arguments()
                .iter()
                .all(|argument| !argument.contains('/'))
        );
        assert!(config.has_slots());
        let line = config.command_line(&BTreeMap::from([(SOCKET.to_owned(), "s.sock".to_owned())]));
        assert!(line.contains(&"s.sock".to_owned()) && line.contains(&LLAMACPP_LAUNCHER.to_owned()));
        assert_eq!(line.last().map(String::as_str), Some("4"));
    }

    #[test]
    fn the_enclaves_variables_win() {
        let mut config = OwnedEngineConfig::vllm("vllm".into(), "/m".into(), "/run/x".into(), Vec::new());
        config
            .operator_environment
            .insert("VLLM_SERVER_DEV_MODE".to_owned(), "0".to_owned());
        assert_eq!(
            config
                .measured_environment()
                .get("VLLM_SERVER_DEV_MODE")
                .map(String::as_str),
            Some("1")
        );
    }
}
