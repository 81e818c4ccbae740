//! Real quotes and collateral of Intel TDX with something changed, cut off or added: all of it is refused, and nothing panics.
//!
//! By default every 16th byte and each boundary of a field; with `CLOISTER_TEST_TIER=full` every byte.

use std::ops::Range;

use cloister_attestation::UnixTime;
use cloister_attestation::tdx::{EventLog, TdxRefusal, verify};
use proptest::prelude::*;

macro_rules! testdata {
    ($name:literal) => {
        include_bytes!(concat!("../testdata/tdx/", $name)).as_slice()
    };
}

macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("../testdata/tdx/", $name))
    };
}

struct Case {
    quote: &'static [u8],
    collateral: &'static str,
    now: UnixTime,
    /// Where the signed part ends.
    signed: usize,
}

const V4: Case = Case {
    quote: testdata!("phala_tdx_quote"),
    collateral: text!("phala_tdx_quote_collateral.json"),
    now: UnixTime(1_751_328_000),
    signed: 632,
};
const V5: Case = Case {
    quote: testdata!("gotdx_quote_v5_sample.dat"),
    collateral: text!("assembled/phala_90c06f_2026-02_collateral_nopck.json"),
    now: UnixTime(1_772_323_200),
    signed: 702,
};
const DEBUG: Case = Case {
    quote: testdata!("trustee_tdx_quote_4.dat"),
    collateral: text!("assembled/gotdx_50806f000000_collateral.json"),
    now: UnixTime(1_687_651_200),
    signed: 632,
};

impl Case {
    fn refusal(&self, quote: &[u8]) -> TdxRefusal {
        verify(quote, self.collateral, self.now).expect_err("a refusal")
    }

    /// Boundaries of fields relative to the guest's report, then those of the signature data.
    fn boundaries(&self) -> Vec<usize> {
        let body = if self.signed == 702 { 54 } else { 48 };
        let header = [0, 2, 4, 8, 12, 28, 48];
        let report = [
            0, 16, 64, 112, 120, 128, 136, 184, 232, 280, 328, 376, 424, 472, 520, 583,
        ];
        let length = self.signed;
        let data = length + 4;
        let signature = [
            0, 63, 64, 127, 128, 130, 134, 486, 517, 518, 550, 581, 582, 583, 584, 616, 618, 622,
        ];
        let all = header
            .into_iter()
            .chain(report.map(|at| body + at))
            .chain([length, length + 3]);
        all.chain(signature.map(|at| data + at)).collect()
    }

    fn offsets(&self, all: Range<usize>) -> Vec<usize> {
        let step = if full() { 1 } else { 16 };
        let mut offsets: Vec<_> = all.clone().step_by(step).collect();
        offsets.extend(self.boundaries().into_iter().filter(|at| all.contains(at)));
        offsets
    }
}

fn full() -> bool {
    std::env::var("CLOISTER_TEST_TIER").is_ok_and(|tier| tier == "full")
}

