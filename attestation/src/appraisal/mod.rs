//! What an appraisal of evidence found, part by part, and the only way from there to an [`AttestationResult`].
//!
//! [`appraise_bundle`] looks at everything and says of each thing what it found. [`appraise`] looks at the same, in the same way,
//! and refuses at the first thing that does not hold.

mod cpu;
mod devices;
mod refusal;

use std::collections::BTreeMap;

use serde::Serialize;
use subtle::ConstantTimeEq;

use self::cpu::VerifiedCpu;
use crate::binding::{self, NONCE_LEN};
use crate::bundle::Bundle;
use crate::check::{Check, Checks, Dimension, Finding, Trust, TrustVector};
use crate::endorsements::Endorsements;
use crate::evidence::Evidence;
use crate::ids::UnixTime;
use crate::nvidia::NvidiaClaims;
use crate::policy::AppraisalPolicy;
use crate::result::{AttestationResult, Tier};
use crate::rules::Rules;
use crate::snp::SnpClaims;
use crate::tdx::TdxClaims;

pub use self::refusal::Refusal;

/// Name of the one CPU.
const CPU: &str = "cpu0";
/// What ties CPU, devices, key, boot, workload and nonce together.
const BINDING: &str = "report data of the CPU binds nonce, key, boot, workload and devices";
/// That the evidence was made for whoever asks.
const NONCE: &str = "evidence answers the nonce";

/// What an appraisal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appraisal {
    /// Each part: `cpu0`, `gpu0` and so on, `switch0` and so on.
    pub submodules: BTreeMap<String, Submodule>,
    asked: Checks<Refusal>,
    whole: Checks<Refusal>,
    valid_until: UnixTime,
}

/// What was found of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// What it says of itself; nothing if it is not proven that it says so.
    pub claims: Option<Claims>,
    /// What was looked at.
    pub checks: Checks<Refusal>,
}

/// What a verified part says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Claims {
    /// AMD SEV-SNP, or a TEE that SIMULATES it.
    Snp(Box<SnpClaims>),
    /// Intel TDX.
    Tdx(Box<TdxClaims>),
    /// A GPU or a switch of NVIDIA.
    Nvidia(Box<NvidiaClaims>),
}

/// What stands around a bundle.
#[derive(Clone, Copy)]
enum Context<'a> {
    /// Nothing but perhaps a nonce.
    Bare { nonce: Option<&'a [u8]> },
    /// An enclave, and the nonce that it was asked with.
    Enclave {
        evidence: &'a Evidence,
        nonce: &'a [u8; NONCE_LEN],
    },
}

/// Looks at `bundle` at `now` under `rules`, and says of everything what it found. With a `nonce`, the evidence must answer it.
///
/// A bundle does not say to which enclave it belongs: a policy refuses it unless its `danger.unboundEvidence` is set. For
/// evidence of an enclave there is [`appraise`].
#[must_use]
pub fn appraise_bundle(
    bundle: &Bundle,
    nonce: Option<&[u8]>,
    now: UnixTime,
    rules: Rules<'_>,
    endorsements: &Endorsements,
) -> Appraisal {
    look(bundle, Context::Bare { nonce }, now, rules, endorsements).0
}

/// Looks at the evidence of an enclave like [`appraise_bundle`], and at what binds it to the enclave and to `nonce`.
#[must_use]
pub fn appraise_enclave(
    evidence: &Evidence,
    nonce: &[u8; NONCE_LEN],
    now: UnixTime,
    rules: Rules<'_>,
    endorsements: &Endorsements,
) -> Appraisal {
    let context = Context::Enclave { evidence, nonce };
    look(&evidence.bundle, context, now, rules, endorsements).0
}

/// Appraises `evidence`, which must answer `nonce`, at `now` under `policy`.
///
/// The SIMULATED TEE goes through the same verifier as a real one; only the root is another, and the result says so.
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
    let context = Context::Enclave { evidence, nonce };
    let (appraisal, cpu) = look(&evidence.bundle, context, now, Rules::Policy(policy), endorsements);
    if let Some(refusal) = appraisal.refusal() {
        return Err(refusal.clone());
    }
    let tee = evidence.bundle.cpu.as_ref().ok_or(Refusal::NoCpu)?.tee();
    let cpu = cpu.ok_or(Refusal::NoCpu)?;
    let tier = match appraisal.status() {
        Trust::Affirming => Tier::Affirming,
        Trust::Warning => Tier::Warning,
        // Nothing appraised or something refused: both ended above.
        Trust::None | Trust::Contraindicated => return Err(Refusal::NoEvidence),
    };
    Ok(AttestationResult {
        enclave_id: evidence.enclave_id(),
        boot_id: evidence.boot_id,
        identity_key: evidence.identity_key,
        workload: evidence.workload.clone(),
        tee,
        measurement: cpu.measurement(),
        platform_id: cpu.platform_id(),
        policy_hash: policy.canonical_hash(),
        appraised_at: now,
        expires_at: now.plus(policy.max_age_seconds.value()).min(appraisal.valid_until),
        tier,
        appraisal,
    })
}

