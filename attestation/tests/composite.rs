//! Real devices, alone and beside a CPU, under the built-in rules and under policies.

use std::path::Path;

use cloister_attestation::nvidia::NvidiaRefusal;
use cloister_attestation::{
    Appraisal, AppraisalPolicy, Bundle, Claims, CpuEvidence, DeviceArch, DeviceEvidence, Endorsements, Refusal, Rules,
    Trust, UnixTime, appraise_bundle,
};

/// 2024-12-01.
const NOW: UnixTime = UnixTime(1_733_011_200);

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)).unwrap()
}

fn h100() -> DeviceEvidence {
    let report = String::from_utf8(file("nvidia/e2e_pass/report.hex")).unwrap();
    DeviceEvidence {
        arch: DeviceArch::Hopper,
        evidence: hex::decode(report.trim()).unwrap(),
        certificate: String::from_utf8(file("nvidia/e2e_pass/cert_chain.pem")).unwrap(),
    }
}

fn one() -> Bundle {
    Bundle {
        devices: vec![h100()],
        ..Bundle::default()
    }
}

/// Nonce of the request in front of the report.
fn nonce() -> Vec<u8> {
    h100().evidence[4..36].to_vec()
}

fn with_rims(vbios: &str) -> Endorsements {
    let mut endorsements = Endorsements::default();
    for name in ["nvidia/e2e_pass/driver_rim_545.00.swidtag", vbios] {
        endorsements.rims.insert("", &file(name)).unwrap();
    }
    endorsements
}

fn genuine(bundle: &Bundle, nonce: Option<&[u8]>, endorsements: &Endorsements) -> Appraisal {
    appraise_bundle(bundle, nonce, NOW, Rules::Genuine, endorsements)
}

#[test]
fn a_genuine_gpu_without_references_has_hardware_2_and_executables_0() {
    let appraisal = genuine(&one(), None, &Endorsements::default());
    assert_eq!((appraisal.status(), appraisal.refusal()), (Trust::Affirming, None));
    let gpu = &appraisal.submodules["gpu0"];
    let vector = gpu.vector();
    assert_eq!((vector.hardware, vector.executables), (Trust::Affirming, Trust::None));
    assert!(matches!(gpu.claims, Some(Claims::Nvidia(_))));
}

#[test]
fn measurements_that_equal_the_signed_references_have_executables_2() {
    let endorsements = with_rims("nvidia/e2e_pass/vbios_rim_96.00.5E.00.01.swidtag");
    let appraisal = genuine(&one(), Some(&nonce()), &endorsements);
    assert_eq!((appraisal.status(), appraisal.refusal()), (Trust::Affirming, None));
    assert_eq!(appraisal.submodules["gpu0"].vector().executables, Trust::Affirming);
    // References end before the device's certificates.
    let without = genuine(&one(), None, &Endorsements::default()).valid_until();
    assert!(appraisal.valid_until() < without);
}

#[test]
fn measurements_that_differ_from_the_signed_references_are_contraindicated() {
    let endorsements = with_rims("nvidia/rims/nvtrust_1010_0200_882_96005E0001_PROD.swidtag");
    let appraisal = genuine(&one(), None, &endorsements);
    assert_eq!(appraisal.status(), Trust::Contraindicated);
    let expected = NvidiaRefusal::Measurements([1, 2, 3, 9].into());
    assert_eq!(appraisal.refusal(), Some(&Refusal::Nvidia(expected)));
    let vector = appraisal.submodules["gpu0"].vector();
    assert_eq!(
        (vector.hardware, vector.executables),
        (Trust::Affirming, Trust::Contraindicated)
    );
}

#[test]
fn a_gpu_answers_the_given_nonce_or_the_one_that_the_bundle_says() {
    let none = Endorsements::default();
    let refused = Some(Refusal::Nvidia(NvidiaRefusal::Nonce));
    assert_eq!(genuine(&one(), Some(&nonce()), &none).refusal(), None);
    assert_eq!(genuine(&one(), Some(&[1; 32]), &none).refusal(), refused.as_ref());
    let mut said = one();
    said.nonce = Some(nonce());
    assert_eq!(genuine(&said, None, &none).refusal(), None);
    said.nonce = Some(vec![1; 32]);
    assert_eq!(genuine(&said, None, &none).refusal(), refused.as_ref());
}

#[test]
fn a_gpu_that_is_there_twice_under_another_encoding_is_refused() {
    let mut twice = one();
    let mut again = h100();
    // A trailing zero is tolerated, and white space around PEM means nothing.
    again.evidence.push(0);
    again.certificate.push('\n');
    twice.devices.push(again);
    let appraisal = genuine(&twice, None, &Endorsements::default());
    let duplicate = |refusal: &&Refusal| matches!(refusal, Refusal::Nvidia(NvidiaRefusal::DuplicateDevice(_)));
    assert!(appraisal.reasons().iter().any(duplicate), "{:?}", appraisal.reasons());
}

#[test]
fn a_gpu_of_another_architecture_or_out_of_date_says_nothing() {
    let mut other = one();
    other.devices[0].arch = DeviceArch::Blackwell;
    let appraisal = genuine(&other, None, &Endorsements::default());
    let gpu = &appraisal.submodules["gpu0"];
    assert_eq!((gpu.status(), &gpu.claims), (Trust::Contraindicated, &None));
    let past = appraise_bundle(&one(), None, UnixTime(0), Rules::Genuine, &Endorsements::default());
    assert_eq!(past.status(), Trust::Contraindicated);
}

#[test]
fn cpu_and_gpu_are_two_submodules_of_which_the_worst_counts() {
    let mut both = one();
    both.cpu = Some(CpuEvidence::Snp {
        report: file("snp/gosev_attestation.bin"),
        vek: file("snp/gosev_vcek.der"),
    });
    let appraisal = genuine(&both, None, &Endorsements::default());
    assert_eq!(appraisal.submodules["gpu0"].status(), Trust::Affirming);
    assert_eq!(appraisal.submodules["cpu0"].status(), Trust::Contraindicated);
    assert_eq!(appraisal.status(), Trust::Contraindicated);
}

#[test]
fn an_empty_policy_accepts_no_device_and_none_less_than_it_asks_for() {
    let mut policy = AppraisalPolicy::default();
    policy.danger.unbound_evidence = true;
    let none = Endorsements::default();
    let found = appraise_bundle(&one(), None, NOW, Rules::Policy(&policy), &none);
    assert!(matches!(found.refusal(), Some(Refusal::Nvidia(_))));
    policy.nvidia.devices.gpus = 2;
    let found = appraise_bundle(&one(), None, NOW, Rules::Policy(&policy), &none);
    let count = |refusal: &&Refusal| {
        matches!(
            refusal,
            Refusal::Nvidia(NvidiaRefusal::DeviceCount { found_gpus: 1, .. })
        )
    };
    assert!(found.reasons().iter().any(count), "{:?}", found.reasons());
}
