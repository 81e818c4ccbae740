//! Roots, binding, workload, and the life of a result.

use cloister_attestation::identity::sha256;
use cloister_attestation::policy::{MaxAge, WorkloadRefusal};
use cloister_attestation::snp::{CertificateRefusal, Role, SimulatedRootRefusal, SnpRefusal};
use cloister_attestation::{
    AppraisalPolicy, AttestedPeer, BootId, CpuEvidence, Endorsements, EngineConfinement, Evidence, IdentityKey,
    ModelDigest, Refusal, Sha256Digest, SwitchIsolation, Tee, Tier, UnixTime, Workload, appraise,
};

use crate::support::{
    ENGINE, MODEL, MODEL_NAME, NOW, certificate, chain_pem, evidence, evidence_by, parts, patched, pem, policy,
    policy_by_parts, refused, report, verdict, with_chain, workload, world,
};

#[test]
fn genuine_evidence_is_accepted_and_says_that_it_is_simulated() {
    let result = verdict(&evidence(), &policy()).unwrap();
    assert_eq!(result.tee(), Tee::Simulated);
    assert_eq!(result.tee().label(), "SIMULATED");
    assert_eq!(result.tier(), Tier::Warning);
    assert_eq!(result.enclave_id(), evidence().enclave_id());
    assert_eq!(result.boot_id(), evidence().boot_id);
    assert_eq!(result.identity_key(), &evidence().identity_key);
    assert_eq!(result.workload(), &workload());
    assert_eq!(result.measurement(), world().tee.measurement());
    assert_eq!(result.platform_id(), world().tee.platform_id());
    assert_eq!(result.policy_hash(), policy().canonical_hash());
    assert_eq!((result.appraised_at(), result.expires_at()), (NOW, NOW.plus(3600)));
}

#[test]
fn evidence_is_accepted_after_its_way_through_json() {
    let json = evidence().to_json();
    let parsed = Evidence::from_json(json.as_bytes()).unwrap();
    assert!(verdict(&parsed, &policy()).is_ok());
    for truncated in [&json[..json.len() - 1], &json[..json.len() / 2], ""] {
        assert!(Evidence::from_json(truncated.as_bytes()).is_err());
    }
    assert!(Evidence::from_json(format!("{json}x").as_bytes()).is_err());
}

// === whose root ===

#[test]
fn an_empty_policy_refuses() {
    let refusal = refused(&evidence(), &AppraisalPolicy::default());
    assert_eq!(refusal, Refusal::TeeNotAllowed(Tee::Simulated));
}

#[test]
fn a_policy_for_real_tees_refuses_even_with_the_root_named() {
    let mut policy = policy();
    policy.tees = [Tee::Snp].into();
    assert_eq!(refused(&evidence(), &policy), Refusal::TeeNotAllowed(Tee::Simulated));
}

#[test]
fn a_policy_without_danger_refuses() {
    let mut policy = policy();
    policy.danger.simulated_tee = None;
    assert_eq!(refused(&evidence(), &policy), Refusal::SimulatedNotAllowed);
}

#[test]
fn a_policy_that_names_another_root_refuses() {
    let mut policy = policy();
    policy.danger.simulated_tee = Some(Sha256Digest::from_bytes([0; 32]));
    let found = sha256(&[&world().chain.ark]);
    assert_eq!(
        refused(&evidence(), &policy),
        Refusal::SimulatedRoot(SimulatedRootRefusal::OtherRoot { found })
    );
}

#[test]
fn the_simulated_chain_is_exactly_two_certificates() {
    let mut evidence = evidence();
    let (ask, ark) = (&world().chain.ask, &world().chain.ark);
    let good = chain_pem(ask, ark);
    for chain in [
        String::new(),
        pem("CERTIFICATE", ark),
        good.clone() + &pem("CERTIFICATE", ark),
        good.clone() + "x",
        pem("CERTIFICATE", ask) + &pem("PUBLIC KEY", ark),
        pem("CERTIFICATE", ask) + &pem("CERTIFICATE", &[ark.as_slice(), &[0]].concat()),
    ] {
        *parts(&mut evidence).2 = chain;
        let expected = Refusal::SimulatedRoot(SimulatedRootRefusal::Malformed);
        assert_eq!(refused(&evidence, &policy()), expected);
    }
}

