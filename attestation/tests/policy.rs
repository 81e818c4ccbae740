//! Policies as text: what parses, what does not, and what their hash depends on.

use std::collections::BTreeMap;

use cloister_attestation::policy::{
    AppraisalPolicy, Generation, MAX_POLICY_LEN, MaxAge, PolicyError, ReportVersion, TcbVersion,
};
use cloister_attestation::{ModelDigest, Sha256Digest, SwitchIsolation, Tee};

fn example() -> String {
    let (digest, measurement) = ("0".repeat(64), "ab".repeat(48));
    format!(
        r#"
tees: [snp]
allowedGenerations: [genoa, turin]
minTcb:
  genoa: {{bootloader: 10, tee: 0, snp: 25, microcode: 84}}
  turin: {{fmc: 1, bootloader: 1, tee: 1, snp: 4, microcode: 82}}
measurements: ["{measurement}"]
hostData: ["{digest}"]
workloads:
  engineImages: ["{digest}"]
  models: {{smollm2: "{digest}"}}
  forbiddenArguments: ["--slot-save-path"]
  switchIsolation: reset
  digests: ["{digest}"]
maxAgeSeconds: 1800
minDistinctPlatforms: 2
"#
    )
}

fn parse(text: &str) -> AppraisalPolicy {
    AppraisalPolicy::from_yaml(text).unwrap()
}

#[test]
fn the_documented_form_parses() {
    let policy = parse(&example());
    assert_eq!(policy.tees, [Tee::Snp].into());
    assert_eq!(
        policy.min_tcb[&Generation::Turin],
        TcbVersion {
            fmc: Some(1),
            bootloader: 1,
            tee: 1,
            snp: 4,
            microcode: 82
        }
    );
    assert_eq!(policy.workloads.models["smollm2"], ModelDigest::from_bytes([0; 32]));
    assert_eq!(policy.max_age_seconds.value(), 1800);
    assert_eq!(policy.min_distinct_platforms.value(), 2);
    assert_eq!(policy.danger.simulated_tee, None);
    assert_eq!(parse(&policy.to_yaml().unwrap()), policy);
}

#[test]
fn defaults_are_the_strict_ones() {
    let policy = parse("{}");
    assert_eq!(policy, AppraisalPolicy::default());
    assert_eq!(policy.workloads.switch_isolation, SwitchIsolation::Restart);
    assert_eq!(policy.max_age_seconds.value(), 3600);
    assert_eq!(policy.min_report_version.value(), 3);
    assert_eq!(policy.min_distinct_platforms.value(), 1);
    assert!(!policy.danger.skip_alias_check && !policy.danger.weak_confinement && !policy.danger.unbound_evidence);
    assert_eq!(policy.workloads.digests, None);
}

#[test]
fn unknown_keys_and_wrong_values_do_not_parse() {
    let digest = "0".repeat(64);
    for text in [
        "teees: [snp]".to_owned(),
        "tees: [sgx]".to_owned(),
        "danger: {simulatedTee: true}".to_owned(),
        "danger: {simulated: yes}".to_owned(),
        "workloads: {anyModel: true}".to_owned(),
        "minTcb: {genoa: {bootloader: 1}}".to_owned(),
        "minTcb: {genoa: {bootloader: 1, tee: 0, snp: 1, microcode: 256}}".to_owned(),
        format!("measurements: [\"{digest}\"]"),
        "maxAgeSeconds: 0".to_owned(),
        "maxAgeSeconds: 86401".to_owned(),
        "minReportVersion: 1".to_owned(),
        "minReportVersion: 6".to_owned(),
        "minDistinctPlatforms: 0".to_owned(),
        "minDistinctPlatforms: 5".to_owned(),
        "[]".to_owned(),
    ] {
        let parsed = AppraisalPolicy::from_yaml(&text);
        assert!(matches!(parsed, Err(PolicyError::Yaml(_))), "{text}");
    }
}

#[test]
fn oversized_policies_are_refused() {
    let text = format!("{}# {}", example(), "x".repeat(MAX_POLICY_LEN));
    assert!(matches!(AppraisalPolicy::from_yaml(&text), Err(PolicyError::TooLong)));
}

