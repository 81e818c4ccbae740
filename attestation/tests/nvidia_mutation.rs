//! Captured evidence of NVIDIA's devices, changed: nothing that was changed is accepted, and nothing panics.

mod nvidia_support;

use std::collections::BTreeSet;
use std::ops::Range;

use cloister_attestation::nvidia::spdm::{MAX_EVIDENCE_LEN, Report};
use cloister_attestation::nvidia::{ReportRefusal, verify, verify_report};
use cloister_attestation::x509::pem_certificates;
use der::pem::{LineEnding, encode_string};
use nvidia_support::{Captured, NOW, all, blackwell, hopper, hopper_with_a_zero_byte, switch};
use proptest::prelude::*;

const SIGNATURE_LEN: usize = 96;

fn full_tier() -> bool {
    std::env::var("CLOISTER_TEST_TIER").is_ok_and(|tier| tier == "full")
}

/// Where the fields of a message are: their bytes, and whether they are a length.
fn fields(message: &[u8]) -> Vec<(Range<usize>, bool)> {
    let number = |range: Range<usize>| {
        message[range]
            .iter()
            .rev()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
    };
    let mut found = vec![
        (0..4, false),
        (4..36, false),
        (36..37, false),
        (37..39, false),
        (39..41, false),
    ];
    found.extend([(41..42, true), (42..45, true)]);
    let record_end = 45 + number(42..45);
    let mut at = 45;
    while at < record_end {
        let next = at + 4 + number(at + 2..at + 4);
        found.extend([(at..at + 2, false), (at + 2..at + 4, true), (at + 4..at + 5, false)]);
        found.extend([(at + 5..at + 7, true), (at + 7..next, false)]);
        at = next;
    }
    found.extend([(at..at + 32, false), (at + 32..at + 34, true)]);
    let opaque_end = at + 34 + number(at + 32..at + 34);
    at += 34;
    while at < opaque_end {
        let next = at + 4 + number(at + 2..at + 4);
        found.extend([(at..at + 2, false), (at + 2..at + 4, true), (at + 4..next, false)]);
        at = next;
    }
    found.push((at..at + SIGNATURE_LEN, false));
    found
}

#[test]
fn a_flipped_byte_of_any_captured_report_is_refused() {
    for captured in all() {
        let chain = captured.verified().chain().clone();
        let fields = fields(&captured.evidence);
        let end = fields.last().unwrap().0.end;
        let boundaries = fields.iter().flat_map(|(range, _)| [range.start, range.end - 1]);
        let step = if full_tier() { 1 } else { 16 };
        let offsets: BTreeSet<usize> = (0..end).step_by(step).chain(boundaries).collect();
        for at in offsets {
            let mut flipped = captured.evidence.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(
                verify_report(&flipped, chain.clone(), NOW).is_err(),
                "{} at {at}",
                captured.name
            );
        }
    }
}

#[test]
fn a_flipped_byte_of_any_captured_certificate_is_refused() {
    for captured in all() {
        let ders = pem_certificates(&captured.chain, 5).unwrap();
        for certificate in 0..ders.len() {
            let len = ders[certificate].len();
            let offsets: Vec<usize> = if full_tier() {
                (0..len).step_by(7).collect()
            } else {
                vec![len / 2, len - 20]
            };
            for at in offsets {
                let mut flipped = ders.clone();
                flipped[certificate][at] ^= 0x10;
                let pem: String = flipped
                    .iter()
                    .map(|der| encode_string("CERTIFICATE", LineEnding::LF, der).unwrap())
                    .collect();
                let found = verify(&captured.evidence, &pem, captured.arch, NOW);
                assert!(found.is_err(), "{}: certificate {certificate} at {at}", captured.name);
            }
        }
    }
}

fn samples() -> Vec<Captured> {
    vec![hopper(), hopper_with_a_zero_byte(), blackwell(), switch()]
}

#[test]
fn a_report_of_any_other_length_is_refused() {
    for captured in samples() {
        let end = fields(&captured.evidence).last().unwrap().0.end;
        for len in 0..end {
            assert!(
                Report::parse(&captured.evidence[..len]).is_err(),
                "{} of {len}",
                captured.name
            );
        }
        let text = hex::encode(&captured.evidence[..end]).into_bytes();
        for len in 0..text.len() {
            assert!(
                Report::parse(&text[..len]).is_err(),
                "{} as text of {len}",
                captured.name
            );
        }
        assert!(Report::parse(&text).is_ok());
    }
}

#[test]
fn a_chain_of_any_other_length_is_refused() {
    for captured in [hopper(), switch()] {
        let end = captured.chain.trim_end().len();
        for len in (0..end).step_by(if full_tier() { 1 } else { 13 }) {
            let found = verify(&captured.evidence, &captured.chain[..len], captured.arch, NOW);
            assert!(found.is_err(), "{} of {len}", captured.name);
        }
    }
}

#[test]
fn a_length_field_of_another_value_is_refused() {
    for captured in samples() {
        let chain = captured.verified().chain().clone();
        for (range, is_len) in fields(&captured.evidence) {
            if !is_len {
                continue;
            }
            let original = captured.evidence[range.clone()].to_vec();
            for fill in [[0, 0, 0], [1, 0, 0], [0xff, 0xff, 0xff]] {
                let mut changed = captured.evidence.clone();
                changed[range.clone()].copy_from_slice(&fill[..range.len()]);
                if changed[range.clone()] != original {
                    let found = verify_report(&changed, chain.clone(), NOW);
                    assert!(found.is_err(), "{} at {range:?}: {fill:?}", captured.name);
                }
            }
        }
    }
}

#[test]
fn oversized_evidence_is_refused_before_it_is_read() {
    let long = vec![b'1'; MAX_EVIDENCE_LEN + 1];
    assert_eq!(Report::parse(&long), Err(ReportRefusal::TooLong(MAX_EVIDENCE_LEN + 1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>, pem: String) {
        let captured = switch();
        prop_assert!(Report::parse(&bytes).is_err());
        prop_assert!(verify(&captured.evidence, &pem, captured.arch, NOW).is_err());
    }

    #[test]
    fn several_changed_bytes_are_refused(changes in proptest::collection::vec((0..2168usize, 1..=255u8), 1..4)) {
        let captured = switch();
        let mut changed = captured.evidence.clone();
        for (at, mask) in changes {
            changed[at] ^= mask;
        }
        if changed != captured.evidence {
            prop_assert!(verify(&changed, &captured.chain, captured.arch, NOW).is_err());
        }
    }
}
