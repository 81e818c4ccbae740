//! The wrappers that take from the engine's process what it does not need.
//!
//! They are util-linux programs, so that no unsafe code runs between fork and exec: `setpriv`, `prlimit`, `unshare`, `mount`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::config::{OwnedEngineConfig, SLOTS, SOCKET};
use crate::error::StartError;
use crate::program::{SEARCH, find};

use super::directory::RuntimeDirectory;

/// What an engine's process is kept from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// User of its own without capabilities, own process, network, IPC and mount namespaces; it can write in its own
    /// directory and nowhere else, and all its children end with it.
    Full,
    /// User of its own without capabilities. Missing: namespaces, so it has the machine's network and sees its processes.
    User,
    /// No new privileges and death with its parent, and nothing else: it is the enclave's own user and could read the enclave's
    /// memory.
    Weak,
}

impl Confinement {
    /// The strongest that this process can give: `Full` as root with the right to make namespaces, `User` as root, else `Weak`.
    #[must_use]
    pub fn strongest() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::Weak;
        }
        let probe = Command::new("unshare")
            .args(NAMESPACES)
            .args(["--", "mount", "-o", "remount,bind,ro", "/"])
            .env_clear()
            .env("PATH", SEARCH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match probe {
            Ok(status) if status.success() => Self::Full,
            _ => Self::User,
        }
    }

    /// What is missing, and how to get it.
    #[must_use]
    pub const fn missing(self) -> &'static str {
        match self {
            Self::Full => "nothing",
            Self::User => {
                "namespaces of its own: it has the machine's network and sees its processes; allow CAP_SYS_ADMIN to the enclave"
            }
            Self::Weak => {
                "a user, a network and namespaces of its own: it could read the enclave's memory; run the enclave as root"
            }
        }
    }
}

const NAMESPACES: [&str; 7] = [
    "--net",
    "--pid",
    "--ipc",
    "--mount",
    "--mount-proc",
    "--fork",
    "--kill-child=KILL",
];

/// Directories that everybody may write in, unless the engine needs something below them.
const SHARED: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run/lock"];

/// Where the engine sees its own directory: a path whose parents it can enter, unlike those of the runtime directory.
const HOMES: [&str; 4] = ["/mnt", "/srv", "/media", "/opt"];

/// Runs as root in namespaces of its own, before the privileges are given up. Arguments: the engine's directory, where it
/// is to be seen, the slot directory or nothing, the number of paths, name and source of each, the shared directories, `--`,
/// the command.
const PREPARE: &str = r#"
own=$1; home=$2; slots=$3; count=$4; shift 4
mount --bind "$own" "$home"
while [ "$count" -gt 0 ]; do
    mount --bind "$2" "$home/in/$1"
    mount -o remount,bind,ro "$home/in/$1"
    shift 2; count=$((count - 1))
done
if [ -n "$slots" ]; then mount --bind "$slots" "$slots"; fi
while [ "$1" != "--" ]; do
    # What lies below is needed: no writing. Else an empty one that ends with the engine.
    case "$1" in
        keep:*) if mountpoint -q "${1#keep:}"; then mount -o remount,bind,ro "${1#keep:}"; fi ;;
        *) mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$1" ;;
    esac
    shift
done
shift
mount -o remount,bind,ro /
cd "$home"
exec "$@"
"#;

