//! Versions of the report and generations of the processor, each with its own layout and reserved bits.

use std::ops::Range;

use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{CertificateRefusal, Role, SnpRefusal, VerifiedReport};
use cloister_attestation::{Dimension, Finding, Rules};

use crate::forge::{chip_id, of_chip, report, tcb, vcek, verdict};

const GENERATIONS: [Generation; 3] = [Generation::Milan, Generation::Genoa, Generation::Turin];

fn found(verified: &VerifiedReport) -> Option<SnpRefusal> {
    verified.check(Rules::Genuine, None).refusal().cloned()
}

/// The refusal of a Genoa's report of `version` with `bits` at `at` instead.
fn with_bits(version: u32, at: usize, bits: u64) -> Option<SnpRefusal> {
    let mut report = report(Generation::Genoa, version);
    report[at..at + 8].copy_from_slice(&bits.to_le_bytes());
    found(&of_chip(Generation::Genoa, report).unwrap())
}

#[test]
fn synthetic_reports_of_every_version_and_generation_verify() {
    for generation in GENERATIONS {
        for version in 2..=5 {
            let verified = of_chip(generation, report(generation, version)).unwrap();
            assert_eq!(found(&verified), None, "{generation} {version}");
            let claims = verified.claims();
            assert_eq!((claims.generation, claims.report_version), (generation, version));
            for found in [claims.current_tcb, claims.committed_tcb, claims.launch_tcb] {
                assert_eq!(found, tcb(generation), "{generation} {version}");
            }
        }
    }
}

#[test]
fn reserved_bytes_of_synthetic_reports_are_refused_in_the_versions_that_reserve_them() {
    let refuses = |version: u32, range: Range<usize>| {
        for at in range {
            let mut report = report(Generation::Genoa, version);
            report[at] = 1;
            let verdict = of_chip(Generation::Genoa, report).map(|_| ());
            assert_eq!(verdict, Err(SnpRefusal::Malformed), "version {version}, {at:#x}");
        }
    };
    for version in 2..=5 {
        refuses(version, 0x4c..0x50);
        refuses(version, 0x18b..0x18d);
        refuses(version, 0x19f..0x1a0);
        refuses(version, 0x1eb..0x1ec);
        refuses(version, 0x1ef..0x1f0);
        refuses(version, 0x208..0x20a);
        refuses(version, 0x29f..0x2a0);
    }
    // The processor's CPUID came with version 3, the mitigations with version 5.
    refuses(2, 0x188..0x18b);
    for version in 2..=4 {
        refuses(version, 0x1f8..0x208);
    }
}

#[test]
fn bytes_between_the_firmware_versions_of_synthetic_reports_are_refused() {
    for (generation, reserved) in [
        (Generation::Milan, 2..6),
        (Generation::Genoa, 2..6),
        (Generation::Turin, 4..7),
    ] {
        for tcb in [0x038, 0x180, 0x1e0, 0x1f0] {
            for at in reserved.clone() {
                let mut report = report(generation, 5);
                report[tcb + at] = 1;
                let verdict = of_chip(generation, report).map(|_| ());
                assert_eq!(verdict, Err(SnpRefusal::Malformed), "{generation} {:#x}", tcb + at);
            }
        }
    }
}

#[test]
fn a_synthetic_turins_chip_id_is_eight_bytes_and_zeros() {
    let mut report = report(Generation::Turin, 5);
    report[0x1a8] = 1;
    let verdict = of_chip(Generation::Turin, report).map(|_| ());
    assert_eq!(verdict, Err(SnpRefusal::ChipMismatch));
}

#[test]
fn a_synthetic_chip_id_may_be_wrapped_as_amds_specification_says() {
    for generation in GENERATIONS {
        let id = chip_id(generation);
        let id = if generation == Generation::Turin { &id[..8] } else { &id };
        let wrap = |id: &[u8]| [&[4, u8::try_from(id.len()).unwrap()], id].concat();
        let by = |id: &[u8]| verdict(report(generation, 5), &vcek(generation, &tcb(generation), id)).map(|_| ());
        assert_eq!(by(&wrap(id)), Ok(()), "{generation}");
        let other: Vec<u8> = id.iter().map(|byte| byte ^ 1).collect();
        assert_eq!(by(&wrap(&other)), Err(SnpRefusal::ChipMismatch), "{generation}");
        let short = SnpRefusal::Certificate {
            role: Role::Vcek,
            reason: CertificateRefusal::Extension("hwID"),
        };
        assert_eq!(by(&wrap(&id[1..])), Err(short), "{generation}");
    }
}

