//! One SIMULATED TEE for all tests, whose private keys are known, so that each test can forge one thing and sign it again.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use cloister_attestation::identity::sha256;
use cloister_attestation::snp::{CertificateRefusal, Role, SnpRefusal};
use cloister_attestation::{
    AppraisalPolicy, AttestationResult, BootId, CpuEvidence, Endorsements, EngineConfinement, Evidence, IdentityKey,
    ModelDigest, Refusal, Sha256Digest, SwitchIsolation, UnixTime, Workload, appraise, binding, danger,
};
use cloister_enclave_attester::simulated::{FILE_NAME, pki};
use cloister_enclave_attester::{CpuTee, SimulatedTee};
use der::pem::{LineEnding, encode_string};

/// 2026-06-01.
pub(crate) const NOW: UnixTime = UnixTime(1_780_272_000);
pub(crate) const NONCE: [u8; 32] = [0x11; 32];
pub(crate) const MEASUREMENT: [u8; 48] = [0x22; 48];
pub(crate) const ENGINE: Sha256Digest = Sha256Digest::from_bytes([0x33; 32]);
pub(crate) const MODEL: ModelDigest = ModelDigest::from_bytes([0x44; 32]);
pub(crate) const MODEL_NAME: &str = "smollm2";

pub(crate) struct World {
    pub(crate) chain: pki::Chain,
    pub(crate) chip: pki::Chip,
    pub(crate) tee: SimulatedTee,
}

pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let chain = pki::Chain::generate(NOW).unwrap();
        let chip = pki::Chip::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let parts = [
            ("PRIVATE KEY", chip.pkcs8().unwrap().to_vec()),
            ("CERTIFICATE", chain.issue_vcek(&chip, NOW).unwrap()),
            ("CERTIFICATE", chain.ask.clone()),
            ("CERTIFICATE", chain.ark.clone()),
        ];
        let pem: String = parts.iter().map(|(label, der)| pem(label, der)).collect();
        write(&dir.path().join(FILE_NAME), &pem, 0o600);
        let tee = SimulatedTee::open(dir.path(), MEASUREMENT).unwrap();
        World { chain, chip, tee }
    })
}

pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    encode_string(label, LineEnding::LF, der).unwrap()
}

pub(crate) fn chain_pem(ask: &[u8], ark: &[u8]) -> String {
    pem("CERTIFICATE", ask) + &pem("CERTIFICATE", ark)
}

pub(crate) fn workload() -> Workload {
    Workload {
        enclave_version: "0.1.0".into(),
        engine_kind: "llamacpp".into(),
        engine_image: ENGINE,
        engine_args: vec!["--ctx-size=4096".into()],
        engine_env: BTreeMap::from([("LANG".into(), "C".into())]),
        model: MODEL,
        served_model_name: MODEL_NAME.into(),
        scrub_method: "slot-erase".into(),
        switch_isolation: SwitchIsolation::Reset,
        confinement: EngineConfinement::Full,
    }
}

/// Evidence by `tee` that answers [`NONCE`].
pub(crate) fn evidence_by(tee: &dyn CpuTee, workload: Workload) -> Evidence {
    let (key, boot) = (IdentityKey::from_raw([0x55; 32]), BootId::from_bytes([0x66; 16]));
    let enclave = binding::enclave_id(&key, &boot, &workload.digest());
    let report_data = binding::report_data(&NONCE, &enclave, &binding::devices_digest(&[]));
    Evidence::of_cpu(key, boot, workload, &NONCE, tee.report(&report_data).unwrap())
}

pub(crate) fn evidence() -> Evidence {
    evidence_by(&world().tee, workload())
}

/// A policy that accepts [`evidence`] and nothing else.
pub(crate) fn policy() -> AppraisalPolicy {
    danger::simulated_policy(sha256(&[&world().chain.ark]), world().tee.measurement(), &workload())
}

/// The same, for whatever workload it lists the parts of.
pub(crate) fn policy_by_parts() -> AppraisalPolicy {
    let mut policy = policy();
    policy.workloads.digests = None;
    policy
}

pub(crate) fn verdict(evidence: &Evidence, policy: &AppraisalPolicy) -> Result<AttestationResult, Refusal> {
    appraise(evidence, &NONCE, NOW, policy, &Endorsements::default())
}

#[track_caller]
pub(crate) fn refused(evidence: &Evidence, policy: &AppraisalPolicy) -> Refusal {
    verdict(evidence, policy).expect_err("accepted")
}

/// Report, certificate and chain of SIMULATED evidence.
pub(crate) fn parts(evidence: &mut Evidence) -> (&mut Vec<u8>, &mut Vec<u8>, &mut String) {
    match &mut evidence.bundle.cpu {
        Some(CpuEvidence::Simulated { report, vek, chain }) => (report, vek, chain),
        other => panic!("{other:?}"),
    }
}

/// The report of SIMULATED evidence.
pub(crate) fn report(evidence: &mut Evidence) -> &mut Vec<u8> {
    parts(evidence).0
}

/// Puts a signature by `key` into `report`.
pub(crate) fn sign_again(report: &mut [u8], key: &EcdsaKeyPair) {
    let signature = key.sign(&SystemRandom::new(), &report[..0x2a0]).unwrap();
    let (r, s) = signature.as_ref().split_at(48);
    for (at, scalar) in [(0x2a0, r), (0x2e8, s)] {
        for (index, byte) in scalar.iter().rev().enumerate() {
            report[at + index] = *byte;
        }
    }
}

/// Evidence whose report has `bytes` at `at`, signed again by the chip's key.
pub(crate) fn patched(at: usize, bytes: &[u8]) -> Evidence {
    let mut evidence = evidence();
    let report = report(&mut evidence);
    report[at..at + bytes.len()].copy_from_slice(bytes);
    sign_again(report, &world().chip.key);
    evidence
}

/// The refusal of a report that was patched and signed again.
#[track_caller]
pub(crate) fn refused_report(at: usize, bytes: &[u8]) -> SnpRefusal {
    match refused(&patched(at, bytes), &policy()) {
        Refusal::Snp(refusal) => refusal,
        other => panic!("refused as {other:?}"),
    }
}

/// The refusal of a chain of which the policy names the root.
#[track_caller]
pub(crate) fn refused_chain(ark: &[u8], ask: &[u8], vcek: &[u8]) -> SnpRefusal {
    let (evidence, policy) = with_chain(ark, ask, vcek);
    match refused(&evidence, &policy) {
        Refusal::Snp(refusal) => refusal,
        other => panic!("refused as {other:?}"),
    }
}

/// Evidence with these certificates, and a policy that names their root.
pub(crate) fn with_chain(ark: &[u8], ask: &[u8], vcek: &[u8]) -> (Evidence, AppraisalPolicy) {
    let (mut evidence, mut policy) = (evidence(), policy());
    let (_, vek, chain) = parts(&mut evidence);
    *vek = vcek.to_vec();
    *chain = chain_pem(ask, ark);
    policy.danger.simulated_tee = Some(sha256(&[ark]));
    (evidence, policy)
}

pub(crate) const fn certificate(role: Role, reason: CertificateRefusal) -> SnpRefusal {
    SnpRefusal::Certificate { role, reason }
}
