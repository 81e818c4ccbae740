//! Digest of the engine's files, for the workload description.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use cloister_attestation::Sha256Digest;

use crate::program::interpreter;

/// Source of the program that runs llama.cpp's server.
pub const LLAMACPP_LAUNCHER: &str = include_str!("../launchers/llamacpp.py");

/// Label that separates this digest from every other use of SHA-256.
const LABEL: &[u8] = b"cloister/v1 engine-image";
/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// Digest of an engine: a file or a directory, the launcher that runs it, if there is one, and the program that runs that,
/// if it is not a part of the directory.
///
/// Hashed are the label `cloister/v1 engine-image`; the launcher; the program as the SHA-256 of its content, followed, for a
/// script, by that of the interpreter that its first line names; then the files. A directory is every file below it, sorted by its path relative to the directory. For each: the path, then `f` and the
/// SHA-256 of its content, or `l` and the target of the link; each with its length before it as u64, big-endian. Modes, owners
/// and times do not count. Links are not followed.
///
/// # Errors
/// When something cannot be read, or is neither a file, a directory nor a link.
pub fn engine_image_digest(root: &Path, launcher: Option<&str>, program: Option<&Path>) -> io::Result<Sha256Digest> {
    let mut hash = Context::new(&SHA256);
    hash.update(LABEL);
    part(&mut hash, launcher.unwrap_or_default().as_bytes());
    let mut programs = Vec::new();
    if let Some(program) = program {
        programs.extend(content(program)?);
        if let Some(interpreter) = interpreter(program)? {
            programs.extend(content(&interpreter)?);
        }
    }
    part(&mut hash, &programs);
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        part(&mut hash, name.as_os_str().as_bytes());
        if fs::symlink_metadata(&file)?.is_symlink() {
            part(&mut hash, b"l");
            part(&mut hash, fs::read_link(&file)?.as_os_str().as_bytes());
        } else {
            part(&mut hash, b"f");
            part(&mut hash, &content(&file)?);
        }
    }
    Ok(digest(hash))
}

/// A name that stands for a path and is as good as unique.
pub(crate) fn short_name(path: &Path) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(path.as_os_str().as_bytes());
    digest(hash).to_string().chars().take(16).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
        return Ok(());
    }
    if !kind.is_file() && !kind.is_symlink() {
        return Err(io::Error::other(format!(
            "{} is neither a file nor a directory",
            path.display()
        )));
    }
    files.push(path.to_owned());
    Ok(())
}

fn content(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0u8; BUFFER];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some([]) | None => return Ok(*digest(hash).as_bytes()),
            Some(bytes) => hash.update(bytes),
        }
    }
}

fn part(hash: &mut Context, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn digest(hash: Context) -> Sha256Digest {
    let mut bytes = [0u8; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Sha256Digest::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_byte_counts_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir(root.join("lib")).expect("a directory");
        fs::write(root.join("lib/a"), "one").expect("a file");
        fs::write(root.join("b"), "two").expect("a file");
        let first = engine_image_digest(root, None, None).expect("a digest");
        assert_eq!(engine_image_digest(root, None, None).expect("a digest"), first);
        assert_ne!(
            engine_image_digest(root, Some("launcher"), None).expect("a digest"),
            first
        );

        fs::write(root.join("b"), "twO").expect("a file");
        let changed = engine_image_digest(root, None, None).expect("a digest");
        assert_ne!(changed, first);
        fs::rename(root.join("b"), root.join("c")).expect("renamed");
        assert_ne!(engine_image_digest(root, None, None).expect("a digest"), changed);
        fs::rename(root.join("c"), root.join("b")).expect("renamed");
        std::os::unix::fs::symlink("b", root.join("c")).expect("a link");
        assert_ne!(engine_image_digest(root, None, None).expect("a digest"), changed);
    }

    #[test]
    fn a_single_file_is_an_image() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        fs::write(&one, "x").expect("a file");
        fs::write(&two, "x").expect("a file");
        let digests = [&one, &two].map(|file| engine_image_digest(file, None, None).expect("a digest"));
        assert_eq!(digests[0], digests[1], "its own name does not count");
        assert!(engine_image_digest(Path::new("/dev/null"), None, None).is_err());
    }

    #[test]
    fn another_program_or_interpreter_is_another_image() {
        let directory = tempfile::tempdir().expect("a directory");
        let (image, program) = (directory.path().join("image"), directory.path().join("program"));
        let interpreter = directory.path().join("interpreter");
        fs::write(&image, "x").expect("a file");
        fs::write(&interpreter, "one").expect("a file");
        let digest = || engine_image_digest(&image, None, Some(&program)).expect("a digest");
        let none = engine_image_digest(&image, None, None).expect("a digest");
        fs::write(&program, "one").expect("a file");
        let first = digest();
        fs::write(&program, "two").expect("a file");
        let second = digest();
        fs::write(&program, format!("#!{} -I\n", interpreter.display())).expect("a file");
        let script = digest();
        fs::write(&interpreter, "two").expect("a file");
        let digests = [none, first, second, script, digest()];
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }
}
