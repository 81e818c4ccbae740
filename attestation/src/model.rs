//! The files of a model and the one digest that stands for them.

use minicbor::Encode;

use crate::cbor;
use crate::identity::sha256;
use crate::ids::{ModelDigest, Sha256Digest};

/// One file of a model. As CBOR: a map {0 name text, 1 size uint, 2 sha256 bstr32}.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
#[cbor(map)]
pub struct ModelFile {
    /// Path below the model's folder, with `/` between its parts.
    #[n(0)]
    pub name: String,
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// Digest of the content.
    #[n(2)]
    pub sha256: Sha256Digest,
}

/// The files of a model, in the order of their names. As CBOR: a map {0 array of [`ModelFile`]}.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
#[cbor(map)]
pub struct ModelManifest {
    #[n(0)]
    files: Vec<ModelFile>,
}

/// Files that make no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No file at all: the digest of nothing would stand for any model.
    #[error("model has no files: name the file or folder that holds its weights")]
    Empty,
    /// Two files of one name.
    #[error("model names the file {0:?} twice")]
    Repeated(String),
}

impl ModelManifest {
    /// Puts `files` in order.
    ///
    /// # Errors
    /// [`ManifestError`] if there is none, or two have one name.
    pub fn new(mut files: Vec<ModelFile>) -> Result<Self, ManifestError> {
        if files.is_empty() {
            return Err(ManifestError::Empty);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let repeated = files.iter().zip(files.iter().skip(1)).find(|(a, b)| a.name == b.name);
        if let Some((file, _)) = repeated {
            return Err(ManifestError::Repeated(file.name.clone()));
        }
        Ok(Self { files })
    }

    /// The files, in the order of their names.
    #[must_use]
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// SHA-256 of the deterministic CBOR.
    #[must_use]
    pub fn digest(&self) -> ModelDigest {
        ModelDigest::from_bytes(*sha256(&[&cbor::encode(self)]).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, size: u64) -> ModelFile {
        ModelFile {
            name: name.into(),
            size,
            sha256: Sha256Digest::from_bytes([4; 32]),
        }
    }

    #[test]
    fn the_order_of_listing_does_not_matter_and_the_content_does() {
        let digest = |files| ModelManifest::new(files).unwrap().digest();
        let both = digest(vec![file("a", 1), file("b", 2)]);
        assert_eq!(both, digest(vec![file("b", 2), file("a", 1)]));
        assert_ne!(both, digest(vec![file("a", 1), file("b", 3)]));
        assert_ne!(both, digest(vec![file("a", 1), file("c", 2)]));
        assert_ne!(both, digest(vec![file("a", 1)]));
    }

    #[test]
    fn no_files_and_repeated_names_are_refused() {
        assert_eq!(ModelManifest::new(Vec::new()), Err(ManifestError::Empty));
        assert_eq!(
            ModelManifest::new(vec![file("a", 1), file("b", 1), file("a", 2)]),
            Err(ManifestError::Repeated("a".into()))
        );
    }
}
