//! Captured reports of real processors through the verifier; `testdata/SOURCES.md` says where they are from.
//!
//! The binding is not checked here: these reports answer other people's nonces.

use std::collections::{BTreeMap, BTreeSet};

use cloister_attestation::UnixTime;
use cloister_attestation::policy::{AppraisalPolicy, Danger, Generation, KeyDigest, ReportVersion, TcbVersion};
use cloister_attestation::snp::{CertificateRefusal, Role, SnpRefusal, TcbKind, Trust, VerifiedReport, verify};
use proptest::prelude::*;

/// 2026-01-01: all certificates used here but the VLEK are valid.
const NOW: UnixTime = UnixTime(1_767_225_600);

macro_rules! testdata {
    ($name:literal) => {
        include_bytes!(concat!("../testdata/snp/", $name)).as_slice()
    };
}

const MILAN: &[u8] = testdata!("trustee_report.bin");
const MILAN_VCEK: &[u8] = testdata!("trustee_vcek.der");
const GENOA: &[u8] = testdata!("oak_genoa.bin");
const GENOA_VCEK: &[u8] = testdata!("oak_genoa_vcek.der");

fn genuine(report: &[u8], vcek: &[u8]) -> VerifiedReport {
    verify(report, vcek, Trust::Amd, NOW).unwrap()
}

fn refusal(report: &[u8], vcek: &[u8], now: UnixTime) -> SnpRefusal {
    verify(report, vcek, Trust::Amd, now).unwrap_err()
}

fn vcek(reason: CertificateRefusal) -> SnpRefusal {
    SnpRefusal::Certificate {
        role: Role::Vcek,
        reason,
    }
}

/// A policy that takes `report` from this firmware on.
fn policy(report: &VerifiedReport, raw: &[u8], tcb: TcbVersion) -> AppraisalPolicy {
    AppraisalPolicy {
        allowed_generations: BTreeSet::from([report.generation()]),
        min_tcb: BTreeMap::from([(report.generation(), tcb)]),
        min_report_version: ReportVersion::try_from(2).unwrap(),
        measurements: BTreeSet::from([report.measurement()]),
        host_data: BTreeSet::from([raw[0xc0..0xe0].try_into().unwrap()]),
        danger: Danger {
            skip_alias_check: true,
            ..Danger::default()
        },
        ..AppraisalPolicy::default()
    }
}

fn tcb(bootloader: u8, snp: u8, microcode: u8) -> TcbVersion {
    TcbVersion {
        fmc: None,
        bootloader,
        tee: 0,
        snp,
        microcode,
    }
}

#[test]
fn genuine_reports_of_milan_and_genoa_verify() {
    for (report, certificate, generation) in [
        (MILAN, MILAN_VCEK, Generation::Milan),
        (
            testdata!("sev_report_milan.bin"),
            testdata!("sev_vcek_milan.der"),
            Generation::Milan,
        ),
        (
            testdata!("gosev_attestation.bin"),
            testdata!("gosev_vcek.der"),
            Generation::Milan,
        ),
        (GENOA, GENOA_VCEK, Generation::Genoa),
        (
            testdata!("azure_genoa.bin"),
            testdata!("azure_genoa_vcek.der"),
            Generation::Genoa,
        ),
    ] {
        let verified = genuine(report, certificate);
        assert_eq!(verified.generation(), generation);
        assert_eq!(verified.report_data(), &report[0x50..0x90]);
        assert_eq!(verified.measurement().as_bytes(), &report[0x90..0xc0]);
        assert_eq!(verified.platform_id().as_bytes(), &report[0x1a0..0x1e0]);
    }
}

#[test]
fn genuine_reports_pass_a_policy_that_names_what_they_say() {
    let milan = genuine(MILAN, MILAN_VCEK);
    assert_eq!(milan.check(&policy(&milan, MILAN, tcb(3, 8, 0x73))), Ok(()));
    let genoa = genuine(GENOA, GENOA_VCEK);
    assert_eq!(genoa.check(&policy(&genoa, GENOA, tcb(10, 25, 84))), Ok(()));
}

#[test]
fn an_empty_policy_accepts_no_genuine_report() {
    let genoa = genuine(GENOA, GENOA_VCEK);
    assert_eq!(
        genoa.check(&AppraisalPolicy::default()),
        Err(SnpRefusal::Generation(Generation::Genoa))
    );
}

#[test]
fn a_report_under_the_certificate_of_another_chip_is_refused() {
    assert_eq!(
        refusal(MILAN, testdata!("sev_vcek_milan.der"), NOW),
        SnpRefusal::Signature
    );
    assert_eq!(refusal(MILAN, GENOA_VCEK, NOW), SnpRefusal::Signature);
}

#[test]
fn certificates_that_amd_did_not_sign_are_refused() {
    for forged in [
        testdata!("trustee_vcek_invalid_legacy.der"),
        testdata!("trustee_vcek_invalid_new.der"),
    ] {
        assert_eq!(refusal(MILAN, forged, NOW), vcek(CertificateRefusal::Signature));
    }
}

#[test]
fn a_certificate_outside_of_its_validity_is_refused() {
    // 2023-01-24T17:58:26Z to 2030-01-24T17:58:26Z.
    let (first, last) = (UnixTime(1_674_583_106), UnixTime(1_895_507_906));
    assert!(verify(MILAN, MILAN_VCEK, Trust::Amd, first).is_ok());
    assert!(verify(MILAN, MILAN_VCEK, Trust::Amd, last).is_ok());
    assert_eq!(
        refusal(MILAN, MILAN_VCEK, UnixTime(first.0 - 1)),
        vcek(CertificateRefusal::NotYetValid)
    );
    assert_eq!(
        refusal(MILAN, MILAN_VCEK, UnixTime(last.0 + 1)),
        vcek(CertificateRefusal::Expired)
    );
    assert_eq!(genuine(MILAN, MILAN_VCEK).valid_until(), last);
}

