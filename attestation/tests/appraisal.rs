//! Real bundles, looked at under the built-in rules and under policies.

use std::path::Path;

use cloister_attestation::check::Finding;
use cloister_attestation::snp::SnpRefusal;
use cloister_attestation::{
    Appraisal, AppraisalPolicy, Bundle, Claims, CpuEvidence, DeviceArch, DeviceEvidence, Endorsements, Refusal, Rules,
    Tee, Trust, UnixTime, appraise_bundle,
};

/// 2026-01-01: the certificates of all chips that are used here are valid.
const NOW: UnixTime = UnixTime(1_767_225_600);
/// 2025-06-01: that of the provider's key is.
const VLEK_NOW: UnixTime = UnixTime(1_748_736_000);
/// 2025-07-01: within the month of the quote's collateral.
const TDX_NOW: UnixTime = UnixTime(1_751_328_000);

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)).unwrap()
}

fn snp(report: &str, vek: &str) -> Bundle {
    Bundle {
        cpu: Some(CpuEvidence::Snp {
            report: file(&format!("snp/{report}")),
            vek: file(&format!("snp/{vek}")),
        }),
        ..Bundle::default()
    }
}

/// Milan: its report data is 32 bytes and then zeros.
fn milan() -> Bundle {
    snp("trustee_report.bin", "trustee_vcek.der")
}

fn tdx() -> Bundle {
    Bundle {
        cpu: Some(CpuEvidence::Tdx {
            quote: file("tdx/phala_tdx_quote"),
            collateral: String::from_utf8(file("tdx/phala_tdx_quote_collateral.json")).unwrap(),
        }),
        ..Bundle::default()
    }
}

fn genuine(bundle: &Bundle, nonce: Option<&[u8]>, now: UnixTime) -> Appraisal {
    appraise_bundle(bundle, nonce, now, Rules::Genuine, &Endorsements::default())
}

fn under(bundle: &Bundle, policy: &AppraisalPolicy, nonce: Option<&[u8]>) -> Appraisal {
    appraise_bundle(bundle, nonce, NOW, Rules::Policy(policy), &Endorsements::default())
}

fn report_data(bundle: &Bundle) -> Vec<u8> {
    match &bundle.cpu {
        Some(CpuEvidence::Snp { report, .. }) => report[0x50..0x90].to_vec(),
        other => panic!("{other:?}"),
    }
}

// === the built-in rules ===

#[test]
fn genuine_reports_without_reference_values_have_hardware_2_and_executables_0() {
    for bundle in [
        milan(),
        snp("sev_report_milan.bin", "sev_vcek_milan.der"),
        snp("azure_genoa.bin", "azure_genoa_vcek.der"),
        snp("oak_genoa.bin", "oak_genoa_vcek.der"),
    ] {
        let appraisal = genuine(&bundle, None, NOW);
        assert_eq!((appraisal.status(), appraisal.refusal()), (Trust::Affirming, None));
        let cpu = &appraisal.submodules["cpu0"];
        let vector = cpu.vector();
        assert_eq!((vector.hardware, vector.executables), (Trust::Affirming, Trust::None));
        assert!(matches!(cpu.claims, Some(Claims::Snp(_))) && cpu.reasons().is_empty());
        assert!(appraisal.common().all(|check| check.finding == Finding::NotAppraised));
    }
    let appraisal = genuine(&tdx(), None, TDX_NOW);
    assert_eq!((appraisal.status(), appraisal.refusal()), (Trust::Affirming, None));
    let vector = appraisal.submodules["cpu0"].vector();
    assert_eq!((vector.hardware, vector.executables), (Trust::Affirming, Trust::None));
    assert!(matches!(appraisal.submodules["cpu0"].claims, Some(Claims::Tdx(_))));
}

#[test]
fn a_privilege_level_above_0_is_a_warning() {
    let appraisal = genuine(&snp("trustee_vlek_report.bin", "trustee_vlek.der"), None, VLEK_NOW);
    assert_eq!((appraisal.status(), appraisal.refusal()), (Trust::Warning, None));
    let cpu = &appraisal.submodules["cpu0"];
    assert_eq!(cpu.vector().hardware, Trust::Affirming);
    assert!(
        matches!(cpu.reasons()[..], [Refusal::Snp(SnpRefusal::Vmpl(1))]),
        "{:?}",
        cpu.reasons()
    );
}

#[test]
fn a_guest_that_may_be_debugged_is_contraindicated() {
    let appraisal = genuine(&snp("gosev_attestation.bin", "gosev_vcek.der"), None, NOW);
    assert_eq!(appraisal.status(), Trust::Contraindicated);
    assert_eq!(appraisal.refusal(), Some(&Refusal::Snp(SnpRefusal::Debug)));
    assert_eq!(appraisal.submodules["cpu0"].vector().hardware, Trust::Affirming);
}

