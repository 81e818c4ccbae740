//! Header, wraps and message of M1.

use super::fixture::*;
use crate::{
    enclave::{AuthStep, Reason},
    ids::{KeyId, RequestId},
    key_config::PaddingProfile,
    limits::{MAX_CHUNK, MAX_CLOCK_SKEW, MAX_WRAPS, WRAP_LEN},
    outer::{OuterRequest, PaddingBucket},
    suite,
};

fn good() -> (Enclave, Draft) {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let draft = Draft::new(&tenant, &[config], b"{}");
    (enclave, draft)
}

/// Why a request with one change is refused; that it is not without it is part of the answer.
fn refusal(change: impl FnOnce(&mut Draft)) -> Option<Reason> {
    let (enclave, mut draft) = good();
    assert_eq!(
        enclave.refusal(&draft.m1()),
        None,
        "the request is good before the change"
    );
    change(&mut draft);
    enclave.refusal(&draft.m1())
}

/// Why a request is refused when its header is edited after it was sealed.
fn edited(change: impl FnOnce(&mut Draft)) -> Option<Reason> {
    let (enclave, mut draft) = good();
    let (wraps, frames) = (wraps_of(&draft), draft.frames().concat());
    change(&mut draft);
    let outer = draft.outer();
    let header = &outer[..outer.len() - draft.wraps.len() * WRAP_LEN];
    enclave.refusal(&[header, &wraps, &frames].concat())
}

fn wraps_of(draft: &Draft) -> Vec<u8> {
    let outer = draft.outer();
    outer[outer.len() - draft.wraps.len() * WRAP_LEN..].to_vec()
}

#[test]
fn edited_header_fields() {
    assert_eq!(edited(|_| ()), None);
    assert_eq!(
        edited(|d| d.header.request_id = RequestId::from_bytes([1; 16])),
        Some(Reason::Wrap)
    );
    assert_eq!(edited(|d| d.header.ttl -= 1), Some(Reason::Wrap), "expiry");
    assert_eq!(
        edited(|d| d.header.created = d.header.created.plus(1)),
        Some(Reason::Wrap)
    );
    assert_eq!(
        edited(|d| d.header.bucket = PaddingBucket::from_size(2048).unwrap()),
        Some(Reason::Wrap)
    );
    assert_eq!(edited(|d| d.header.dek_commit[0] ^= 1), Some(Reason::Wrap));
}

#[test]
fn edited_candidates() {
    let (tenant, one, config) = scene(PaddingProfile::OFF);
    let mut two = Enclave::new(PaddingProfile::OFF);
    let candidates = [config, two.config(&tenant.reference())];
    let draft = Draft::new(&tenant, &candidates, b"{}");
    let frames = draft.frames().concat();
    assert_eq!(one.refusal(&draft.m1()), None);
    let wraps = wraps_of(&draft);
    let (first, second) = wraps.split_at(WRAP_LEN);
    let outer = draft.outer();
    let header = &outer[3..outer.len() - 1 - 2 * WRAP_LEN];
    let rebuilt = |header: &[u8], wraps: &[&[u8]]| {
        let length = u16::try_from(header.len()).unwrap().to_be_bytes();
        [
            &[1],
            length.as_slice(),
            header,
            &[wraps.len() as u8],
            &wraps.concat(),
            &frames,
        ]
        .concat()
    };
    assert_eq!(one.refusal(&rebuilt(header, &[first, second])), None);
    // The second candidate cut off.
    let mut fewer = header[..header.len() - 16].to_vec();
    fewer[112] = 1;
    assert_eq!(one.refusal(&rebuilt(&fewer, &[first])), Some(Reason::Wrap));
    // In the other order.
    let mut swapped = header.to_vec();
    swapped[113..].rotate_left(16);
    assert_eq!(one.refusal(&rebuilt(&swapped, &[second, first])), Some(Reason::Wrap));
}

#[test]
fn a_wrap_with_another_candidates_name() {
    let (tenant, one, config) = scene(PaddingProfile::OFF);
    let mut two = Enclave::new(PaddingProfile::OFF);
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    draft.header.candidates = vec![two.config(&tenant.reference()).config().key_id];
    let m1 = draft.m1();
    assert_eq!(two.refusal(&m1), Some(Reason::Wrap), "sealed to the other's key");
    assert_eq!(one.refusal(&m1), Some(Reason::UnknownKey), "named as the other's");
}

#[test]
fn a_wrap_for_another_public_key_key_config_or_header() {
    let tenant = Tenant::new();
    let other = Enclave::new(PaddingProfile::OFF).config(&tenant.reference());
    assert_eq!(
        refusal(|d| d.wraps[0].public = *other.config().public_key),
        Some(Reason::Wrap)
    );
    assert_eq!(refusal(|d| d.wraps[0].config_hash = *other.hash()), Some(Reason::Wrap));
    let mut header = good().1.header;
    header.request_id = RequestId::from_bytes([1; 16]);
    assert_eq!(refusal(|d| d.wraps[0].header = Some(header.hash())), Some(Reason::Wrap));
}

