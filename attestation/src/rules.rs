//! Under what rules evidence is looked at.

use crate::policy::AppraisalPolicy;

/// Rules of an appraisal.
#[derive(Debug, Clone, Copy)]
pub enum Rules<'a> {
    /// Someone's policy: what is not allowed is refused.
    Policy(&'a AppraisalPolicy),
    /// Whether evidence is genuine, and nothing else: for looking at it. No policy to run on, and no
    /// [`AttestationResult`](crate::AttestationResult) comes of it. All generations; no binding; no reference value, floor or list
    /// is asked for. A privilege level above 0 and firmware that is out of date are warnings, what is revoked is refused.
    Genuine,
}

impl<'a> Rules<'a> {
    /// The policy, if there is one.
    #[must_use]
    pub const fn policy(self) -> Option<&'a AppraisalPolicy> {
        match self {
            Self::Policy(policy) => Some(policy),
            Self::Genuine => None,
        }
    }
}
