//! Real files with one thing changed. Every 16th byte and each field's ends by default; `CLOISTER_TEST_TIER=full` changes every bit.

use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{SnpRefusal, Trust, verify};
use proptest::prelude::*;

use crate::support::{GENOA, GENOA_VCEK, NOW, Real, amd, anchor, real, to_pem};

/// Offset and length of each field of a report's signed part (SEV-SNP Firmware ABI, table ATTESTATION_REPORT).
const FIELDS: &[(usize, usize)] = &[
    (0x000, 4),
    (0x004, 4),
    (0x008, 8),
    (0x010, 16),
    (0x020, 16),
    (0x030, 4),
    (0x034, 4),
    (0x038, 8),
    (0x040, 8),
    (0x048, 4),
    (0x04c, 4),
    (0x050, 64),
    (0x090, 48),
    (0x0c0, 32),
    (0x0e0, 48),
    (0x110, 48),
    (0x140, 32),
    (0x160, 32),
    (0x180, 8),
    (0x188, 3),
    (0x18b, 21),
    (0x1a0, 64),
    (0x1e0, 8),
    (0x1e8, 4),
    (0x1ec, 4),
    (0x1f0, 8),
    (0x1f8, 8),
    (0x200, 8),
    (0x208, 152),
];

fn full() -> bool {
    std::env::var("CLOISTER_TEST_TIER").is_ok_and(|tier| tier == "full")
}

/// Which bits of which bytes to flip.
fn flips(len: usize, boundary: impl Fn(usize) -> bool) -> Vec<(usize, u8)> {
    let all = full();
    let wanted = (0..len).filter(|at| all || at % 16 == 0 || boundary(*at));
    let bits = |at: usize| -> Vec<(usize, u8)> {
        if all {
            (0..8).map(|bit| (at, 1 << bit)).collect()
        } else {
            vec![(at, 1 << (at % 8))]
        }
    };
    wanted.flat_map(bits).collect()
}

fn ends_of_fields(at: usize) -> bool {
    FIELDS.iter().any(|(start, len)| at == *start || at + 1 == start + len)
}

fn check(file: &Real, report: &[u8]) -> Result<(), SnpRefusal> {
    verify(report, &file.vek, Trust::Amd, file.now).map(|_| ())
}

#[test]
fn any_changed_byte_of_the_signed_part_of_a_real_report_is_refused() {
    for file in real() {
        assert_eq!(check(&file, &file.report), Ok(()), "{}", file.name);
        for (at, bit) in flips(0x2a0, ends_of_fields) {
            let mut report = file.report.clone();
            report[at] ^= bit;
            assert!(check(&file, &report).is_err(), "{}: {at:#x}", file.name);
        }
        // What no form forbids, only the signature can find.
        for at in [0x50, 0x8f, 0x90, 0xc0, 0x140, 0x1b0] {
            let mut report = file.report.clone();
            report[at] ^= 1;
            if at != 0x1b0 || !file.vlek {
                assert_eq!(
                    check(&file, &report),
                    Err(SnpRefusal::Signature),
                    "{}: {at:#x}",
                    file.name
                );
            }
        }
    }
}

#[test]
fn any_changed_byte_of_the_signature_of_a_real_report_is_refused() {
    for file in real() {
        for (at, bit) in flips(0x200, |at| [0, 47, 48, 71, 72, 119, 120, 143, 144, 511].contains(&at)) {
            let mut report = file.report.clone();
            report[0x2a0 + at] ^= bit;
            assert!(check(&file, &report).is_err(), "{}: {at:#x}", file.name);
        }
        let mut unsigned = file.report.clone();
        unsigned[0x2a0..].fill(0);
        assert_eq!(check(&file, &unsigned), Err(SnpRefusal::Signature), "{}", file.name);
    }
}