#[test]
fn a_report_that_was_changed_is_contraindicated_and_says_nothing() {
    let mut bundle = milan();
    let Some(CpuEvidence::Snp { report, .. }) = &mut bundle.cpu else {
        panic!("not of SNP")
    };
    report[0x50] ^= 1;
    let appraisal = genuine(&bundle, None, NOW);
    assert_eq!(appraisal.status(), Trust::Contraindicated);
    let cpu = &appraisal.submodules["cpu0"];
    assert_eq!((cpu.vector().hardware, &cpu.claims), (Trust::Contraindicated, &None));
    assert_eq!(cpu.reasons(), [&Refusal::Snp(SnpRefusal::Signature)]);
}

#[test]
fn evidence_out_of_date_is_contraindicated() {
    for (bundle, now) in [
        (milan(), UnixTime(4_000_000_000)),
        (tdx(), NOW),
        (tdx(), UnixTime(1_760_000_000)),
    ] {
        assert_eq!(genuine(&bundle, None, now).status(), Trust::Contraindicated);
    }
}

#[test]
fn a_simulated_tee_is_never_genuine() {
    let Some(CpuEvidence::Snp { report, vek }) = milan().cpu else {
        panic!("not of SNP")
    };
    let chain = String::new();
    let bundle = Bundle {
        cpu: Some(CpuEvidence::Simulated { report, vek, chain }),
        ..Bundle::default()
    };
    let appraisal = genuine(&bundle, None, NOW);
    assert_eq!(appraisal.refusal(), Some(&Refusal::SimulatedNotAllowed));
}

#[test]
fn nothing_is_not_affirmed() {
    let appraisal = genuine(&Bundle::default(), None, NOW);
    assert_eq!(appraisal.status(), Trust::Contraindicated);
    assert_eq!(appraisal.refusal(), Some(&Refusal::NoEvidence));
}

// === nonce ===

#[test]
fn the_nonce_that_is_given_is_the_report_data_or_its_first_32_bytes() {
    let bundle = milan();
    let data = report_data(&bundle);
    for nonce in [&data[..], &data[..32], &data[..40]] {
        assert_eq!(
            genuine(&bundle, Some(nonce), NOW).status(),
            Trust::Affirming,
            "{}",
            nonce.len()
        );
    }
    // All 64 bytes are used: 32 may stand alone, no other number.
    let full = snp("sev_report_milan.bin", "sev_vcek_milan.der");
    let data = report_data(&full);
    for (length, expected) in [
        (64, Trust::Affirming),
        (32, Trust::Affirming),
        (31, Trust::Contraindicated),
        (63, Trust::Contraindicated),
    ] {
        assert_eq!(
            genuine(&full, Some(&data[..length]), NOW).status(),
            expected,
            "{length}"
        );
    }
}

#[test]
fn a_stale_truncated_or_oversized_nonce_is_refused() {
    let bundle = milan();
    let data = report_data(&bundle);
    let mut other = data.clone();
    other[31] ^= 1;
    for nonce in [
        &other[..32],
        &data[..31],
        &other,
        &[data.as_slice(), &[0]].concat(),
        &[0; 32],
    ] {
        let appraisal = genuine(&bundle, Some(nonce), NOW);
        assert_eq!(appraisal.refusal(), Some(&Refusal::CpuNonce));
        assert_eq!(appraisal.status(), Trust::Contraindicated);
    }
}

#[test]
fn a_bundle_that_says_another_nonce_than_the_given_one_is_refused() {
    let mut bundle = milan();
    let data = report_data(&bundle);
    bundle.nonce = Some(data[..32].to_vec());
    assert_eq!(genuine(&bundle, Some(&data[..32]), NOW).status(), Trust::Affirming);
    bundle.nonce = Some(vec![1; 32]);
    assert_eq!(
        genuine(&bundle, Some(&data[..32]), NOW).refusal(),
        Some(&Refusal::Nonce)
    );
    // Without a given one, what a bundle says of itself binds its devices, not its CPU.
    assert_eq!(genuine(&bundle, None, NOW).status(), Trust::Affirming);
}

#[test]
fn a_nonce_that_no_device_can_answer_is_refused() {
    let mut bundle = milan();
    bundle.devices = vec![device(1), device(2)];
    for length in [31, 33, 64] {
        let found = genuine(&bundle, Some(&vec![0; length]), NOW);
        assert_eq!(found.refusal(), Some(&Refusal::NonceLength(length)));
        let mut said = bundle.clone();
        said.nonce = Some(vec![0; length]);
        assert_eq!(genuine(&said, None, NOW).refusal(), Some(&Refusal::NonceLength(length)));
    }
}