#[test]
fn simulated_evidence_is_not_taken_for_real() {
    let (mut evidence, mut policy) = (evidence(), policy());
    policy.tees = [Tee::Snp, Tee::Tdx, Tee::Simulated].into();
    let (report, vek, _) = parts(&mut evidence);
    let (report, vek) = (report.clone(), vek.clone());
    evidence.bundle.cpu = Some(CpuEvidence::Snp { report, vek });
    let issuer = certificate(Role::Vcek, CertificateRefusal::Issuer);
    assert_eq!(refused(&evidence, &policy), Refusal::Snp(issuer));
}

// === binding ===

#[test]
fn evidence_for_another_nonce_is_refused() {
    let other = [0x12; 32];
    let refusal = appraise(&evidence(), &other, NOW, &policy(), &Endorsements::default()).unwrap_err();
    assert_eq!(refusal, Refusal::Nonce);
    // Relabelled with the nonce that is asked for: the report still carries the old one.
    let mut relabelled = evidence();
    relabelled.bundle.nonce = Some(other.into());
    let refusal = appraise(&relabelled, &other, NOW, &policy(), &Endorsements::default()).unwrap_err();
    assert_eq!(refusal, Refusal::Binding);
}

#[test]
fn a_swapped_identity_key_is_refused() {
    let mut swapped = evidence();
    swapped.identity_key = IdentityKey::from_raw([0x56; 32]);
    assert_eq!(refused(&swapped, &policy()), Refusal::Binding);
}

#[test]
fn another_boot_is_refused() {
    let mut swapped = evidence();
    swapped.boot_id = BootId::from_bytes([0x67; 16]);
    assert_eq!(refused(&swapped, &policy()), Refusal::Binding);
}

#[test]
fn a_swapped_workload_is_refused() {
    let mut swapped = evidence();
    swapped.workload.engine_args.clear();
    assert_eq!(refused(&swapped, &policy()), Refusal::Binding);
}

#[test]
fn all_64_bytes_of_the_report_data_are_compared() {
    for at in [0x50, 0x6f, 0x70, 0x8f] {
        let byte = report(&mut evidence())[at] ^ 1;
        assert_eq!(refused(&patched(at, &[byte]), &policy()), Refusal::Binding, "{at:#x}");
    }
}

// === workload ===

#[track_caller]
fn refused_workload(change: impl FnOnce(&mut AppraisalPolicy)) -> WorkloadRefusal {
    let mut policy = policy();
    change(&mut policy);
    match refused(&evidence(), &policy) {
        Refusal::Workload(refusal) => refusal,
        other => panic!("refused as {other:?}"),
    }
}

#[test]
fn an_engine_that_is_not_listed_is_refused() {
    let refusal = refused_workload(|p| p.workloads.engine_images = [Sha256Digest::from_bytes([9; 32])].into());
    assert_eq!(refusal, WorkloadRefusal::EngineImage(ENGINE));
    let refusal = refused_workload(|p| p.workloads.engine_images.clear());
    assert_eq!(refusal, WorkloadRefusal::EngineImage(ENGINE));
}

#[test]
fn a_model_that_is_not_listed_is_refused() {
    let refusal = refused_workload(|p| p.workloads.models.clear());
    assert_eq!(refusal, WorkloadRefusal::ModelName(MODEL_NAME.into()));
    let expected = ModelDigest::from_bytes([9; 32]);
    let refusal = refused_workload(|p| {
        p.workloads.models.insert(MODEL_NAME.into(), expected);
        // The right digest under another name does not help.
        p.workloads.models.insert("other".into(), MODEL);
    });
    let name = MODEL_NAME.to_owned();
    assert_eq!(
        refusal,
        WorkloadRefusal::Model {
            name,
            found: MODEL,
            expected
        }
    );
}

#[test]
fn a_forbidden_argument_is_refused_however_it_is_spelt() {
    for forbidden in ["--ctx-size", "--ctx_size", "--ctx-size=1"] {
        let refusal = refused_workload(|p| p.workloads.forbidden_arguments = [forbidden.to_owned()].into());
        assert_eq!(refusal, WorkloadRefusal::ForbiddenArgument("--ctx-size=4096".into()));
    }
    let refusal = refused_workload(|p| p.workloads.forbidden_arguments = ["LANG".to_owned()].into());
    assert_eq!(refusal, WorkloadRefusal::ForbiddenArgument("LANG".into()));
    let mut longer = policy();
    longer.workloads.forbidden_arguments = ["--ctx".to_owned(), "--ctx-size-x".to_owned()].into();
    assert!(verdict(&evidence(), &longer).is_ok());
}