#[test]
fn any_changed_byte_of_a_real_certificate_is_refused() {
    for file in real() {
        for (at, bit) in flips(file.vek.len(), |at| at < 8 || at + 1 == file.vek.len()) {
            let mut vek = file.vek.clone();
            vek[at] ^= bit;
            let verdict = verify(&file.report, &vek, Trust::Amd, file.now);
            assert!(verdict.is_err(), "{}: {at:#x}", file.name);
        }
    }
}

#[test]
fn any_changed_byte_of_amds_intermediate_and_root_is_refused() {
    let [ask, ark, _] = amd(Generation::Genoa);
    let right = anchor(&[&ask, &ark]);
    assert!(verify(GENOA, GENOA_VCEK, Trust::Simulated(&right), NOW).is_ok());
    for (index, original) in [&ask, &ark].into_iter().enumerate() {
        for (at, bit) in flips(original.len(), |at| at < 8 || at + 1 == original.len()) {
            let mut changed = original.clone();
            changed[at] ^= bit;
            let chain: [&[u8]; 2] = if index == 0 { [&changed, &ark] } else { [&ask, &changed] };
            let text = to_pem(chain[0]) + &to_pem(chain[1]);
            let trusted = cloister_attestation::identity::sha256(&[chain[1]]);
            // Its hash is said to be trusted, so that only its own form and signature are left.
            let Ok(anchor) = cloister_attestation::snp::Anchor::simulated(&text, &trusted) else {
                continue;
            };
            let verdict = verify(GENOA, GENOA_VCEK, Trust::Simulated(&anchor), NOW);
            assert!(verdict.is_err(), "certificate {index}: {at:#x}");
        }
    }
}

#[test]
fn every_shorter_report_and_certificate_is_refused() {
    for file in real() {
        for len in 0..file.report.len() {
            assert_eq!(
                check(&file, &file.report[..len]),
                Err(SnpRefusal::Length(len)),
                "{}",
                file.name
            );
        }
        for len in 0..file.vek.len() {
            let verdict = verify(&file.report, &file.vek[..len], Trust::Amd, file.now);
            assert!(
                matches!(verdict, Err(SnpRefusal::Certificate { .. })),
                "{}: {len}",
                file.name
            );
        }
    }
}

#[test]
fn every_field_at_zero_one_and_its_greatest_value_is_refused() {
    for file in real() {
        for (at, len) in FIELDS {
            let mut one = vec![0; *len];
            one[0] = 1;
            for value in [vec![0; *len], one, vec![0xff; *len]] {
                let mut report = file.report.clone();
                report[*at..at + len].copy_from_slice(&value);
                let same = report == file.report;
                assert_eq!(check(&file, &report).is_ok(), same, "{}: {at:#x}", file.name);
            }
        }
    }
}

#[test]
fn every_length_byte_of_a_real_certificate_at_zero_one_and_max_is_refused() {
    // Every byte, of which the lengths are some.
    let step = if full() { 1 } else { 7 };
    for file in real() {
        for at in (0..file.vek.len()).step_by(step) {
            for value in [0, 1, 0x7f, 0x80, 0x84, 0xff] {
                let mut vek = file.vek.clone();
                vek[at] = value;
                let verdict = verify(&file.report, &vek, Trust::Amd, file.now);
                assert_eq!(verdict.is_ok(), vek == file.vek, "{}: {at:#x}", file.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(
        report in proptest::collection::vec(any::<u8>(), 1184),
        certificate: Vec<u8>,
    ) {
        prop_assert!(verify(&report, GENOA_VCEK, Trust::Amd, NOW).is_err());
        prop_assert!(verify(GENOA, &certificate, Trust::Amd, NOW).is_err());
    }

    #[test]
    fn spliced_reports_are_refused_without_a_panic(first in 0..7usize, second in 0..7usize, at in 1..1183usize) {
        let all = real();
        let (first, second) = (&all[first], &all[second]);
        let spliced = [&first.report[..at], &second.report[at..]].concat();
        let same = spliced == first.report;
        prop_assert_eq!(check(first, &spliced).is_ok(), same);
    }
}