fn look(
    bundle: &Bundle,
    context: Context<'_>,
    now: UnixTime,
    rules: Rules<'_>,
    endorsements: &Endorsements,
) -> (Appraisal, Option<VerifiedCpu>) {
    let asked = check_asked(bundle, context, rules);
    let mut submodules = BTreeMap::new();
    let mut valid_until = UnixTime(u64::MAX);
    let cpu = bundle.cpu.as_ref().and_then(|cpu| {
        let (submodule, verified) = cpu::appraise(cpu, now, rules, endorsements);
        submodules.insert(CPU.to_owned(), submodule);
        verified
    });
    if let Some(cpu) = &cpu {
        valid_until = cpu.valid_until(endorsements);
    }
    let nonce = context.device_nonce(bundle);
    let devices = devices::appraise(&bundle.devices, nonce.as_ref(), now, rules, endorsements);
    valid_until = valid_until.min(devices.valid_until);
    submodules.extend(devices.submodules);
    let mut whole = devices.fleet;
    check_whole(cpu.as_ref(), context, rules, &mut whole);
    let appraisal = Appraisal {
        submodules,
        asked,
        whole,
        valid_until,
    };
    (appraisal, cpu)
}

/// Before any part is verified: whether it is evidence of a kind that is asked for, and says that it answers the nonce.
fn check_asked(bundle: &Bundle, context: Context<'_>, rules: Rules<'_>) -> Checks<Refusal> {
    let mut checks = Checks::new();
    let empty = bundle.cpu.is_none() && bundle.devices.is_empty();
    if empty {
        checks.require(Dimension::Hardware, "there is evidence", Err(Refusal::NoEvidence));
    }
    if let (Some(cpu), Some(policy)) = (&bundle.cpu, rules.policy()) {
        let allowed = policy.tees.contains(&cpu.tee());
        let found = allowed.then_some(()).ok_or(Refusal::TeeNotAllowed(cpu.tee()));
        checks.require(Dimension::Hardware, "kind of TEE is allowed", found);
    }
    let said = bundle.nonce.as_deref();
    match context {
        Context::Enclave { nonce, .. } => {
            let cpu = bundle.cpu.as_ref().map(|_| ()).ok_or(Refusal::NoCpu);
            checks.require(Dimension::Hardware, "there is evidence of a CPU", cpu);
            // Said by the enclave and proven by the binding: a separate answer for the common mistake.
            let same = (said == Some(nonce)).then_some(()).ok_or(Refusal::Nonce);
            checks.require(Dimension::InstanceIdentity, NONCE, same);
        }
        Context::Bare { nonce: Some(nonce) } => {
            let same = said
                .is_none_or(|said| said == nonce)
                .then_some(())
                .ok_or(Refusal::Nonce);
            checks.require(Dimension::InstanceIdentity, NONCE, same);
        }
        Context::Bare { nonce: None } => checks.skip(Dimension::InstanceIdentity, NONCE),
    }
    if let (Context::Bare { nonce }, false) = (context, bundle.devices.is_empty())
        && let Some(nonce) = nonce.or(said)
        && nonce.len() != NONCE_LEN
    {
        let refusal = Refusal::NonceLength(nonce.len());
        checks.require(
            Dimension::InstanceIdentity,
            "nonce has the length of a device's",
            Err(refusal),
        );
    }
    checks
}

