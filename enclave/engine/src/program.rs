//! The program that an engine is started with, as a file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::StartError;

/// Where programs are looked up, for the engine as for its wrappers, whatever the enclave's own `PATH` is.
pub(crate) const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest first line of a script that the kernel reads, in bytes.
const MAX_FIRST_LINE: usize = 256;

/// Where `name` lies in [`SEARCH`].
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let mut places = SEARCH.split(':').map(|place| Path::new(place).join(name));
    places.find(|path| path.is_file())
}

/// The file of a program that is given as a name or a path, with every link followed.
///
/// # Errors
/// When there is none, or when what runs could not be told from its path.
pub(crate) fn resolve(program: &str) -> Result<PathBuf, StartError> {
    let missing = |source| StartError::MissingPath {
        path: program.into(),
        source,
    };
    let path = if program.contains('/') {
        PathBuf::from(program)
    } else {
        find(program).ok_or_else(|| StartError::MissingProgram {
            program: program.to_owned(),
            advice: "install it, or correct the engine's configuration",
        })?
    };
    let path = fs::canonicalize(path).map_err(missing)?;
    // `env` would take it for a variable.
    if path.as_os_str().as_bytes().contains(&b'=') {
        return Err(missing(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a program's path must not hold `=`",
        )));
    }
    interpreter(&path).map_err(missing)?;
    Ok(path)
}

/// The interpreter that the first line of a script names; none for other programs.
pub(crate) fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    let mut line = Vec::new();
    File::open(program)?
        .take(MAX_FIRST_LINE as u64)
        .read_to_end(&mut line)?;
    let Some(line) = line.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let path = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split_ascii_whitespace().next())
        .map(Path::new)
        .filter(|path| path.is_absolute() && path.file_name().is_some_and(|name| name != "env"));
    let refused = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the script's first line must name its interpreter by its absolute path, not through env",
        )
    };
    fs::canonicalize(path.ok_or_else(refused)?).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_what_its_links_lead_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().canonicalize().expect("a directory");
        let (file, link) = (base.join("file"), base.join("link"));
        fs::write(&file, "x").expect("a file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert_eq!(resolve(link.to_str().expect("a path")).expect("found"), file);
        assert!(resolve("sh").expect("found").is_absolute());
        assert!(matches!(
            resolve("no-such-program"),
            Err(StartError::MissingProgram { .. })
        ));
        assert!(matches!(
            resolve("/no/such/program"),
            Err(StartError::MissingPath { .. })
        ));
        let odd = base.join("a=b");
        fs::write(&odd, "x").expect("a file");
        assert!(resolve(odd.to_str().expect("a path")).is_err());
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let directory = tempfile::tempdir().expect("a directory");
        let script = directory.path().join("script");
        let of = |text: &str| {
            fs::write(&script, text).expect("a file");
            interpreter(&script)
        };
        let sh = fs::canonicalize("/bin/sh").expect("a shell");
        assert_eq!(of("#!/bin/sh\nexit\n").expect("read"), Some(sh.clone()));
        assert_eq!(of("#! /bin/sh -e").expect("read"), Some(sh));
        assert_eq!(of("\x7fELF").expect("read"), None);
        for text in [
            "#!/usr/bin/env python3\n",
            "#!python3\n",
            "#!\n",
            "#!/no/such/interpreter\n",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
