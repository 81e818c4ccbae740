//! A folder of RIM documents under any names: NVIDIA publishes them under several.

use super::store::{StoreError, read_regular};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::nvidia::rim::RimStore;
use serde::Deserialize;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest RIM document, bytes; real ones have about 26000.
pub const MAX_RIM_BYTES: usize = 1024 * 1024;
/// Most files of a folder.
pub const MAX_RIM_FILES: usize = 4096;

/// A document as it was signed. Nothing in it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RimFile {
    /// Name of the file.
    pub name: String,
    /// The document.
    pub document: Vec<u8>,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub struct RimFolder {
    /// The documents, by name of the file.
    pub documents: Vec<RimFile>,
    /// Files that are none, each with the reason: they do not hide the others.
    pub errors: Vec<(String, String)>,
}

/// The documents of a folder for a verifier, and the files that are none, each with the reason. Of those that are, none is verified:
/// the verifier does that when it needs one.
///
/// # Errors
///
/// As of [`read_rims`].
pub fn load_rims(folder: &Path) -> Result<(RimStore, Vec<(String, String)>), StoreError> {
    let RimFolder { documents, mut errors } = read_rims(folder)?;
    let mut store = RimStore::new();
    for RimFile { name, document } in documents {
        if let Err(refusal) = store.insert(&name, &document) {
            errors.push((name, refusal.to_string()));
        }
    }
    Ok((store, errors))
}

/// Reads each file of a folder that is a RIM document: XML as it is, or base64 of it, or an answer of NVIDIA's RIM service. Links
/// are followed as long as they stay in the folder, as in a volume of Kubernetes; hidden files and folders in it are passed over.
///
/// # Errors
///
/// The folder cannot be read, or has more than [`MAX_RIM_FILES`] files. A single file's trouble is in [`RimFolder::errors`].
pub fn read_rims(folder: &Path) -> Result<RimFolder, StoreError> {
    let failed = |source| StoreError::Io {
        path: folder.to_owned(),
        source,
    };
    let root = folder.canonicalize().map_err(failed)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !name.to_string_lossy().starts_with('.') {
            names.push(name);
        }
        if names.len() > MAX_RIM_FILES {
            return Err(StoreError::TooMany(folder.to_owned()));
        }
    }
    names.sort();
    let mut found = RimFolder::default();
    for name in names {
        let shown = name.to_string_lossy().into_owned();
        match read_one(&root, &root.join(&name)) {
            Ok(Some(document)) => found.documents.push(RimFile { name: shown, document }),
            Ok(None) => {}
            Err(reason) => found.errors.push((shown, reason)),
        }
    }
    Ok(found)
}

fn read_one(root: &Path, path: &Path) -> Result<Option<Vec<u8>>, String> {
    let target: PathBuf = path.canonicalize().map_err(|error| error.to_string())?;
    if !target.starts_with(root) {
        return Err("a link that leaves the folder is not followed".to_owned());
    }
    if target.is_dir() {
        return Ok(None);
    }
    // Not blocking: a pipe would hold the reader for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(&target)
        .map_err(|error| error.to_string())?;
    let bytes = read_regular(file, path, MAX_RIM_BYTES).map_err(|error| match error {
        StoreError::NotAFile(_) => "not a regular file".to_owned(),
        StoreError::TooLarge { limit, .. } => format!("larger than {limit} bytes"),
        other => other.to_string(),
    })?;
    document(&bytes).map(Some)
}

#[derive(Deserialize)]
struct Wrapped {
    rim: String,
}

/// The document in a file: XML, base64 of XML, or JSON with base64 of XML.
fn document(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let none = || "not a RIM document: neither XML, nor base64 of it, nor an answer of the RIM service".to_owned();
    if is_xml(bytes) {
        return Ok(bytes.to_vec());
    }
    let text = match serde_json::from_slice::<Wrapped>(bytes) {
        Ok(answer) => answer.rim.into_bytes(),
        Err(_) => bytes.to_vec(),
    };
    let compact: Vec<u8> = text.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let document = STANDARD.decode(compact).map_err(|_| none())?;
    if is_xml(&document) { Ok(document) } else { Err(none()) }
}

/// Whether bytes begin as XML does, after a byte order mark or white space.
pub(super) fn is_xml(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    text.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const XML: &[u8] = b"<?xml version=\"1.0\"?>\n<SoftwareIdentity/>";

    #[test]
    fn any_name_and_either_form_is_read_and_errors_hide_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let base64 = STANDARD.encode(XML);
        write("a.swidtag", XML);
        write("b.xml", XML);
        write("c.b64", format!("{base64}\n").as_bytes());
        write("d.json", format!("{{\"id\":\"X\",\"rim\":\"{base64}\"}}").as_bytes());
        write("README", b"hello, this is text");
        write("large", &vec![b'<'; MAX_RIM_BYTES + 1]);
        write(".hidden.tmp", b"<par");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let folder = read_rims(dir.path()).unwrap();
        let names: Vec<_> = folder.documents.iter().map(|rim| rim.name.as_str()).collect();
        assert_eq!(names, ["a.swidtag", "b.xml", "c.b64", "d.json"]);
        assert!(folder.documents.iter().all(|rim| rim.document == XML));
        let failed: Vec<_> = folder.errors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(failed, ["README", "large"]);
    }

    #[test]
    fn real_documents_become_a_store_whatever_their_names() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../attestation/testdata/nvidia/rims");
        let (store, errors) = load_rims(Path::new(folder)).unwrap();
        let files = std::fs::read_dir(folder).unwrap().count();
        // Some are the same document under two names.
        assert!(store.len() > 10 && store.len() + errors.len() <= files, "{errors:?}");
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn links_stay_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("rims");
        std::fs::create_dir_all(folder.join("..data")).unwrap();
        std::fs::write(folder.join("..data/in.swidtag"), XML).unwrap();
        std::fs::write(dir.path().join("out.swidtag"), XML).unwrap();
        symlink("..data/in.swidtag", folder.join("in.swidtag")).unwrap();
        symlink("../out.swidtag", folder.join("out.swidtag")).unwrap();
        symlink("nowhere", folder.join("dangling")).unwrap();
        let found = read_rims(&folder).unwrap();
        assert_eq!(found.documents.len(), 1);
        assert_eq!(found.documents[0].name, "in.swidtag");
        let failed: Vec<_> = found.errors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(failed, ["dangling", "out.swidtag"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(read_rims(Path::new("/nonexistent/rims")).is_err());
    }
}