/// Makes sure that everything is there which a start needs: what is missing would only show as an engine that ends.
///
/// # Errors
/// The first thing that is missing.
pub(crate) fn check_present(config: &OwnedEngineConfig, confinement: Confinement) -> Result<(), StartError> {
    let wrappers: &[&str] = match confinement {
        Confinement::Full => &["setpriv", "prlimit", "env", "unshare", "mount", "mountpoint", "sh"],
        Confinement::User | Confinement::Weak => &["setpriv", "prlimit", "env"],
    };
    let missing = |program: &str, advice| StartError::MissingProgram {
        program: program.to_owned(),
        advice,
    };
    if let Some(wrapper) = wrappers.iter().find(|wrapper| find(wrapper).is_none()) {
        return Err(missing(
            wrapper,
            "on Debian: apt-get install coreutils util-linux mount",
        ));
    }
    config.program_file()?;
    for path in config.paths.values() {
        std::fs::metadata(path).map_err(|source| StartError::MissingPath {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// The command that starts the engine in the given confinement.
pub(crate) fn command(config: &OwnedEngineConfig, directory: &RuntimeDirectory, confinement: Confinement) -> Command {
    let line = config.command_line(&substitutes(config, directory, confinement));
    let home = match confinement {
        Confinement::Full => home(config, directory),
        Confinement::User | Confinement::Weak => directory.own(),
    };
    let mut words: Vec<OsString> = Vec::new();
    let mut push = |more: &[&str]| words.extend(more.iter().map(OsString::from));
    push(&["setpriv", "--pdeathsig", "KILL", "--", "prlimit", "--core=0", "--"]);
    if confinement == Confinement::Full {
        push(&["unshare"]);
        push(&NAMESPACES);
        push(&["--", "sh", "-ec", PREPARE, "sh"]);
        words.extend(prepare_arguments(config, directory, home));
    }
    // Once more: a change of user clears the signal.
    let mut push = |more: &[&str]| words.extend(more.iter().map(OsString::from));
    push(&["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]);
    if confinement != Confinement::Weak {
        let (uid, gid) = (config.user.uid.to_string(), config.user.gid.to_string());
        push(&[
            "--reuid",
            &uid,
            "--regid",
            &gid,
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]);
    }
    // Only the engine itself gets the operator's variables: what is before runs with the enclave's rights.
    push(&["--", "env", "-i"]);
    words.extend(environment(config, home));
    words.extend(line.iter().map(OsString::from));

    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .current_dir(directory.own())
        .env_clear()
        .env("PATH", SEARCH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The engine's variables, as `env` takes them: the same for every engine, then those that are measured.
fn environment(config: &OwnedEngineConfig, home: &Path) -> Vec<OsString> {
    let fixed: [(&str, &OsStr); 4] = [
        ("PATH", SEARCH.as_ref()),
        ("LANG", "C.UTF-8".as_ref()),
        ("HOME", home.as_os_str()),
        ("TMPDIR", home.as_os_str()),
    ];
    let assignment = |name: &str, value: &OsStr| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        word
    };
    let measured = config.measured_environment();
    let measured = measured.iter().map(|(name, value)| assignment(name, value.as_ref()));
    let fixed = fixed.iter().map(|(name, value)| assignment(name, value));
    fixed.chain(measured).collect()
}

/// What each placeholder stands for. Everything of the engine's own directory is relative to it, so that the directories
/// above can stay closed to the engine's user.
fn substitutes(
    config: &OwnedEngineConfig,
    directory: &RuntimeDirectory,
    confinement: Confinement,
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = config
        .paths
        .iter()
        .map(|(name, path)| match confinement {
            Confinement::Full => (format!("{{{name}}}"), format!("./in/{name}")),
            Confinement::User | Confinement::Weak => (format!("{{{name}}}"), path.display().to_string()),
        })
        .collect();
    all.insert(SOCKET.to_owned(), RuntimeDirectory::SOCKET.to_owned());
    if let Some(slots) = directory.slots() {
        all.insert(SLOTS.to_owned(), slots.display().to_string());
    }
    all
}

/// What must stay where it is.
fn needed<'a>(config: &'a OwnedEngineConfig, directory: &'a RuntimeDirectory) -> Vec<&'a Path> {
    let own = std::iter::once(directory.own());
    own.chain(directory.slots())
        .chain(std::iter::once(Path::new(&config.program)))
        .collect()
}

fn home<'a>(config: &OwnedEngineConfig, directory: &'a RuntimeDirectory) -> &'a Path {
    let needed = needed(config, directory);
    let free = |home: &&Path| home.is_dir() && !needed.iter().any(|path| path.starts_with(home));
    HOMES.map(Path::new).into_iter().find(free).unwrap_or(directory.own())
}

fn prepare_arguments(config: &OwnedEngineConfig, directory: &RuntimeDirectory, home: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        directory.own().into(),
        home.into(),
        directory.slots().map(OsString::from).unwrap_or_default(),
        config.paths.len().to_string().into(),
    ];
    for (name, path) in &config.paths {
        arguments.push(name.into());
        arguments.push(path.into());
    }
    let needed = needed(config, directory);
    for shared in SHARED.map(Path::new).into_iter().filter(|shared| shared.is_dir()) {
        let keep = needed.iter().any(|path| path.starts_with(shared));
        arguments.push(if keep {
            format!("keep:{}", shared.display()).into()
        } else {
            shared.into()
        });
    }
    arguments.push("--".into());
    arguments
}