#[test]
fn a_weaker_isolation_than_the_policy_asks_for_is_refused() {
    let refusal = refused_workload(|p| p.workloads.switch_isolation = SwitchIsolation::Restart);
    let (found, least) = (SwitchIsolation::Reset, SwitchIsolation::Restart);
    assert_eq!(refusal, WorkloadRefusal::SwitchIsolation { found, least });
    let mut stronger = workload();
    stronger.switch_isolation = SwitchIsolation::Restart;
    assert!(verdict(&evidence_by(&world().tee, stronger), &policy_by_parts()).is_ok());
}

#[test]
fn an_engine_that_is_not_confined_is_refused() {
    let mut weak = workload();
    weak.confinement = EngineConfinement::Weak;
    let weak = evidence_by(&world().tee, weak);
    let mut policy = policy_by_parts();
    assert_eq!(
        refused(&weak, &policy),
        Refusal::Workload(WorkloadRefusal::WeakConfinement)
    );
    policy.danger.weak_confinement = true;
    assert!(verdict(&weak, &policy).is_ok());
    assert!(verdict(&evidence(), &policy).is_ok());
}

#[test]
fn any_other_workload_than_the_pinned_one_is_refused() {
    let changes: [fn(&mut Workload); 6] = [
        |w| w.engine_args.push("--threads=2".into()),
        |w| w.engine_args = vec!["--ctx-size=8192".into()],
        |w| drop(w.engine_env.insert("OMP_NUM_THREADS".into(), "2".into())),
        |w| w.enclave_version.push('1'),
        |w| w.scrub_method = "none".into(),
        |w| w.switch_isolation = SwitchIsolation::Restart,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut other = workload();
        change(&mut other);
        let (digest, evidence) = (other.digest(), evidence_by(&world().tee, other));
        let refusal = refused(&evidence, &policy());
        assert_eq!(refusal, Refusal::Workload(WorkloadRefusal::Digest(digest)), "{index}");
        assert!(
            verdict(&evidence, &policy_by_parts()).is_ok(),
            "{index}: it is the pin that refuses"
        );
    }
    // The program that runs the engine is a part of its image.
    let mut other = workload();
    other.engine_image = Sha256Digest::from_bytes([9; 32]);
    let refusal = refused(&evidence_by(&world().tee, other), &policy());
    assert!(matches!(refusal, Refusal::Workload(WorkloadRefusal::EngineImage(_))));
    // A list that names nothing accepts nothing.
    let mut none = policy();
    none.workloads.digests = Some([].into());
    let refusal = refused(&evidence(), &none);
    assert_eq!(refusal, Refusal::Workload(WorkloadRefusal::Digest(workload().digest())));
}

// === life of a result ===

#[test]
fn an_expired_result_does_not_seal() {
    let result = verdict(&evidence(), &policy()).unwrap();
    let peer = AttestedPeer::new(result.clone(), NOW.plus(3599)).unwrap();
    assert!(peer.is_current(NOW.plus(3599)));
    assert!(!peer.is_current(NOW.plus(3600)));
    assert_eq!(peer.result().enclave_id(), result.enclave_id());
    let expired = AttestedPeer::new(result, NOW.plus(3600)).unwrap_err();
    assert_eq!((expired.from, expired.until), (NOW, NOW.plus(3600)));
}

#[test]
fn a_result_from_the_future_does_not_seal() {
    let result = verdict(&evidence(), &policy()).unwrap();
    assert!(AttestedPeer::new(result.clone(), UnixTime(NOW.0 - 1)).is_err());
    assert!(!result.is_current(UnixTime(NOW.0 - 1)));
}

#[test]
fn the_policy_and_the_certificates_bound_the_life_of_a_result() {
    let mut short = policy();
    short.max_age_seconds = MaxAge::try_from(60).unwrap();
    let result = verdict(&evidence(), &short).unwrap();
    assert_eq!(result.expires_at(), NOW.plus(60));

    let world = world();
    let mut spec = world.chip.spec(NOW).unwrap();
    spec.not_after = NOW.plus(30);
    let vcek = spec.sign(&world.chain.ask_key).unwrap();
    let (evidence, policy) = with_chain(&world.chain.ark, &world.chain.ask, &vcek);
    assert_eq!(verdict(&evidence, &policy).unwrap().expires_at(), NOW.plus(30));
}

#[test]
fn a_report_that_was_changed_after_it_was_signed_is_refused() {
    let mut evidence = evidence();
    report(&mut evidence)[0x90] ^= 1;
    assert_eq!(refused(&evidence, &policy()), Refusal::Snp(SnpRefusal::Signature));
}
