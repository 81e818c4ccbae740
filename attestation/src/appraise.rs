//! From evidence to a result: the only way to an [`AttestationResult`].

use subtle::ConstantTimeEq;

use crate::binding::{self, NONCE_LEN};
use crate::evidence::{CpuEvidence, Evidence};
use crate::ids::UnixTime;
use crate::policy::{AppraisalPolicy, WorkloadRefusal};
use crate::result::{AttestationResult, Tier};
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
    /// A SIMULATED TEE's evidence without its chain.
    #[error("evidence of a SIMULATED TEE comes without its chain")]
    MissingChain,
    /// A real TEE's evidence with a chain of its own: its roots are built in.
    #[error("evidence of TEE {0} brings its own root certificates: the real ones are built in")]
    UnexpectedChain(Tee),
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
) -> Result<AttestationResult, Refusal> {
    let tee = evidence.cpu.tee;
    if !policy.tees.contains(&tee) {
        return Err(Refusal::TeeNotAllowed(tee));
    }
    // Said by the enclave and proven below: a separate answer for the common mistake.
    if evidence.nonce != *nonce {
        return Err(Refusal::Nonce);
    }
    let (report, tier) = verify_cpu(&evidence.cpu, now, policy)?;
    let enclave_id = evidence.enclave_id();
    let expected = binding::report_data(nonce, &enclave_id, &evidence.devices_digest());
    if !bool::from(report.report_data().ct_eq(&expected)) {
        return Err(Refusal::Binding);
    }
    report.check(policy)?;
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
    let verify = |trust| snp::verify(&cpu.report, &cpu.vek, trust, now);
    match (cpu.tee, &cpu.chain) {
        (Tee::Snp, None) => Ok((verify(Trust::Amd)?, Tier::Affirming)),
        (Tee::Snp, Some(_)) => Err(Refusal::UnexpectedChain(cpu.tee)),
        (Tee::Simulated, chain) => {
            let trusted = policy.danger.simulated_tee.as_ref();
            let trusted = trusted.ok_or(Refusal::SimulatedNotAllowed)?;
            let chain = chain.as_deref().ok_or(Refusal::MissingChain)?;
            let anchor = Anchor::simulated(chain, trusted)?;
            Ok((verify(Trust::Simulated(&anchor))?, Tier::Warning))
        }
        (Tee::Tdx, _) => Err(Refusal::NoVerifier(cpu.tee)),
    }
}