#[test]
fn a_wrap_of_a_dek_that_the_header_does_not_commit_to() {
    assert_eq!(refusal(|d| d.wraps[0].dek[0] ^= 1), Some(Reason::Commitment));
    // The same without a wrong key behind it: only the commitment differs.
    assert_eq!(
        refusal(|d| {
            let mut other = d.dek.clone();
            other[0] ^= 1;
            d.header.dek_commit = suite::dek_commit(&other).unwrap();
        }),
        Some(Reason::Commitment)
    );
}

#[test]
fn a_body_under_another_header() {
    let (_, other) = good();
    let mut header = other.header;
    header.request_id = RequestId::from_bytes([1; 16]);
    assert_eq!(refusal(|d| d.chunks_under = Some(header.hash())), Some(Reason::Chunk));
    assert_eq!(
        refusal(|d| d.signs.0 = Some(header.hash())),
        Some(Reason::MemberSignature)
    );
}

#[test]
fn another_message_than_the_member_signed() {
    let (padded, _) = inner(b"[]").encode().unwrap();
    assert_eq!(
        refusal(|d| d.signs.1 = Some(padded.to_vec())),
        Some(Reason::MemberSignature)
    );
}

#[test]
fn a_message_that_does_not_fill_its_bucket_or_overfills_it() {
    let bucket = |size| PaddingBucket::from_size(size).unwrap();
    assert_eq!(refusal(|d| d.header.bucket = bucket(2048)), Some(Reason::Length));
    assert_eq!(
        refusal(|d| d.pieces[0].resize(2048, 0)),
        Some(Reason::Length),
        "longer than the header says"
    );
    // Zero bytes after a good message: only its length is wrong.
    assert_eq!(refusal(|d| d.pieces[0].push(0)), Some(Reason::Length));
}

#[test]
fn a_message_that_overfills_its_bucket_is_not_kept_to_its_end() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    draft.header.bucket = PaddingBucket::from_size(32_768).unwrap();
    draft.pieces = vec![vec![0; MAX_CHUNK]; 4];
    let m1 = draft.m1();
    let (outer, _) = outer(&m1).unwrap();
    let waiting = enclave
        .keys
        .open(&enclave.keys.find(&outer, now()).unwrap(), &outer)
        .unwrap();
    let frames = draft.frames();
    let Ok(AuthStep::Claimed(claimed)) = waiting.push(&frames[0]) else {
        panic!("the first chunk is whole")
    };
    let mut body = claimed.verify(now(), CLUSTER).unwrap();
    assert_eq!(body.push(&frames[1..3].concat()), Ok(()));
    assert_eq!(body.push(&frames[3]).unwrap_err().reason, Reason::Length);
}

#[test]
fn a_message_in_shorter_chunks_than_it_needs() {
    assert_eq!(
        refusal(|d| {
            let rest = d.pieces[0].split_off(512);
            d.pieces.push(rest);
        }),
        Some(Reason::Length)
    );
}

#[test]
fn padding_that_is_not_zero() {
    assert_eq!(refusal(|d| *d.pieces[0].last_mut().unwrap() = 1), Some(Reason::Inner));
}

#[test]
fn another_method_than_post() {
    let post = b"\x04POST".as_slice();
    assert_eq!(
        refusal(|d| {
            assert_eq!(d.pieces[0][1..6], *post);
            d.pieces[0][2..6].copy_from_slice(b"PUTT");
        }),
        Some(Reason::Inner)
    );
}

#[test]
fn another_model_than_the_enclave_serves() {
    assert_eq!(
        refusal(|d| d.header.model = cloister_attestation::ModelDigest::from_bytes([1; 32])),
        Some(Reason::OtherModel)
    );
}

#[test]
fn expired_or_from_the_future() {
    assert_eq!(
        refusal(|d| {
            d.header.ttl = 10;
            d.header.created = cloister_attestation::UnixTime(now().0 - 10);
        }),
        Some(Reason::NotLive)
    );
    let future = |seconds| refusal(|d| d.header.created = now().plus(seconds));
    assert_eq!(future(MAX_CLOCK_SKEW), None);
    assert_eq!(future(MAX_CLOCK_SKEW + 1), Some(Reason::NotLive));
}

#[test]
fn an_enclave_that_is_no_candidate() {
    let (_, draft) = good();
    let (_, outsider, _) = scene(PaddingProfile::OFF);
    assert_eq!(outsider.refusal(&draft.m1()), Some(Reason::UnknownKey));
}

#[test]
fn no_wrap_too_many_and_repeated_ones() {
    let parses = |candidates: Vec<KeyId>| {
        let (_, mut draft) = good();
        let wrap = draft.wraps.pop().unwrap();
        draft.wraps = vec![wrap; candidates.len()];
        draft.header.candidates = candidates;
        OuterRequest::parse(&draft.m1()).is_ok()
    };
    let ids = |count| (0..count as u8).map(|i| KeyId::from_bytes([i; 16])).collect::<Vec<_>>();
    assert!((1..=MAX_WRAPS).all(|count| parses(ids(count))));
    assert!(!parses(ids(0)));
    assert!(!parses(ids(MAX_WRAPS + 1)));
    assert!(!parses(vec![KeyId::from_bytes([1; 16]); 2]));
}
