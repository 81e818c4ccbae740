//! The CPU of a bundle, whatever its kind.

use super::{Claims, Refusal, Submodule};
use crate::bundle::CpuEvidence;
use crate::check::{Checks, Dimension};
use crate::endorsements::Endorsements;
use crate::ids::UnixTime;
use crate::policy::{Measurement, PlatformId};
use crate::rules::Rules;
use crate::snp::{self, Anchor, Trust};
use crate::tdx;

/// A CPU's report of which a genuine key, or the SIMULATED one that the policy names, is proven.
pub(crate) enum VerifiedCpu {
    Snp {
        report: Box<snp::VerifiedReport>,
        simulated: bool,
    },
    Tdx(Box<tdx::VerifiedQuote>),
}

/// What was found of it, and the report if it is genuine.
pub(super) fn appraise(
    cpu: &CpuEvidence,
    now: UnixTime,
    rules: Rules<'_>,
    endorsements: &Endorsements,
) -> (Submodule, Option<VerifiedCpu>) {
    match verify(cpu, now, rules) {
        Ok(verified) => {
            let submodule = Submodule {
                claims: Some(verified.claims()),
                checks: verified.check(rules, endorsements),
            };
            (submodule, Some(verified))
        }
        Err(refusal) => (Submodule::refused(refusal), None),
    }
}

fn verify(cpu: &CpuEvidence, now: UnixTime, rules: Rules<'_>) -> Result<VerifiedCpu, Refusal> {
    Ok(match cpu {
        CpuEvidence::Snp { report, vek } => VerifiedCpu::Snp {
            report: Box::new(snp::verify(report, vek, Trust::Amd, now)?),
            simulated: false,
        },
        CpuEvidence::Simulated { report, vek, chain } => {
            let trusted = rules.policy().and_then(|policy| policy.danger.simulated_tee.as_ref());
            let anchor = Anchor::simulated(chain, trusted.ok_or(Refusal::SimulatedNotAllowed)?)?;
            VerifiedCpu::Snp {
                report: Box::new(snp::verify(report, vek, Trust::Simulated(&anchor), now)?),
                simulated: true,
            }
        }
        CpuEvidence::Tdx { quote, collateral } => VerifiedCpu::Tdx(Box::new(tdx::verify(quote, collateral, now)?)),
    })
}

impl VerifiedCpu {
    fn check(&self, rules: Rules<'_>, endorsements: &Endorsements) -> Checks<Refusal> {
        match self {
            Self::Snp { report, simulated } => {
                // AMD's list says nothing of a SIMULATED chip.
                let crl = endorsements.amd_crls.get(&report.generation()).filter(|_| !simulated);
                let mut checks = report.check(rules, crl.map(Vec::as_slice)).map(Refusal::from);
                if *simulated {
                    checks.prefer(Dimension::Hardware, "TEE is a real one", Err(Refusal::Simulated));
                }
                checks
            }
            Self::Tdx(quote) => quote.check(rules).map(Refusal::from),
        }
    }

    fn claims(&self) -> Claims {
        match self {
            Self::Snp { report, .. } => Claims::Snp(Box::new(report.claims())),
            Self::Tdx(quote) => Claims::Tdx(Box::new(quote.claims())),
        }
    }

    pub(crate) const fn report_data(&self) -> &[u8; 64] {
        match self {
            Self::Snp { report, .. } => report.report_data(),
            Self::Tdx(quote) => quote.report_data(),
        }
    }

    pub(crate) const fn measurement(&self) -> Measurement {
        match self {
            Self::Snp { report, .. } => report.measurement(),
            Self::Tdx(quote) => quote.measurement(),
        }
    }

    pub(crate) fn platform_id(&self) -> PlatformId {
        match self {
            Self::Snp { report, .. } => report.platform_id(),
            Self::Tdx(quote) => quote.platform_id(),
        }
    }

    /// The first end of what the appraisal rests on.
    pub(super) fn valid_until(&self, endorsements: &Endorsements) -> UnixTime {
        match self {
            Self::Snp {
                report,
                simulated: true,
            } => report.valid_until(),
            Self::Snp { report, .. } => {
                let crl = endorsements.amd_crls.get(&report.generation());
                // A list that does not parse was refused by the report's check.
                let next = crl.and_then(|crl| snp::crl_next_update(crl).ok());
                next.map_or(report.valid_until(), |next| next.min(report.valid_until()))
            }
            Self::Tdx(quote) => quote.valid_until(),
        }
    }
}