#[test]
fn a_vlek_is_not_taken_for_a_vcek() {
    // Its own report also hides the chip id, which is refused first; so the certificate is tried under another one as well.
    let (report, vlek) = (testdata!("trustee_vlek_report.bin"), testdata!("trustee_vlek.der"));
    assert_eq!(refusal(report, vlek, NOW), SnpRefusal::MaskedChipId);
    let before_its_expiry = UnixTime(1_750_000_000);
    assert_eq!(
        refusal(MILAN, vlek, before_its_expiry),
        vcek(CertificateRefusal::Issuer)
    );
}

#[test]
fn a_guest_that_may_be_debugged_is_refused() {
    let raw = testdata!("gosev_attestation.bin");
    let report = genuine(raw, testdata!("gosev_vcek.der"));
    assert_eq!(
        report.check(&policy(&report, raw, tcb(2, 5, 0x44))),
        Err(SnpRefusal::Debug)
    );
}

#[test]
fn the_turin_root_signed_the_turin_certificate() {
    // There is no Turin report: this passes the chain, and fails only where the certificate's key should have signed.
    assert_eq!(
        refusal(MILAN, testdata!("sev_vcek_turin.der"), NOW),
        SnpRefusal::Signature
    );
}

#[test]
fn firmware_below_the_floor_is_refused() {
    let report = genuine(GENOA, GENOA_VCEK);
    for floor in [tcb(11, 25, 84), tcb(10, 26, 84), tcb(10, 25, 85)] {
        assert!(matches!(
            report.check(&policy(&report, GENOA, floor)),
            Err(SnpRefusal::TcbBelowFloor {
                kind: TcbKind::Reported,
                ..
            })
        ));
    }
    let mut none = policy(&report, GENOA, tcb(0, 0, 0));
    none.min_tcb.clear();
    assert_eq!(report.check(&none), Err(SnpRefusal::NoTcbFloor(Generation::Genoa)));
}

#[test]
fn old_reports_need_a_policy_that_says_so() {
    let report = genuine(MILAN, MILAN_VCEK);
    let mut strict = policy(&report, MILAN, tcb(0, 0, 0));
    strict.min_report_version = ReportVersion::default();
    assert_eq!(
        report.check(&strict),
        Err(SnpRefusal::OldVersion { found: 2, least: 3 })
    );
    strict.min_report_version = ReportVersion::try_from(2).unwrap();
    strict.danger.skip_alias_check = false;
    assert_eq!(report.check(&strict), Err(SnpRefusal::AliasCheck));
}

#[test]
fn signers_of_the_identity_block_are_compared_when_the_policy_names_some() {
    let report = genuine(MILAN, MILAN_VCEK);
    let mut strict = policy(&report, MILAN, tcb(0, 0, 0));
    let actual = KeyDigest::try_from(&MILAN[0xe0..0x110]).unwrap();
    strict.id_key_digests = BTreeSet::from([actual]);
    assert_eq!(report.check(&strict), Ok(()));
    strict.id_key_digests = BTreeSet::from([KeyDigest::from_bytes([1; 48])]);
    assert_eq!(report.check(&strict), Err(SnpRefusal::IdKey(actual)));
    strict.id_key_digests.clear();
    let none = KeyDigest::from_bytes([0; 48]);
    strict.author_key_digests = BTreeSet::from([none]);
    assert_eq!(report.check(&strict), Ok(()));
    strict.author_key_digests = BTreeSet::from([KeyDigest::from_bytes([1; 48])]);
    assert_eq!(report.check(&strict), Err(SnpRefusal::AuthorKey(none)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_changed_bit_of_a_genuine_report_is_refused(at in 0..1184usize, bit in 0..8u32) {
        let mut report = GENOA.to_vec();
        report[at] ^= 1 << bit;
        prop_assert!(verify(&report, GENOA_VCEK, Trust::Amd, NOW).is_err());
    }

    #[test]
    fn any_changed_bit_of_a_genuine_certificate_is_refused(at in 0..1347usize, bit in 0..8u32) {
        let mut certificate = GENOA_VCEK.to_vec();
        certificate[at] ^= 1 << bit;
        prop_assert!(verify(GENOA, &certificate, Trust::Amd, NOW).is_err());
    }

    #[test]
    fn any_other_length_is_refused(report in 0..1184usize, certificate in 0..1347usize) {
        prop_assert!(verify(&GENOA[..report], GENOA_VCEK, Trust::Amd, NOW).is_err());
        prop_assert!(verify(GENOA, &GENOA_VCEK[..certificate], Trust::Amd, NOW).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(
        report in proptest::collection::vec(any::<u8>(), 1184),
        certificate: Vec<u8>,
    ) {
        prop_assert!(verify(&report, GENOA_VCEK, Trust::Amd, NOW).is_err());
        prop_assert!(verify(GENOA, &certificate, Trust::Amd, NOW).is_err());
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let long = [GENOA, &[0][..]].concat();
    assert_eq!(refusal(&long, GENOA_VCEK, NOW), SnpRefusal::Length(1185));
    let long = [GENOA_VCEK, &[0][..]].concat();
    assert_eq!(refusal(GENOA, &long, NOW), vcek(CertificateRefusal::Malformed));
}
