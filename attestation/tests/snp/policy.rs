//! What a policy refuses of real reports.

use std::collections::BTreeSet;

use cloister_attestation::Rules;
use cloister_attestation::policy::{AppraisalPolicy, Generation, KeyDigest, PlatformId, ReportVersion};
use cloister_attestation::snp::{MaxVmpl, SnpRefusal, TcbKind, Trust, VerifiedReport, verify};

use crate::support::{
    GENOA, GENOA_VCEK, MILAN, MILAN_VCEK, NOW_OF_VLEK, VLEK, VLEK_REPORT, genuine, policy, tcb, testdata,
};

fn appraise(report: &VerifiedReport, policy: &AppraisalPolicy) -> Result<(), SnpRefusal> {
    report.check(Rules::Policy(policy), None).verdict()
}

#[test]
fn genuine_reports_pass_a_policy_that_names_what_they_say() {
    let milan = genuine(MILAN, MILAN_VCEK);
    assert_eq!(appraise(&milan, &policy(&milan, MILAN, tcb(3, 8, 0x73))), Ok(()));
    let genoa = genuine(GENOA, GENOA_VCEK);
    assert_eq!(appraise(&genoa, &policy(&genoa, GENOA, tcb(10, 25, 84))), Ok(()));
}

#[test]
fn an_empty_policy_accepts_no_genuine_report() {
    let genoa = genuine(GENOA, GENOA_VCEK);
    assert_eq!(
        appraise(&genoa, &AppraisalPolicy::default()),
        Err(SnpRefusal::Generation(Generation::Genoa))
    );
}

#[test]
fn a_guest_that_may_be_debugged_is_refused() {
    let raw = testdata!("gosev_attestation.bin");
    let report = genuine(raw, testdata!("gosev_vcek.der"));
    assert_eq!(
        appraise(&report, &policy(&report, raw, tcb(2, 5, 0x44))),
        Err(SnpRefusal::Debug)
    );
}

#[test]
fn firmware_below_the_floor_is_refused() {
    let report = genuine(GENOA, GENOA_VCEK);
    for floor in [tcb(11, 25, 84), tcb(10, 26, 84), tcb(10, 25, 85)] {
        assert!(matches!(
            appraise(&report, &policy(&report, GENOA, floor)),
            Err(SnpRefusal::TcbBelowFloor {
                kind: TcbKind::Reported,
                ..
            })
        ));
    }
    let mut none = policy(&report, GENOA, tcb(0, 0, 0));
    none.min_tcb.clear();
    assert_eq!(appraise(&report, &none), Err(SnpRefusal::NoTcbFloor(Generation::Genoa)));
}

#[test]
fn old_reports_need_a_policy_that_says_so() {
    let report = genuine(MILAN, MILAN_VCEK);
    let mut strict = policy(&report, MILAN, tcb(0, 0, 0));
    strict.min_report_version = ReportVersion::default();
    assert_eq!(
        appraise(&report, &strict),
        Err(SnpRefusal::OldVersion { found: 2, least: 3 })
    );
    strict.min_report_version = ReportVersion::try_from(2).unwrap();
    strict.danger.skip_alias_check = false;
    assert_eq!(appraise(&report, &strict), Err(SnpRefusal::AliasCheck));
}

#[test]
fn signers_of_the_identity_block_are_compared_when_the_policy_names_some() {
    let report = genuine(MILAN, MILAN_VCEK);
    let mut strict = policy(&report, MILAN, tcb(0, 0, 0));
    let actual = KeyDigest::try_from(&MILAN[0xe0..0x110]).unwrap();
    strict.id_key_digests = BTreeSet::from([actual]);
    assert_eq!(appraise(&report, &strict), Ok(()));
    strict.id_key_digests = BTreeSet::from([KeyDigest::from_bytes([1; 48])]);
    assert_eq!(appraise(&report, &strict), Err(SnpRefusal::IdKey(actual)));
    strict.id_key_digests.clear();
    let none = KeyDigest::from_bytes([0; 48]);
    strict.author_key_digests = BTreeSet::from([none]);
    assert_eq!(appraise(&report, &strict), Ok(()));
    strict.author_key_digests = BTreeSet::from([KeyDigest::from_bytes([1; 48])]);
    assert_eq!(appraise(&report, &strict), Err(SnpRefusal::AuthorKey(none)));
}

/// A report by a provider's key, and a policy that takes it.
fn by_provider() -> (VerifiedReport, AppraisalPolicy) {
    let report = verify(VLEK_REPORT, VLEK, Trust::Amd, NOW_OF_VLEK).unwrap();
    let mut policy = policy(&report, VLEK_REPORT, tcb(4, 24, 0xd9));
    policy.danger.skip_alias_check = false;
    policy.snp.vlek_providers = BTreeSet::from(["CN=cc-us-east-2.amazonaws.com".to_owned()]);
    policy.snp.max_vmpl = MaxVmpl::try_from(1).unwrap();
    (report, policy)
}

