//! What a device measured against what manifests say that it should.

use std::collections::{BTreeMap, BTreeSet};

use super::{RimRefusal, VerifiedRim};

/// Measurement of the video decoder's firmware, which a device has only where NVDEC0 is on.
const NVDEC0_INDEX: u8 = 35;
/// State of NVDEC0 in a report: off.
const NVDEC0_OFF: u8 = 0x55;

/// What came of a comparison. Indexes are those of the manifests: a report's block has one more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// The device has one of the values.
    pub matching: BTreeSet<u8>,
    /// The device has another value, or none.
    pub mismatching: BTreeSet<u8>,
    /// Not compared, since the part that is measured is off.
    pub skipped: BTreeSet<u8>,
}

// === impl Comparison ===

impl Comparison {
    /// True if something was compared, and all of it matches.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.mismatching.is_empty() && !self.matching.is_empty()
    }
}

/// Compares every active measurement of `rims` with what `measured` has in the block one higher. `nvdec0` is the state of
/// NVDEC0 in the report, if it has one.
///
/// # Errors
/// [`RimRefusal::ActiveInBoth`] for an index that two manifests claim, [`RimRefusal::NoActive`] if none claims any.
pub fn compare<'a>(
    rims: &[&VerifiedRim],
    nvdec0: Option<u8>,
    measured: impl Fn(u8) -> Option<&'a [u8]>,
) -> Result<Comparison, RimRefusal> {
    let mut golden = BTreeMap::new();
    for (index, alternatives) in rims.iter().flat_map(|rim| rim.active()) {
        if golden.insert(index, alternatives).is_some() {
            return Err(RimRefusal::ActiveInBoth(index));
        }
    }
    let mut found = Comparison::default();
    for (index, alternatives) in golden {
        let value = index.checked_add(1).and_then(&measured);
        let is_one = value.is_some_and(|value| alternatives.iter().any(|one| one.as_bytes() == value));
        let group = match index {
            NVDEC0_INDEX if nvdec0 == Some(NVDEC0_OFF) => &mut found.skipped,
            _ if is_one => &mut found.matching,
            _ => &mut found.mismatching,
        };
        group.insert(index);
    }
    if found == Comparison::default() {
        return Err(RimRefusal::NoActive);
    }
    Ok(found)
}