#[test]
fn any_changed_byte_of_a_genuine_quote_is_refused() {
    for case in [V4, V5, DEBUG] {
        assert!(verify(case.quote, case.collateral, case.now).is_ok());
        for at in case.offsets(0..case.quote.len()) {
            let mut quote = case.quote.to_vec();
            quote[at] ^= 1 << (at % 8);
            assert!(verify(&quote, case.collateral, case.now).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_changed_byte_of_the_guests_report_is_refused_for_the_signature_or_for_what_it_says() {
    for case in [V4, V5] {
        let body = case.signed - if case.signed == 702 { 648 } else { 584 };
        for at in case.offsets(body + 136..case.signed) {
            let mut quote = case.quote.to_vec();
            quote[at] ^= 0x80;
            // The last 64 bytes of TDX 1.5 also choose the level of firmware.
            let found = case.refusal(&quote);
            if at < body + 584 {
                assert_eq!(found, TdxRefusal::QuoteSignature, "byte {at}");
            }
        }
    }
}

#[test]
fn a_quote_that_is_cut_short_anywhere_is_refused() {
    for case in [V4, V5] {
        // What is after the signature data is padding.
        let len = case.signed + 4 + 4300;
        for at in 0..len {
            let found = case.refusal(&case.quote[..at]);
            assert!(
                matches!(found, TdxRefusal::Truncated(_) | TdxRefusal::Sgx),
                "{at}: {found:?}"
            );
        }
        assert!(verify(&case.quote[..len], case.collateral, case.now).is_ok());
    }
}

#[test]
fn only_zeros_may_follow_a_quote() {
    let padded = [V4.quote, &[0; 3000]].concat();
    assert!(verify(&padded, V4.collateral, V4.now).is_ok());
    let trailing = [V4.quote, &[1]].concat();
    assert_eq!(V4.refusal(&trailing), TdxRefusal::TrailingBytes("quote"));
    let long = [V4.quote, &[0; 16 * 1024]].concat();
    assert!(matches!(V4.refusal(&long), TdxRefusal::TooLong { field: "quote", .. }));
}

#[test]
fn every_length_at_nothing_one_and_all_is_refused() {
    for case in [V4, V5] {
        let data = case.signed + 4;
        let mut fields = vec![(case.signed, 4), (data + 130, 4), (data + 582, 2), (data + 618, 4)];
        if case.signed == 702 {
            fields.push((50, 4));
        }
        for (at, len) in fields {
            for value in [0, 1, u32::MAX, 0x7fff_ffff, u32::from(u16::MAX)] {
                let mut quote = case.quote.to_vec();
                quote[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
                case.refusal(&quote);
            }
        }
    }
}

/// The next one of the same kind, so that the text still is hex, base64 or a number.
fn next(byte: u8) -> u8 {
    match byte {
        b'9' => b'0',
        b'f' => b'a',
        b'F' => b'A',
        b'z' => b'y',
        b'Z' => b'Y',
        b'0'..=b'8' | b'a'..=b'y' | b'A'..=b'Y' => byte + 1,
        _ => b'#',
    }
}

#[test]
fn any_changed_character_of_the_collateral_is_refused() {
    for case in [V4, V5] {
        let whole: serde_json::Value = serde_json::from_str(case.collateral).unwrap();
        for (name, value) in whole.as_object().unwrap() {
            let text = value.as_str().unwrap();
            let step = if full() { 1 } else { 1 + text.len() / 24 };
            for at in (0..text.len()).step_by(step).chain([text.len() - 1]) {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = next(bytes[at]);
                let mut changed = whole.clone();
                changed[name] = String::from_utf8(bytes).unwrap().into();
                let found = verify(case.quote, &changed.to_string(), case.now);
                assert!(found.is_err(), "{name}, character {at}");
            }
        }
    }
}

#[test]
fn collateral_that_lacks_a_field_or_has_another_is_refused() {
    let whole: serde_json::Value = serde_json::from_str(V4.collateral).unwrap();
    for name in whole.as_object().unwrap().keys() {
        for value in [None, Some(serde_json::Value::Null), Some("".into()), Some(7.into())] {
            let mut changed = whole.clone();
            match value {
                None => drop(changed.as_object_mut().unwrap().remove(name)),
                Some(value) => changed[name] = value,
            }
            assert!(verify(V4.quote, &changed.to_string(), V4.now).is_err(), "{name}");
        }
    }
    let mut changed = whole;
    changed["pck_crl_issuer"] = "".into();
    let found = verify(V4.quote, &changed.to_string(), V4.now);
    assert!(matches!(found, Err(TdxRefusal::CollateralMalformed(_))));
    let twice = V4.collateral.replacen('{', "{\"tcb_info\": \"\",", 1);
    let found = verify(V4.quote, &twice, V4.now);
    assert!(matches!(found, Err(TdxRefusal::CollateralMalformed(_))));
    let long = format!("{}{}", V4.collateral, " ".repeat(512 * 1024));
    let found = verify(V4.quote, &long, V4.now);
    assert!(matches!(
        found,
        Err(TdxRefusal::TooLong {
            field: "collateral",
            ..
        })
    ));
}

#[test]
fn parts_of_two_quotes_or_two_collaterals_do_not_make_one() {
    // The guest's report of one with the signature of another.
    let spliced = [&DEBUG.quote[..632], &V4.quote[632..]].concat();
    assert!(verify(&spliced, V4.collateral, V4.now).is_err());
    let swapped = [&V4.quote[..48], &DEBUG.quote[48..632], &V4.quote[632..]].concat();
    assert_eq!(V4.refusal(&swapped), TdxRefusal::QuoteSignature);
    // Each field of one collateral in another.
    let (one, other): (serde_json::Value, serde_json::Value) = (
        serde_json::from_str(V4.collateral).unwrap(),
        serde_json::from_str(text!("phala_sgx_quote_collateral.json")).unwrap(),
    );
    for (name, value) in one.as_object().unwrap() {
        if *value == other[name] {
            continue;
        }
        let mut mixed = one.clone();
        mixed[name] = other[name].clone();
        assert!(verify(V4.quote, &mixed.to_string(), V4.now).is_err(), "{name}");
    }
}

#[test]
fn a_changed_log_leads_elsewhere_or_does_not_parse() {
    let bytes = testdata!("gotdx_ccel_data.dat");
    let genuine = EventLog::from_ccel(bytes).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0xff).unwrap();
    let step = if full() { 1 } else { 61 };
    for at in (0..used).step_by(step) {
        let _ = EventLog::from_ccel(&bytes[..at]);
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        // What an event says beside its digest is not measured as it stands.
        let _ = EventLog::from_ccel(&changed).map(|log| log.replay());
    }
    for (index, event) in genuine.events().iter().enumerate().filter(|(_, event)| event.kind != 3) {
        let at = bytes
            .windows(48)
            .position(|part| part == event.digest.as_bytes())
            .unwrap();
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        let replayed = EventLog::from_ccel(&changed).unwrap().replay();
        assert_eq!(replayed == genuine.replay(), event.rtmr.is_none(), "event {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_changed_bit_of_a_genuine_quote_is_refused(at in 0..4936usize, bit in 0..8u32) {
        let mut quote = V4.quote.to_vec();
        quote[at] ^= 1 << bit;
        prop_assert!(verify(&quote, V4.collateral, V4.now).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>, text: String) {
        prop_assert!(verify(&bytes, V4.collateral, V4.now).is_err());
        prop_assert!(verify(V4.quote, &text, V4.now).is_err());
        let _ = EventLog::from_ccel(&bytes);
        let _ = EventLog::from_dstack(&text);
        let tail = [&V4.quote[..632], &bytes].concat();
        prop_assert!(verify(&tail, V4.collateral, V4.now).is_err());
    }
}