#[test]
fn a_synthetic_report_without_cpuid_is_of_its_certificates_generation() {
    // Version 2 of a Milan under the certificate of a Turin: the bytes of its firmware are read as a Turin's, and differ.
    let turin = crate::forge::vcek(Generation::Turin, &tcb(Generation::Turin), &[1; 8]);
    let verdict = verdict(report(Generation::Milan, 2), &turin).map(|_| ());
    assert_eq!(verdict, Err(SnpRefusal::Malformed));
    let later = of_chip(Generation::Genoa, report(Generation::Milan, 3)).map(|_| ());
    assert_eq!(later, Err(SnpRefusal::GenerationMismatch(Generation::Genoa)));
}

#[test]
fn reserved_bits_of_a_synthetic_guest_policy_depend_on_the_version() {
    let one = 1 << 17;
    for version in 2..=5 {
        for defined in [0, 7, 8, 15, 16, 20, 21, 22, 23, 24] {
            assert_eq!(
                with_bits(version, 0x08, one | 1 << defined),
                None,
                "{version} {defined}"
            );
        }
        for reserved in [26, 40, 63] {
            let refused = with_bits(version, 0x08, one | 1 << reserved);
            assert_eq!(refused, Some(SnpRefusal::ReservedPolicyBits), "{version} {reserved}");
        }
        // PAGE_SWAP_DISABLE.
        let expected = (version < 5).then_some(SnpRefusal::ReservedPolicyBits);
        assert_eq!(with_bits(version, 0x08, one | 1 << 25), expected, "{version}");
        // The bit that is always one.
        assert_eq!(with_bits(version, 0x08, 0), Some(SnpRefusal::ReservedPolicyBits));
        assert_eq!(with_bits(version, 0x08, one | 1 << 19), Some(SnpRefusal::Debug));
        assert_eq!(
            with_bits(version, 0x08, one | 1 << 18),
            Some(SnpRefusal::MigrationAgent)
        );
    }
}

#[test]
fn reserved_bits_of_a_synthetic_platform_are_refused() {
    let alias = 1 << 5;
    for defined in 0..8 {
        assert_eq!(with_bits(5, 0x40, alias | 1 << defined), None, "{defined}");
    }
    for reserved in 8..64 {
        let refused = with_bits(5, 0x40, alias | 1 << reserved);
        assert_eq!(refused, Some(SnpRefusal::ReservedPlatformBits), "{reserved}");
    }
}

#[test]
fn a_synthetic_platform_that_did_not_check_for_aliases_is_refused_where_it_could_say_so() {
    for version in 3..=5 {
        assert_eq!(with_bits(version, 0x40, 0), Some(SnpRefusal::AliasCheck));
    }
    let verified = of_chip(Generation::Milan, report(Generation::Milan, 2)).unwrap();
    let checks = verified.check(Rules::Genuine, None);
    let alias = checks.iter().find(|check| check.what.contains("BadRAM")).unwrap();
    assert_eq!(alias.finding, Finding::NotAppraised);
}

#[test]
fn a_synthetic_report_of_a_lower_level_warns_and_one_of_the_host_is_refused() {
    for (level, refused) in [(0u32, false), (1, false), (3, false), (4, true), (u32::MAX, true)] {
        let mut report = report(Generation::Genoa, 5);
        report[0x30..0x34].copy_from_slice(&level.to_le_bytes());
        let checks = of_chip(Generation::Genoa, report).unwrap().check(Rules::Genuine, None);
        let vmpl = checks.iter().find(|check| check.what.contains("privilege")).unwrap();
        assert_eq!(vmpl.dimension, Dimension::Configuration);
        let expected = match (level, refused) {
            (0, _) => Finding::Passed,
            (_, false) => Finding::Warned(SnpRefusal::Vmpl(level)),
            (_, true) => Finding::Refused(SnpRefusal::Vmpl(level)),
        };
        assert_eq!(vmpl.finding, expected, "{level}");
    }
}

#[test]
fn synthetic_key_information_with_anything_unknown_is_refused() {
    for (info, expected) in [
        (1u32 << 1, SnpRefusal::MaskedChipKey),
        (2 << 2, SnpRefusal::SigningKey(2)),
        (7 << 2, SnpRefusal::SigningKey(7)),
        (1 << 5, SnpRefusal::Malformed),
        (1 << 31, SnpRefusal::Malformed),
    ] {
        let mut report = report(Generation::Genoa, 5);
        report[0x48..0x4c].copy_from_slice(&info.to_le_bytes());
        assert_eq!(of_chip(Generation::Genoa, report).unwrap_err(), expected, "{info:#x}");
    }
    // AUTHOR_KEY_EN is no one's to refuse.
    let mut report = report(Generation::Genoa, 5);
    report[0x48] = 1;
    assert!(of_chip(Generation::Genoa, report).is_ok());
}
