//! A store as the source of a verifier's endorsements, read again when a file in it changes.

use super::gather::Gathered;
use super::name::Product;
use super::rims::RimFile;
use super::store::{Stamp, Store, StoreError};
use cloister_attestation::Endorsements;
use cloister_attestation::nvidia::OcspResponse;
use cloister_attestation::policy::Generation;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Endorsements from a directory.
#[derive(Debug)]
pub struct Source {
    dir: PathBuf,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    stamps: Vec<Stamp>,
    endorsements: Arc<Endorsements>,
}

impl Source {
    /// Not read yet.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            read: Mutex::default(),
        }
    }

    /// What the directory holds now. While it cannot be read, what was read before stays in use: each part has its own end, and the
    /// verifier looks at it.
    pub fn current(&self) -> Arc<Endorsements> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match self.reread(read.as_ref()) {
            Ok(Some(new)) => {
                let endorsements = new.endorsements.clone();
                *read = Some(new);
                endorsements
            }
            unchanged => {
                if let Err(error) = unchanged {
                    tracing::warn!(%error, "the store of collateral cannot be read");
                }
                read.as_ref().map(|read| read.endorsements.clone()).unwrap_or_default()
            }
        }
    }

    fn reread(&self, before: Option<&Read>) -> Result<Option<Read>, StoreError> {
        let store = Store::open(&self.dir)?;
        // Stamps from before the reading: a change in between is seen the next time.
        let stamps = store.stamps()?;
        if before.is_some_and(|before| before.stamps == stamps) {
            return Ok(None);
        }
        let gathered = store.gather()?;
        for (name, reason) in &gathered.errors {
            tracing::warn!(name, reason, "a file of collateral cannot be read");
        }
        let endorsements = Arc::new(endorsements(gathered));
        Ok(Some(Read { stamps, endorsements }))
    }
}

/// What a verifier takes, of what a store holds. Nothing of it is verified here; what has not even the right form is told and left
/// out.
fn endorsements(gathered: Gathered) -> Endorsements {
    let mut endorsements = Endorsements::default();
    let lists = gathered.amd_crls.into_iter();
    endorsements.amd_crls = lists.map(|(product, list)| (generation(product), list)).collect();
    for RimFile { name, document } in gathered.rims {
        if let Err(error) = endorsements.rims.insert(&name, &document) {
            tracing::warn!(name, %error, "a RIM is left out");
        }
    }
    for status in gathered.statuses {
        match OcspResponse::parse(&status) {
            Ok(response) => endorsements.nvidia_ocsp.push(response),
            Err(error) => tracing::warn!(%error, "a status of a certificate is left out"),
        }
    }
    endorsements
}

const fn generation(product: Product) -> Generation {
    match product {
        Product::Milan => Generation::Milan,
        Product::Genoa => Generation::Genoa,
        Product::Turin => Generation::Turin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collateral::Entry;

    fn list(source: &Source) -> Option<Vec<u8>> {
        source.current().amd_crls.get(&Generation::Milan).cloned()
    }

    #[test]
    fn a_change_is_seen_at_the_next_look_and_only_then_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let source = Source::new(path.clone());
        assert_eq!(list(&source), None, "not there yet");
        let store = Store::create(&path).unwrap();
        let entry = Entry::amd_crl(Product::Milan);
        store.write(&entry, b"old").unwrap();
        assert_eq!(list(&source).unwrap(), b"old");
        assert!(
            Arc::ptr_eq(&source.current(), &source.current()),
            "unchanged files are not read again"
        );
        store.write(&entry, b"new").unwrap();
        assert_eq!(list(&source).unwrap(), b"new");
        std::fs::remove_file(path.join("amd/Milan/crl.der")).unwrap();
        assert_eq!(list(&source), None, "what is gone is gone");
    }

    #[test]
    fn rims_are_handed_on_and_what_has_not_the_form_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        let recorded = "/../attestation/testdata/nvidia/e2e_pass/driver_rim_545.00.swidtag";
        let document = std::fs::read(format!("{}{recorded}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        store
            .write(&Entry::rim("NV_GPU_DRIVER_GH100_545.00").unwrap(), &document)
            .unwrap();
        store
            .write(&Entry::rim("NV_GPU_DRIVER_GH100_1").unwrap(), b"<html/>")
            .unwrap();
        store.write(&Entry::ocsp(&[7; 32]), b"no status").unwrap();
        let endorsements = Source::new(dir.path().to_owned()).current();
        assert_eq!((endorsements.rims.len(), endorsements.nvidia_ocsp.len()), (1, 0));
    }

    #[test]
    fn while_the_store_cannot_be_read_what_was_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::create(&path).unwrap();
        store.write(&Entry::amd_crl(Product::Milan), b"list").unwrap();
        let source = Source::new(path.clone());
        assert_eq!(list(&source).unwrap(), b"list");
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        assert_eq!(list(&source).unwrap(), b"list");
    }
}
