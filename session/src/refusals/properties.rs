//! What holds for bytes of any kind: no panic, no dependence on how they are cut, no bit that does not matter.

use std::ops::Range;

use proptest::{collection::vec, prelude::*};

use super::{
    fixture::*,
    round_trip::{answer, exchange},
};
use crate::{
    credential::SignedCredential,
    inner::{InnerRequest, ResponseHead},
    key_config::{PaddingProfile, SignedKeyConfig},
    limits::MAX_CHUNK,
    opener::Event,
    outer::{OuterRequest, Parsed},
    receipt::{Outcome, SignedReceipt},
    record,
};

/// Gives all bytes to everything that reads bytes from outside.
fn parse_everything(bytes: &[u8]) {
    let _ = SignedKeyConfig::parse(bytes);
    let _ = SignedCredential::parse(bytes).map(|credential| credential.unverified());
    let _ = SignedReceipt::parse(bytes).map(|receipt| receipt.verify(&key().public()));
    let _ = InnerRequest::decode(bytes);
    let _ = ResponseHead::decode(bytes);
    for (size, last) in [(0, false), (0, true), (256, false), (256, true)] {
        let _ = record::decode(bytes, size, last);
    }
    if let Ok(Parsed::Complete { consumed, .. }) = OuterRequest::parse(bytes) {
        assert!(consumed <= bytes.len());
    }
}

/// One of each message, to be changed.
fn samples() -> Vec<Vec<u8>> {
    let (tenant, mut enclave, config) = scene(PaddingProfile::OFF);
    let signed = config.config().sign(&enclave.identity);
    let (request, _) = exchange(&tenant, &mut enclave);
    let digest = request.request_hash();
    let receipt = enclave.receipt(&request, digest, Outcome::Complete);
    vec![
        signed.to_bytes(),
        tenant.credential.to_bytes(),
        receipt.sign(&enclave.identity).to_bytes(),
        inner(b"{}").encode().unwrap().0.to_vec(),
        Draft::new(&tenant, &[config], b"{}").m1(),
    ]
}

/// A change at one place of a message: a range of it replaced by other bytes.
fn change() -> impl Strategy<Value = (usize, f64, usize, Vec<u8>)> {
    (0..5usize, 0.0..1.0f64, 0..40usize, vec(any::<u8>(), 0..40))
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_parsed_without_a_panic(bytes in vec(any::<u8>(), 0..3000)) {
        parse_everything(&bytes);
        // The same behind a beginning that lets it past the first checks.
        parse_everything(&[&[1, 0, 129], bytes.as_slice()].concat());
        parse_everything(&[&[0x82, 0x59, 0x05], bytes.as_slice()].concat());
    }

    #[test]
    fn changed_messages_are_parsed_without_a_panic(changes in vec(change(), 1..20)) {
        let samples = samples();
        for (sample, at, length, bytes) in changes {
            let mut message = samples[sample].clone();
            let start = ((message.len() as f64) * at) as usize;
            let range: Range<usize> = start..(start + length).min(message.len());
            message.splice(range, bytes);
            parse_everything(&message);
        }
    }

    #[test]
    fn arbitrary_answers_are_opened_without_a_panic(prefixed: bool, parts in vec(vec(any::<u8>(), 0..400), 0..6)) {
        let (tenant, mut enclave, _) = scene(PADDED);
        let (request, mut opener) = exchange(&tenant, &mut enclave);
        if prefixed {
            opener.push(&request.respond().unwrap().1).unwrap();
        }
        for part in &parts {
            let _ = opener.push(part);
        }
        prop_assert!(opener.finish().is_err());
    }

    #[test]
    fn an_answer_says_the_same_however_it_is_cut(padded: bool, steps in vec(1..600usize, 1..8), pieces in vec(vec(any::<u8>(), 1..250), 0..12)) {
        let (tenant, mut enclave, _) = scene(if padded { PADDED } else { PaddingProfile::OFF });
        let (request, mut opener) = exchange(&tenant, &mut enclave);
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let m2 = answer(&enclave, &request, &pieces).concat();
        let (mut rest, mut said) = (m2.as_slice(), Vec::new());
        for step in steps.iter().cycle() {
            let (part, after) = rest.split_at((*step).min(rest.len()));
            rest = after;
            for event in opener.push(part).unwrap() {
                if let Event::Data(data) = event {
                    said.push(data.to_vec());
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(said, pieces);
        prop_assert!(opener.finish().is_ok());
    }

    #[test]
    fn a_request_says_the_same_however_it_is_cut(step in 1..40_000usize, length in 0..100_000usize) {
        let (tenant, enclave, config) = scene(PaddingProfile::OFF);
        let body = vec![b'x'; length];
        let (sealed, _) = tenant.seal(&[config], now(), &body);
        let (outer, consumed) = outer(&sealed.bytes).unwrap();
        let live = enclave.keys.find(&outer, now()).unwrap();
        let waiting = enclave.keys.open(&live, &outer).unwrap();
        let cut = read(waiting, &sealed.bytes[consumed..], now(), step).unwrap();
        let whole = enclave.open(&sealed.bytes).unwrap();
        prop_assert!(cut.body() == body);
        prop_assert_eq!(cut.request_hash(), whole.request_hash());
    }

    #[test]
    fn no_bit_of_a_long_request_can_be_flipped(at in 0.0..1.0f64, bit in 0..8u8) {
        let (tenant, enclave, config) = scene(PaddingProfile::OFF);
        let mut m1 = tenant.seal(&[config], now(), &vec![b'x'; 3 * MAX_CHUNK]).0.bytes;
        let at = (m1.len() as f64 * at) as usize;
        m1[at] ^= 1 << bit;
        prop_assert!(enclave.open(&m1).is_err());
    }

    #[test]
    fn no_bit_of_a_padded_answer_can_be_flipped(at in 0.0..1.0f64, bit in 0..8u8) {
        let (tenant, mut enclave, _) = scene(PADDED);
        let (request, opener) = exchange(&tenant, &mut enclave);
        let mut m2 = answer(&enclave, &request, &[b"one", b"two"]).concat();
        let at = (m2.len() as f64 * at) as usize;
        m2[at] ^= 1 << bit;
        prop_assert!(receive(opener, &m2, usize::MAX).is_err());
    }
}

#[test]
fn no_byte_of_a_request_can_be_changed() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let good = Draft::new(&tenant, &[config], b"{}").m1();
    assert_eq!(enclave.refusal(&good), None);
    for at in 0..good.len() {
        let mut m1 = good.clone();
        m1[at] ^= 1 << (at % 8);
        assert!(enclave.open(&m1).is_err(), "byte {at}");
    }
}

#[test]
fn no_byte_of_an_answer_can_be_changed() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let length = {
        let (request, _) = exchange(&tenant, &mut enclave);
        answer(&enclave, &request, &[b"one"]).concat().len()
    };
    for at in 0..length {
        let (request, opener) = exchange(&tenant, &mut enclave);
        let mut m2 = answer(&enclave, &request, &[b"one"]).concat();
        m2[at] ^= 1 << (at % 8);
        assert!(receive(opener, &m2, usize::MAX).is_err(), "byte {at}");
    }
}