#[test]
fn the_hash_does_not_depend_on_order_or_spelling() {
    let policy = parse(&example());
    let reordered = example()
        .replace("[genoa, turin]", "[turin, genoa, genoa]")
        .replace("tees: [snp]\n", "")
        + "\ntees: [snp]\ndanger: {}\nminReportVersion: 3\n";
    assert_eq!(parse(&reordered).canonical_hash(), policy.canonical_hash());
    let upper = example().replace(&"ab".repeat(48), &"AB".repeat(48));
    assert_eq!(parse(&upper).canonical_hash(), policy.canonical_hash());
}

#[test]
fn the_hash_is_that_of_the_documented_bytes() {
    // Each TEE's own part is written as it is alone.
    let tdx = serde_json::to_value(AppraisalPolicy::default().tdx).unwrap();
    let tdx: BTreeMap<String, serde_json::Value> = serde_json::from_value(tdx).unwrap();
    let canonical = [
        "cloister/v1 appraisal-policy\0",
        r#"{"allowedGenerations":[],"authorKeyDigests":[],"danger":{"skipAliasCheck":false,"unboundEvidence":false,"weakConfinement":false},"deniedPlatforms":[],"#,
        r#""hostData":[],"idKeyDigests":[],"maxAgeSeconds":3600,"measurements":[],"minDistinctPlatforms":1,"#,
        r#""minReportVersion":3,"minTcb":{},"nvidia":{"architectures":[],"deniedDrivers":[],"deniedVbios":[],"devices":{"gpus":0,"#,
        r#""switches":0},"features":[],"inventory":{"allowedCertificates":[],"allowedSerials":[],"deniedCertificates":[],"#,
        r#""deniedSerials":[]},"minDriver":{},"minVbios":{},"requireFwid":true,"requireRims":true,"requireState":false,"#,
        r#""revocation":{"allowHold":false,"allowUnknown":false,"maxAgeSeconds":86400}},"snp":{"maxVmpl":0,"platforms":[],"vlekProviders":[]},"tdx":"#,
        &serde_json::to_string(&tdx).unwrap(),
        r#","tees":[],"workloads":{"engineImages":[],"forbiddenArguments":[],"#,
        r#""models":{},"switchIsolation":"restart"}}"#,
    ]
    .concat();
    let expected = cloister_attestation::identity::sha256(&[canonical.as_bytes()]);
    let hash = AppraisalPolicy::default().canonical_hash();
    assert_eq!(hash.as_bytes(), expected.as_bytes());
}

#[test]
fn every_key_changes_the_hash() {
    let base = parse(&example()).canonical_hash();
    let changes: [fn(&mut AppraisalPolicy); 22] = [
        |p| p.tees.clear(),
        |p| p.allowed_generations.clear(),
        |p| p.min_tcb.clear(),
        |p| p.min_report_version = ReportVersion::try_from(4).unwrap(),
        |p| p.measurements.clear(),
        |p| p.host_data.clear(),
        |p| p.id_key_digests = ["01".repeat(48).parse().unwrap()].into(),
        |p| p.author_key_digests = ["01".repeat(48).parse().unwrap()].into(),
        |p| p.denied_platforms = ["01".repeat(64).parse().unwrap()].into(),
        |p| p.workloads.engine_images.clear(),
        |p| p.workloads.models.clear(),
        |p| p.workloads.forbidden_arguments.clear(),
        |p| p.workloads.switch_isolation = SwitchIsolation::Restart,
        |p| p.max_age_seconds = MaxAge::default(),
        |p| p.min_distinct_platforms = Default::default(),
        |p| p.danger.simulated_tee = Some(Sha256Digest::from_bytes([0; 32])),
        |p| p.danger.skip_alias_check = true,
        |p| p.danger.weak_confinement = true,
        |p| p.danger.unbound_evidence = true,
        |p| p.workloads.digests = None,
        |p| p.workloads.digests = Some([].into()),
        |p| p.min_tcb.get_mut(&Generation::Turin).unwrap().fmc = None,
    ];
    let mut seen = vec![base];
    for (index, change) in changes.iter().enumerate() {
        let mut policy = parse(&example());
        change(&mut policy);
        let hash = policy.canonical_hash();
        assert!(!seen.contains(&hash), "change {index}");
        seen.push(hash);
    }
}
