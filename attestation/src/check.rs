//! What an appraisal looked at, in order, and what it found.
//!
//! A verifier says of each thing under which of AR4SI's claims it falls (draft-ietf-rats-ar4si, section 2.3). A trust vector
//! is what remains when only the worst of each claim counts.

use std::fmt;

use serde::{Serialize, Serializer};

/// Claims of AR4SI's trustworthiness vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dimension {
    /// Which device or guest it is.
    InstanceIdentity,
    /// How it is set up.
    Configuration,
    /// What runs in it.
    Executables,
    /// What it has on its disks.
    FileSystem,
    /// What it is made of.
    Hardware,
    /// That its memory is closed to others.
    RuntimeOpaque,
    /// That what it stores is closed to others.
    StorageOpaque,
    /// That what it was given is from where it should be.
    SourcedData,
}

/// What became of one check; `R` says why it did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding<R> {
    /// It holds.
    Passed,
    /// It does not hold, and the rules tolerate that.
    Warned(R),
    /// It does not hold.
    Refused(R),
    /// The rules have nothing to compare it with.
    NotAppraised,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check<R> {
    /// Claim that it counts for.
    pub dimension: Dimension,
    /// What was looked at, in words that stand after a tick or a cross.
    pub what: &'static str,
    /// What was found.
    pub finding: Finding<R>,
}

/// Everything that was looked at, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks<R> {
    all: Vec<Check<R>>,
}

/// Tier of one claim or of a whole result: AR4SI's values, in its order of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Trust {
    /// 0: nothing was appraised.
    #[default]
    None,
    /// 2: all that was appraised holds.
    Affirming,
    /// 32: something is tolerated.
    Warning,
    /// 96: something does not hold.
    Contraindicated,
}

/// AR4SI's trustworthiness vector. Claims that were not appraised are 0 and lower nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrustVector {
    /// [`Dimension::InstanceIdentity`].
    pub instance_identity: Trust,
    /// [`Dimension::Configuration`].
    pub configuration: Trust,
    /// [`Dimension::Executables`].
    pub executables: Trust,
    /// [`Dimension::FileSystem`].
    pub file_system: Trust,
    /// [`Dimension::Hardware`].
    pub hardware: Trust,
    /// [`Dimension::RuntimeOpaque`].
    pub runtime_opaque: Trust,
    /// [`Dimension::StorageOpaque`].
    pub storage_opaque: Trust,
    /// [`Dimension::SourcedData`].
    pub sourced_data: Trust,
}

// === impl Check ===

impl<R> Check<R> {
    /// What this check alone would make of its claim.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        match self.finding {
            Finding::Passed => Trust::Affirming,
            Finding::Warned(_) => Trust::Warning,
            Finding::Refused(_) => Trust::Contraindicated,
            Finding::NotAppraised => Trust::None,
        }
    }
}

// === impl Checks ===

impl<R> Default for Checks<R> {
    fn default() -> Self {
        Self { all: Vec::new() }
    }
}

impl<R> Checks<R> {
    /// Nothing was looked at yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A check that has to hold.
    pub fn require(&mut self, dimension: Dimension, what: &'static str, found: Result<(), R>) {
        let finding = found.map_or_else(Finding::Refused, |()| Finding::Passed);
        self.push(dimension, what, finding);
    }

    /// A check that only warns.
    pub fn prefer(&mut self, dimension: Dimension, what: &'static str, found: Result<(), R>) {
        let finding = found.map_or_else(Finding::Warned, |()| Finding::Passed);
        self.push(dimension, what, finding);
    }

    /// Something that the rules have nothing to compare with.
    pub fn skip(&mut self, dimension: Dimension, what: &'static str) {
        self.push(dimension, what, Finding::NotAppraised);
    }

    /// Something with whatever was found.
    pub fn push(&mut self, dimension: Dimension, what: &'static str, finding: Finding<R>) {
        self.all.push(Check {
            dimension,
            what,
            finding,
        });
    }

    /// All that `other` looked at, after what is here.
    pub fn append(&mut self, other: Self) {
        self.all.extend(other.all);
    }

