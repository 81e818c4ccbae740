//! Manifests by what they are about, each verified at most once while it is valid.
//!
//! Who fills the store is not trusted: a document is found by what stands in it, and used only once its signature holds. A
//! file's name counts for one thing that no document says, the board: a document whose name is that of another board is left
//! out. Where several remain, any one that NVIDIA signed for the version and that the device matches will do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::compare::{Comparison, compare};
use super::id::{Board, RimId, RimKind};
use super::xml::MAX_DOCUMENT_LEN;
use super::{RimRefusal, VerifiedRim, document, root, verify_under, xml};
use crate::identity::sha256;
use crate::ids::{Sha256Digest, UnixTime};

/// Most documents of a store.
pub const MAX_DOCUMENTS: usize = 2048;
/// Most documents for one component, chip and version: boards of one VBIOS, and what was signed twice.
pub const MAX_CANDIDATES: usize = 16;
/// Longest name of a document that is looked at.
const MAX_NAME_LEN: usize = 256;

/// More documents than a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_DOCUMENTS} reference manifests, or {MAX_CANDIDATES} of one component and version")]
pub struct StoreFull;

/// Why a document is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    /// There are too many.
    #[error(transparent)]
    Full(#[from] StoreFull),
    /// It is no manifest.
    #[error(transparent)]
    Document(#[from] RimRefusal),
}

/// The manifests that a device was compared with, and what came of it.
#[derive(Debug, Clone)]
pub struct Appraised {
    /// One for each that was asked for, in that order.
    pub rims: Vec<Arc<VerifiedRim>>,
    /// What came of it.
    pub comparison: Comparison,
}

/// Component, chip and version in capitals.
type Key = (RimKind, String, String);

/// See the module.
#[derive(Debug)]
pub struct RimStore {
    root: Result<Vec<u8>, RimRefusal>,
    documents: BTreeMap<Key, Vec<Stored>>,
    /// What was verified, by the digest of the document: no more entries than documents.
    verified: Mutex<BTreeMap<Sha256Digest, Arc<VerifiedRim>>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stored {
    board: Option<Board>,
    digest: Sha256Digest,
    document: Vec<u8>,
}

// === impl RimStore ===

impl Default for RimStore {
    fn default() -> Self {
        Self::new()
    }
}

impl RimStore {
    /// Without documents.
    #[must_use]
    pub fn new() -> Self {
        Self::with_root(root())
    }

    const fn with_root(root: Result<Vec<u8>, RimRefusal>) -> Self {
        Self {
            root,
            documents: BTreeMap::new(),
            verified: Mutex::new(BTreeMap::new()),
        }
    }

    /// Keeps a document, as XML or as base64 of it, under what it says that it is about. `name` is its file's, if it has one.
    /// Nothing is verified here: whoever asks says when.
    ///
    /// # Errors
    /// [`StoreRefusal`] for what is no manifest, and when there are too many.
    pub fn insert(&mut self, name: &str, document: &[u8]) -> Result<(), StoreRefusal> {
        let document = as_xml(document)?;
        let (chip, version, kind) = document::head(&xml::parse(&document).map_err(RimRefusal::from)?)?;
        let key = (kind, chip, version.to_ascii_uppercase());
        let stored = Stored {
            board: board_in(name, &key.2),
            digest: sha256(&[&document]),
            document,
        };
        let total: usize = self.documents.values().map(Vec::len).sum();
        let candidates = self.documents.entry(key).or_default();
        if candidates.contains(&stored) {
            return Ok(());
        }
        if total >= MAX_DOCUMENTS || candidates.len() >= MAX_CANDIDATES {
            return Err(StoreFull.into());
        }
        candidates.push(stored);
        Ok(())
    }

    /// Number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.documents.values().map(Vec::len).sum()
    }

    /// True without documents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All manifests that may be the one called `id` and that verify at `now`; those whose name says so come first.
    ///
    /// # Errors
    /// [`RimRefusal::Missing`], or why the first one does not verify if none does.
    pub fn find(&self, id: &RimId, now: UnixTime) -> Result<Vec<Arc<VerifiedRim>>, RimRefusal> {
        let key = (id.kind, id.chip.clone(), id.version.to_ascii_uppercase());
        let candidates = self.documents.get(&key).map(Vec::as_slice).unwrap_or_default();
        let named = candidates
            .iter()
            .filter(|stored| id.board.is_some() && stored.board == id.board);
        let unnamed = candidates
            .iter()
            .filter(|stored| id.board.is_none() || stored.board.is_none());
        let mut found = Vec::new();
        let mut refusal = None;
        for stored in named.chain(unnamed) {
            match self.verified(stored, now) {
                // The head that a document was kept under is not proven; this is.
                Ok(rim) => match rim.check_is(id) {
                    Ok(()) => found.push(rim),
                    Err(reason) => refusal = refusal.or(Some(reason)),
                },
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        if found.is_empty() {
            return Err(refusal.unwrap_or_else(|| RimRefusal::Missing(Box::new(id.clone()))));
        }
        Ok(found)
    }

    /// Compares a device with the manifests called `ids`; arguments as of [`compare`]. Of several manifests of one name, those
    /// that the device comes closest to.
    ///
    /// # Errors
    /// [`RimRefusal`] if there is none of a name, or if they do not belong together. That the device does not match is no error.
    pub fn appraise<'a>(
        &self,
        ids: &[RimId],
        now: UnixTime,
        nvdec0: Option<u8>,
        measured: impl Fn(u8) -> Option<&'a [u8]> + Copy,
    ) -> Result<Appraised, RimRefusal> {
        let mut combinations: Vec<Vec<Arc<VerifiedRim>>> = vec![Vec::new()];
        for id in ids {
            let candidates = self.find(id, now)?;
            let with_each = |chosen: &Vec<Arc<VerifiedRim>>| {
                let one_more = |rim: &Arc<VerifiedRim>| chosen.iter().chain([rim]).cloned().collect();
                candidates.iter().map(one_more).collect::<Vec<_>>()
            };
            combinations = combinations.iter().flat_map(with_each).collect();
        }
        let mut best: Result<Appraised, RimRefusal> = Err(RimRefusal::NoActive);
        for rims in combinations {
            let references: Vec<&VerifiedRim> = rims.iter().map(Arc::as_ref).collect();
            let found = compare(&references, nvdec0, measured);
            let closer = match (&found, &best) {
                (Ok(new), Ok(old)) => new.mismatching.len() < old.comparison.mismatching.len(),
                (Ok(_), Err(_)) => true,
                (Err(_), Err(RimRefusal::NoActive)) => true,
                (Err(_), _) => false,
            };
            if closer {
                best = found.map(|comparison| Appraised { rims, comparison });
            }
        }
        best
    }

    fn verified(&self, stored: &Stored, now: UnixTime) -> Result<Arc<VerifiedRim>, RimRefusal> {
        // A map of finished results is whole also after a panic elsewhere.
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rim) = known.get(&stored.digest).filter(|rim| rim.is_valid_at(now)) {
            return Ok(Arc::clone(rim));
        }
        drop(known);
        let root = self.root.as_ref().map_err(RimRefusal::clone)?;
        let rim = Arc::new(verify_under(&stored.document, root, now)?);
        let mut known = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(stored.digest, Arc::clone(&rim));
        Ok(rim)
    }
}

/// The document itself, or what it is base64 of.
fn as_xml(document: &[u8]) -> Result<Vec<u8>, RimRefusal> {
    // A third more, and line ends.
    if document.len() > MAX_DOCUMENT_LEN.saturating_mul(2) {
        return Err(xml::XmlRefusal::TooLong.into());
    }
    if document.trim_ascii_start().first() == Some(&b'<') {
        return Ok(document.to_vec());
    }
    let text: Vec<u8> = document
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    BASE64_STANDARD.decode(text).map_err(|_| RimRefusal::NotAnIdentity)
}

/// The board in a name like `NV_GPU_VBIOS_1010_0200_882_96005E0001.swidtag`: the three parts before the version.
fn board_in(name: &str, version: &str) -> Option<Board> {
    if name.len() > MAX_NAME_LEN {
        return None;
    }
    let version = version.replace('.', "");
    let name = name.to_ascii_uppercase();
    let parts: Vec<&str> = name.split(['_', '.', '/', ' ']).collect();
    parts.windows(4).find_map(|window| match window {
        [project, project_sku, chip_sku, last] if *last == version => {
            let is_board = project.len() == 4 && project_sku.len() == 4 && chip_sku.len() == 3;
            is_board.then(|| Board {
                project: (*project).to_owned(),
                project_sku: (*project_sku).to_owned(),
                chip_sku: (*chip_sku).to_owned(),
            })
        }
        _ => None,
    })
}