#[test]
fn a_provider_signs_only_where_the_policy_lists_him() {
    let (report, mut policy) = by_provider();
    assert_eq!(appraise(&report, &policy), Ok(()));
    let refused = Err(SnpRefusal::Provider("CN=cc-us-east-2.amazonaws.com".into()));
    policy.snp.vlek_providers = BTreeSet::from(["CN=other".to_owned()]);
    assert_eq!(appraise(&report, &policy), refused);
    policy.snp.vlek_providers.clear();
    assert_eq!(appraise(&report, &policy), refused);
}

#[test]
fn a_level_above_the_policys_is_refused() {
    let (report, mut policy) = by_provider();
    policy.snp.max_vmpl = MaxVmpl::default();
    assert_eq!(appraise(&report, &policy), Err(SnpRefusal::Vmpl(1)));
    policy.snp.max_vmpl = MaxVmpl::try_from(3).unwrap();
    assert_eq!(appraise(&report, &policy), Ok(()));
    assert!(MaxVmpl::try_from(4).is_err());
}

#[test]
fn each_of_the_four_firmware_versions_is_held_to_the_floor() {
    // Reported 0xd9, committed and launched 0xdb, current 0xdc.
    let (report, mut policy) = by_provider();
    for (floor, kind) in [
        (0xda, TcbKind::Reported),
        (0xdc, TcbKind::Reported),
        (0xdd, TcbKind::Reported),
    ] {
        policy.min_tcb.insert(Generation::Milan, tcb(4, 24, floor));
        let refused = appraise(&report, &policy).unwrap_err();
        assert!(matches!(refused, SnpRefusal::TcbBelowFloor { kind: found, .. } if found == kind));
        let all = report.check(Rules::Policy(&policy), None);
        let below = all
            .iter()
            .filter(|check| check.what.contains("firmware") && check.trust().value() == 96);
        let expected = match floor {
            0xda => 1,
            0xdc => 3,
            _ => 4,
        };
        assert_eq!(below.count(), expected, "{floor:#x}");
    }
}

#[test]
fn a_chip_that_stays_unnamed_is_on_no_list_and_off_none() {
    let (report, policy) = by_provider();
    let mut denying = policy.clone();
    denying.denied_platforms = BTreeSet::from([PlatformId::from_bytes([1; 64])]);
    assert_eq!(appraise(&report, &denying), Err(SnpRefusal::MaskedChipId));
    let mut inventory = policy;
    let zeros = PlatformId::from_bytes([0; 64]);
    inventory.snp.platforms = BTreeSet::from([zeros]);
    assert_eq!(appraise(&report, &inventory), Err(SnpRefusal::UnknownPlatform(zeros)));
}

#[test]
fn chips_are_held_to_the_inventory_and_the_denied_ones() {
    let report = genuine(GENOA, GENOA_VCEK);
    let chip = report.platform_id();
    let mut policy = policy(&report, GENOA, tcb(10, 25, 84));
    policy.snp.platforms = BTreeSet::from([chip]);
    assert_eq!(appraise(&report, &policy), Ok(()));
    policy.denied_platforms = BTreeSet::from([chip]);
    assert_eq!(appraise(&report, &policy), Err(SnpRefusal::DeniedPlatform(chip)));
    policy.denied_platforms.clear();
    policy.snp.platforms = BTreeSet::from([PlatformId::from_bytes([1; 64])]);
    assert_eq!(appraise(&report, &policy), Err(SnpRefusal::UnknownPlatform(chip)));
}

#[test]
fn a_processor_without_the_check_for_aliases_needs_a_policy_that_says_so() {
    let report = genuine(GENOA, GENOA_VCEK);
    let mut strict = policy(&report, GENOA, tcb(10, 25, 84));
    strict.danger.skip_alias_check = false;
    assert_eq!(appraise(&report, &strict), Ok(()));
    let report = genuine(MILAN, MILAN_VCEK);
    let mut strict = policy(&report, MILAN, tcb(0, 0, 0));
    strict.danger.skip_alias_check = false;
    assert_eq!(appraise(&report, &strict), Err(SnpRefusal::AliasCheck));
}

#[test]
fn other_measurements_and_init_data_are_refused() {
    let report = genuine(GENOA, GENOA_VCEK);
    let right = policy(&report, GENOA, tcb(10, 25, 84));
    let mut other = right.clone();
    other.measurements.clear();
    assert_eq!(
        appraise(&report, &other),
        Err(SnpRefusal::Measurement(report.measurement()))
    );
    let mut other = right;
    other.host_data = BTreeSet::from([[7; 32].as_slice().try_into().unwrap()]);
    assert!(matches!(appraise(&report, &other), Err(SnpRefusal::HostData(_))));
}
