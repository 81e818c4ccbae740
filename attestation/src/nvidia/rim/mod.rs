//! NVIDIA's reference integrity manifests: what a driver, a VBIOS or a switch's BIOS should measure, signed.
//!
//! A manifest is an XML document. [`xml`] reads a narrow subset, [`c14n`] writes it canonically, `signature` checks the one
//! shape of signature that NVIDIA uses, and the values are read from the very bytes that the signature's digest is over:
//! what a wrapped, moved or hidden piece of the document says is nowhere looked at.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod c14n;
pub mod compare;
pub mod store;
pub mod xml;

mod document;
mod id;
mod refusal;
mod signature;

use std::collections::BTreeMap;

pub use self::compare::{Comparison, compare};
pub use self::document::{GoldenMeasurement, MAX_ALTERNATIVES, MAX_INDEX};
pub use self::id::{Board, RimId, RimKind};
pub use self::refusal::RimRefusal;
pub use self::store::{Appraised, RimStore, StoreFull, StoreRefusal};
use crate::ids::UnixTime;
use crate::policy::Measurement;
use crate::x509::pem_certificates;

/// PEM of NVIDIA's root for reference values, "NVIDIA CoRIM signing Root CA"; `testdata/SOURCES.md` says where it is from.
const ROOT: &str = include_str!("roots/verifier_RIM_root.pem");

/// A manifest that NVIDIA signed, at a time at which every certificate was valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRim {
    values: document::Values,
    valid_from: UnixTime,
    valid_until: UnixTime,
}

/// Verifies a manifest up to NVIDIA's root at `now`, and reads it.
///
/// # Errors
/// [`RimRefusal`] names the first thing that is wrong.
pub fn verify(document: &[u8], now: UnixTime) -> Result<VerifiedRim, RimRefusal> {
    verify_under(document, &root()?, now)
}

/// The same up to another root, DER of its certificate: for the tests, which cannot sign as NVIDIA.
pub(crate) fn verify_under(document: &[u8], root: &[u8], now: UnixTime) -> Result<VerifiedRim, RimRefusal> {
    let parsed = xml::parse(document)?;
    let signed = signature::verify(&parsed, root, now)?;
    Ok(VerifiedRim {
        values: document::Values::read(&signed.content)?,
        valid_from: signed.valid_from,
        valid_until: signed.valid_until,
    })
}

/// DER of NVIDIA's root.
fn root() -> Result<Vec<u8>, RimRefusal> {
    let found = pem_certificates(ROOT, 1).map_err(|_| RimRefusal::Root)?;
    found.into_iter().next().ok_or(RimRefusal::Root)
}

// === impl VerifiedRim ===

impl VerifiedRim {
    /// What it is about.
    #[must_use]
    pub const fn kind(&self) -> RimKind {
        self.values.kind
    }

    /// Identity of the tag: 96 hexadecimal digits, in all that were seen.
    #[must_use]
    pub fn tag_id(&self) -> &str {
        &self.values.tag_id
    }

    /// Chip: `GH100`, `LS10`.
    #[must_use]
    pub fn chip(&self) -> &str {
        &self.values.chip
    }

    /// Version of what it is about: `550.144.03`, `96.00.5E.00.01`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.values.version
    }

    /// All measurements, by index: that of a report's block, less one.
    #[must_use]
    pub const fn measurements(&self) -> &BTreeMap<u8, GoldenMeasurement> {
        &self.values.measurements
    }

    /// Those that a device is compared with.
    pub fn active(&self) -> impl Iterator<Item = (u8, &[Measurement])> {
        let active = self.values.measurements.iter().filter(|(_, golden)| golden.active);
        active.map(|(index, golden)| (*index, golden.alternatives.as_slice()))
    }

    /// Last second at which all certificates are valid.
    #[must_use]
    pub const fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// True if all certificates are valid at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        self.valid_from <= now && now <= self.valid_until
    }

    /// Checks that it is of the component, chip and version that `id` names. Which board it is for it does not say.
    ///
    /// # Errors
    /// [`RimRefusal::Kind`], [`RimRefusal::Chip`] or [`RimRefusal::Version`].
    pub fn check_is(&self, id: &RimId) -> Result<(), RimRefusal> {
        if self.kind() != id.kind {
            return Err(RimRefusal::Kind {
                found: self.kind(),
                expected: id.kind,
            });
        }
        if self.chip() != id.chip {
            return Err(RimRefusal::Chip {
                found: self.chip().to_owned(),
                expected: id.chip.clone(),
            });
        }
        // VBIOS versions are hexadecimal.
        if !self.version().eq_ignore_ascii_case(&id.version) {
            return Err(RimRefusal::Version {
                found: self.version().to_owned(),
                expected: id.version.clone(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
