//! From evidence to a result: the only way to an [`AttestationResult`].

use subtle::ConstantTimeEq;

use crate::binding::{self, NONCE_LEN};
use crate::bundle::CpuEvidence;
use crate::endorsements::Endorsements;
use crate::evidence::Evidence;
use crate::ids::UnixTime;
use crate::policy::{AppraisalPolicy, WorkloadRefusal};
use crate::result::{AttestationResult, Tier};
use crate::rules::Rules;
use crate::snp::{self, Anchor, SimulatedRootRefusal, SnpRefusal, Trust, VerifiedReport};
use crate::tee::Tee;

/// Why evidence is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The policy does not list this kind of TEE.
    #[error("TEE {0} is not among the policy's tees")]
    TeeNotAllowed(Tee),
    /// There is no verifier for this kind of TEE.
    #[error("there is no verifier for TEE {0}")]
    NoVerifier(Tee),
    /// The evidence answers another nonce: it is stale or replayed.
    #[error("evidence answers another nonce: it is stale or replayed; ask the enclave again")]
    Nonce,
    /// The policy does not name a SIMULATED root.
    #[error("evidence is of a SIMULATED TEE, and the policy's danger.simulatedTee names no root")]
    SimulatedNotAllowed,
    /// The SIMULATED chain is not the one that the policy names.
    #[error(transparent)]
    SimulatedRoot(#[from] SimulatedRootRefusal),
    /// No CPU, to which everything else is bound.
    #[error("evidence of an enclave comes without that of its CPU")]
    NoCpu,
    /// The report, its chain or what it says is refused.
    #[error(transparent)]
    Snp(#[from] SnpRefusal),
    /// The report is not bound to this nonce, identity key, boot, workload and devices.
    #[error("report is not bound to this nonce, identity key, boot, workload and devices")]
    Binding,
    /// The workload is not allowed.
    #[error(transparent)]
    Workload(#[from] WorkloadRefusal),
}

/// Appraises `evidence`, which must answer `nonce`, at `now` under `policy`.
///
/// The simulated TEE goes through the same verifier as a real one; only the root is another, and the result says so.
///
/// # Errors
/// [`Refusal`] names the first thing that does not hold. An empty policy refuses everything.
pub fn appraise(
    evidence: &Evidence,
    nonce: &[u8; NONCE_LEN],
    now: UnixTime,
    policy: &AppraisalPolicy,
    endorsements: &Endorsements,
) -> Result<AttestationResult, Refusal> {
    let Endorsements {} = endorsements;
    let cpu = evidence.bundle.cpu.as_ref().ok_or(Refusal::NoCpu)?;
    let tee = cpu.tee();
    if !policy.tees.contains(&tee) {
        return Err(Refusal::TeeNotAllowed(tee));
    }
    // Said by the enclave and proven below: a separate answer for the common mistake.
    if evidence.bundle.nonce.as_deref() != Some(nonce) {
        return Err(Refusal::Nonce);
    }
    let (report, tier) = verify_cpu(cpu, now, policy)?;
    let enclave_id = evidence.enclave_id();
    let expected = binding::report_data(nonce, &enclave_id, &evidence.devices_digest());
    if !bool::from(report.report_data().ct_eq(&expected)) {
        return Err(Refusal::Binding);
    }
    report.check(Rules::Policy(policy), None).verdict()?;
    policy.workloads.check(&evidence.workload, &policy.danger)?;
    Ok(AttestationResult {
        enclave_id,
        boot_id: evidence.boot_id,
        identity_key: evidence.identity_key,
        workload: evidence.workload.clone(),
        tee,
        measurement: report.measurement(),
        platform_id: report.platform_id(),
        policy_hash: policy.canonical_hash(),
        appraised_at: now,
        expires_at: now.plus(policy.max_age_seconds.value()).min(report.valid_until()),
        tier,
    })
}

fn verify_cpu(cpu: &CpuEvidence, now: UnixTime, policy: &AppraisalPolicy) -> Result<(VerifiedReport, Tier), Refusal> {
    match cpu {
        CpuEvidence::Snp { report, vek } => Ok((snp::verify(report, vek, Trust::Amd, now)?, Tier::Affirming)),
        CpuEvidence::Simulated { report, vek, chain } => {
            let trusted = policy.danger.simulated_tee.as_ref();
            let trusted = trusted.ok_or(Refusal::SimulatedNotAllowed)?;
            let anchor = Anchor::simulated(chain, trusted)?;
            let verified = snp::verify(report, vek, Trust::Simulated(&anchor), now)?;
            Ok((verified, Tier::Warning))
        }
        CpuEvidence::Tdx { .. } => Err(Refusal::NoVerifier(cpu.tee())),
    }
}