// === devices ===

fn device(byte: u8) -> DeviceEvidence {
    DeviceEvidence {
        arch: DeviceArch::Hopper,
        evidence: vec![byte],
        certificate: byte.to_string(),
    }
}

#[test]
fn a_device_that_is_there_twice_is_refused() {
    let twice = |change: fn(&mut DeviceEvidence)| {
        let mut bundle = Bundle {
            devices: vec![device(1), device(2), device(3)],
            ..Bundle::default()
        };
        change(&mut bundle.devices[2]);
        let appraisal = genuine(&bundle, None, NOW);
        appraisal.reasons().contains(&&Refusal::DuplicateDevice(0, 2))
    };
    assert!(!twice(|_| ()));
    assert!(twice(|device| device.evidence = vec![1]));
    assert!(twice(|device| device.certificate = "1".into()));
}

#[test]
fn devices_are_named_by_their_order_among_their_kind() {
    let mut bundle = Bundle {
        devices: vec![device(1), device(2), device(3), device(4)],
        ..Bundle::default()
    };
    bundle.devices[0].arch = DeviceArch::Ls10;
    bundle.devices[2].arch = DeviceArch::Blackwell;
    bundle.devices[3].arch = DeviceArch::Ls10;
    let appraisal = genuine(&bundle, None, NOW);
    let names: Vec<_> = appraisal.submodules.keys().collect();
    assert_eq!(names, ["gpu0", "gpu1", "switch0", "switch1"]);
    assert!(
        appraisal
            .submodules
            .values()
            .all(|part| part.status() == Trust::Contraindicated)
    );
}

// === policies ===

#[test]
fn an_empty_policy_refuses_every_kind_of_evidence() {
    let mut empty = AppraisalPolicy::default();
    for unbound in [false, true] {
        empty.danger.unbound_evidence = unbound;
        let refused = under(&milan(), &empty, None);
        assert_eq!(refused.refusal(), Some(&Refusal::TeeNotAllowed(Tee::Snp)));
        let refused = appraise_bundle(&tdx(), None, TDX_NOW, Rules::Policy(&empty), &Endorsements::default());
        assert_eq!(refused.refusal(), Some(&Refusal::TeeNotAllowed(Tee::Tdx)));
        let devices = Bundle {
            devices: vec![device(1)],
            ..Bundle::default()
        };
        assert_eq!(under(&devices, &empty, None).status(), Trust::Contraindicated);
    }
}

#[test]
fn listing_a_kind_of_tee_alone_accepts_none_of_it() {
    let mut policy = AppraisalPolicy::default();
    policy.danger.unbound_evidence = true;
    policy.tees = [Tee::Snp, Tee::Tdx].into();
    assert!(matches!(
        under(&milan(), &policy, None).refusal(),
        Some(Refusal::Snp(_))
    ));
    let quote = appraise_bundle(&tdx(), None, TDX_NOW, Rules::Policy(&policy), &Endorsements::default());
    assert!(matches!(quote.refusal(), Some(Refusal::Tdx(_))));
}

#[test]
fn evidence_that_is_bound_to_no_enclave_is_refused_unless_the_policy_says_so() {
    let claims = match &genuine(&snp("oak_genoa.bin", "oak_genoa_vcek.der"), None, NOW).submodules["cpu0"].claims {
        Some(Claims::Snp(claims)) => claims.clone(),
        other => panic!("{other:?}"),
    };
    let mut policy = AppraisalPolicy {
        tees: [Tee::Snp].into(),
        allowed_generations: [claims.generation].into(),
        min_tcb: [(claims.generation, claims.launch_tcb)].into(),
        measurements: [claims.measurement].into(),
        host_data: [claims.init_data].into(),
        ..AppraisalPolicy::default()
    };
    policy.danger.skip_alias_check = true;
    let bundle = snp("oak_genoa.bin", "oak_genoa_vcek.der");
    assert_eq!(under(&bundle, &policy, None).refusal(), Some(&Refusal::Unbound));
    policy.danger.unbound_evidence = true;
    let found = under(&bundle, &policy, None);
    assert_eq!((found.refusal(), found.status()), (None, Trust::Affirming));
    assert_eq!(found.submodules["cpu0"].vector().executables, Trust::Affirming);
    // A nonce that is given counts all the same.
    assert_eq!(
        under(&bundle, &policy, Some(&report_data(&bundle)[..32])).refusal(),
        None
    );
    assert_eq!(
        under(&bundle, &policy, Some(&[9; 32])).refusal(),
        Some(&Refusal::CpuNonce)
    );
}