    /// In the order in which they were made.
    pub fn iter(&self) -> std::slice::Iter<'_, Check<R>> {
        self.all.iter()
    }

    /// Why it is refused: the first check that does not hold.
    #[must_use]
    pub fn refusal(&self) -> Option<&R> {
        self.all.iter().find_map(|check| match &check.finding {
            Finding::Refused(reason) => Some(reason),
            _ => None,
        })
    }

    /// The first refusal as an error.
    ///
    /// # Errors
    /// The reason of the first check that does not hold.
    pub fn verdict(&self) -> Result<(), R>
    where
        R: Clone,
    {
        self.refusal().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// The same with other reasons.
    #[must_use]
    pub fn map<S>(self, change: impl Fn(R) -> S) -> Checks<S> {
        let all = self.all.into_iter().map(|check| Check {
            dimension: check.dimension,
            what: check.what,
            finding: match check.finding {
                Finding::Passed => Finding::Passed,
                Finding::Warned(reason) => Finding::Warned(change(reason)),
                Finding::Refused(reason) => Finding::Refused(change(reason)),
                Finding::NotAppraised => Finding::NotAppraised,
            },
        });
        Checks { all: all.collect() }
    }

    /// The worst of each claim.
    #[must_use]
    pub fn vector(&self) -> TrustVector {
        let mut vector = TrustVector::default();
        for check in &self.all {
            let claim = vector.claim_mut(check.dimension);
            *claim = (*claim).max(check.trust());
        }
        vector
    }

    /// The worst of all.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.all.iter().map(Check::trust).max().unwrap_or_default()
    }
}

// === impl Trust ===

impl Trust {
    /// Value in a trustworthiness vector (draft-ietf-rats-ar4si, section 2.3.2).
    #[must_use]
    pub const fn value(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Affirming => 2,
            Self::Warning => 32,
            Self::Contraindicated => 96,
        }
    }

    /// Name of the tier.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As its value.
impl Serialize for Trust {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.value())
    }
}

// === impl TrustVector ===

impl TrustVector {
    fn claim_mut(&mut self, dimension: Dimension) -> &mut Trust {
        match dimension {
            Dimension::InstanceIdentity => &mut self.instance_identity,
            Dimension::Configuration => &mut self.configuration,
            Dimension::Executables => &mut self.executables,
            Dimension::FileSystem => &mut self.file_system,
            Dimension::Hardware => &mut self.hardware,
            Dimension::RuntimeOpaque => &mut self.runtime_opaque,
            Dimension::StorageOpaque => &mut self.storage_opaque,
            Dimension::SourcedData => &mut self.sourced_data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Checks<&'static str> {
        let mut checks = Checks::new();
        checks.require(Dimension::Hardware, "signature", Ok(()));
        checks.prefer(Dimension::Hardware, "patch level", Err("out of date"));
        checks.skip(Dimension::Executables, "measurement");
        checks
    }

    #[test]
    fn the_worst_of_each_claim_counts() {
        let mut checks = checks();
        assert_eq!(checks.vector().hardware, Trust::Warning);
        assert_eq!(checks.vector().executables, Trust::None);
        assert_eq!((checks.trust(), checks.verdict()), (Trust::Warning, Ok(())));
        checks.require(Dimension::Configuration, "debug", Err("debug is on"));
        checks.require(Dimension::Configuration, "version", Ok(()));
        assert_eq!(checks.vector().configuration, Trust::Contraindicated);
        assert_eq!(
            (checks.trust(), checks.verdict()),
            (Trust::Contraindicated, Err("debug is on"))
        );
    }

    #[test]
    fn what_was_not_appraised_lowers_nothing() {
        let mut checks = Checks::<()>::new();
        assert_eq!(checks.trust(), Trust::None);
        checks.skip(Dimension::Executables, "measurement");
        assert_eq!(checks.trust(), Trust::None);
        checks.require(Dimension::Hardware, "signature", Ok(()));
        assert_eq!(checks.trust(), Trust::Affirming);
    }

    #[test]
    fn a_vector_is_written_as_the_values_of_its_claims() {
        let json = serde_json::to_value(checks().vector()).unwrap();
        assert_eq!((&json["hardware"], &json["instance-identity"]), (&32.into(), &0.into()));
        assert_eq!(json.as_object().unwrap().len(), 8);
    }
}