/// After each part was verified: what ties them together, and what runs on them.
fn check_whole(cpu: Option<&VerifiedCpu>, context: Context<'_>, rules: Rules<'_>, checks: &mut Checks<Refusal>) {
    let dimension = Dimension::InstanceIdentity;
    match (context, cpu) {
        (Context::Enclave { evidence, nonce }, Some(cpu)) => {
            let expected = binding::report_data(nonce, &evidence.enclave_id(), &evidence.devices_digest());
            let same = bool::from(cpu.report_data().ct_eq(&expected));
            checks.require(dimension, BINDING, same.then_some(()).ok_or(Refusal::Binding));
        }
        // The CPU was refused, and so is the whole.
        (Context::Enclave { .. }, None) => checks.skip(dimension, BINDING),
        (Context::Bare { nonce: Some(nonce) }, Some(cpu)) => {
            let same = carries(cpu.report_data(), nonce);
            let found = same.then_some(()).ok_or(Refusal::CpuNonce);
            checks.require(dimension, "report data of the CPU is the nonce", found);
        }
        (Context::Bare { .. }, _) => {}
    }
    match (context, rules) {
        (Context::Enclave { evidence, .. }, Rules::Policy(policy)) => {
            let found = policy.workloads.check(&evidence.workload, &policy.danger);
            let found = found.map_err(Refusal::from);
            checks.require(Dimension::Executables, "workload is allowed", found);
        }
        (Context::Bare { .. }, Rules::Policy(policy)) if !policy.danger.unbound_evidence => {
            checks.require(dimension, BINDING, Err(Refusal::Unbound));
        }
        (_, _) => checks.skip(dimension, BINDING),
    }
}

/// Whether `report_data` is `nonce`, padded with zeros, or begins with its 32 bytes.
fn carries(report_data: &[u8; binding::REPORT_DATA_LEN], nonce: &[u8]) -> bool {
    let mut padded = [0; binding::REPORT_DATA_LEN];
    let Some(front) = padded.get_mut(..nonce.len()) else {
        return false;
    };
    front.copy_from_slice(nonce);
    let begins = nonce.len() == NONCE_LEN
        && report_data
            .get(..NONCE_LEN)
            .is_some_and(|front| bool::from(front.ct_eq(nonce)));
    bool::from(report_data.ct_eq(&padded)) || begins
}

// === impl Context ===

impl Context<'_> {
    /// The nonce that devices must answer.
    fn device_nonce(&self, bundle: &Bundle) -> Option<[u8; NONCE_LEN]> {
        match self {
            Self::Enclave { evidence, nonce } => Some(binding::gpu_nonce(nonce, &evidence.enclave_id())),
            // One of another length is refused before.
            Self::Bare { nonce } => nonce
                .or(bundle.nonce.as_deref())
                .and_then(|nonce| nonce.try_into().ok()),
        }
    }
}

// === impl Appraisal ===

impl Appraisal {
    /// What was looked at of all parts together.
    pub fn common(&self) -> impl Iterator<Item = &Check<Refusal>> {
        self.asked.iter().chain(self.whole.iter())
    }

    /// Tier of the whole: the worst of everything that was looked at. What was not appraised lowers nothing.
    #[must_use]
    pub fn status(&self) -> Trust {
        let parts = self.submodules.values().map(Submodule::status);
        parts
            .chain([self.asked.trust(), self.whole.trust()])
            .max()
            .unwrap_or_default()
    }

    /// Why it is refused: the first thing that does not hold.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        let parts = self.submodules.values().map(|part| &part.checks);
        let mut all = std::iter::once(&self.asked).chain(parts).chain([&self.whole]);
        all.find_map(Checks::refusal)
    }

    /// Why the parts together are not affirmed.
    #[must_use]
    pub fn reasons(&self) -> Vec<&Refusal> {
        reasons(self.common())
    }

    /// The first end of a certificate, of collateral or of a list that this rests on.
    #[must_use]
    pub const fn valid_until(&self) -> UnixTime {
        self.valid_until
    }
}

// === impl Submodule ===

impl Submodule {
    /// A part of which nothing is proven.
    fn refused(refusal: Refusal) -> Self {
        let mut checks = Checks::new();
        checks.require(Dimension::Hardware, "report and certificates are genuine", Err(refusal));
        Self { claims: None, checks }
    }

    /// Tier of the part.
    #[must_use]
    pub fn status(&self) -> Trust {
        self.checks.trust()
    }

    /// AR4SI's claims of the part.
    #[must_use]
    pub fn vector(&self) -> TrustVector {
        self.checks.vector()
    }

    /// Why it is not affirmed: what is refused and what is only tolerated.
    #[must_use]
    pub fn reasons(&self) -> Vec<&Refusal> {
        reasons(self.checks.iter())
    }
}

fn reasons<'a>(checks: impl Iterator<Item = &'a Check<Refusal>>) -> Vec<&'a Refusal> {
    let reason = |check: &'a Check<Refusal>| match &check.finding {
        Finding::Warned(reason) | Finding::Refused(reason) => Some(reason),
        Finding::Passed | Finding::NotAppraised => None,
    };
    checks.filter_map(reason).collect()
}
