//! M2: chunks, records and their order, the candidate that answers.

use super::{
    fixture::*,
    round_trip::{HEAD, answer, end, exchange},
};
use crate::{
    enclave::OpenedRequest,
    key_config::PaddingProfile,
    limits::{END_RECORD, MAX_CHUNK, RESPONSE_PREFIX, TAG_LEN},
    opener::{Event, OpenError, ResponseOpener},
    receipt::Outcome,
    record::{ErrorCode, Kind, encode},
    response::{ResponseSealer, SealError},
};

type Chunks = Vec<Vec<u8>>;

/// Why an answer with a change to its chunks is refused: prefix, head, three data records, dummies, end.
fn refusal(padding: PaddingProfile, change: impl FnOnce(&mut Chunks)) -> Option<OpenError> {
    let (tenant, mut enclave, _) = scene(padding);
    let (request, opener) = exchange(&tenant, &mut enclave);
    let mut m2 = answer(&enclave, &request, &[b"one", b"two", b"three"]);
    change(&mut m2);
    receive(opener, &m2.concat(), usize::MAX).err()
}

fn forged(change: impl Fn(&mut Chunks)) -> bool {
    [PaddingProfile::OFF, PADDED]
        .into_iter()
        .all(|padding| refusal(padding, &change) == Some(OpenError::Forged))
}

#[test]
fn chunks_in_another_order_dropped_or_twice() {
    assert!(!forged(|_| ()));
    assert!(forged(|m2| m2.swap(2, 3)));
    assert!(forged(|m2| drop(m2.remove(3))));
    assert!(forged(|m2| m2.insert(3, m2[3].clone())));
}

#[test]
fn a_chunk_relabelled_as_final_and_the_final_one_as_another() {
    assert!(forged(|m2| {
        let last = m2.len() - 2;
        m2.truncate(last + 1);
        let varint = if m2[last][0] < 0x40 { 1 } else { 2 };
        m2[last].splice(..varint, [0]);
    }));
    assert!(forged(|m2| {
        let last = m2.last_mut().unwrap();
        let length = u16::try_from(last.len() - 1).unwrap() | 0x4000;
        last.splice(..1, length.to_be_bytes());
    }));
}

#[test]
fn an_answer_cut_at_every_border() {
    for padding in [PaddingProfile::OFF, PADDED] {
        let (tenant, mut enclave, _) = scene(padding);
        let (request, _) = exchange(&tenant, &mut enclave);
        let borders = answer(&enclave, &request, &[b"one", b"two"]).len();
        for whole in 0..borders {
            for more in [0, 1, TAG_LEN + 1] {
                let cut = refusal(padding, |m2| {
                    let partial = m2[whole][..more].to_vec();
                    m2.truncate(whole);
                    m2.push(partial);
                });
                assert_eq!(cut, Some(OpenError::Forged), "{whole} and {more}");
            }
        }
    }
    assert!(forged(|m2| {
        m2.last_mut().unwrap().pop();
    }));
}

#[test]
fn data_after_the_end() {
    assert!(forged(|m2| m2.push(vec![0])));
    assert!(forged(|m2| m2.push(vec![0; MAX_CHUNK])));
}

#[test]
fn chunks_after_one_that_failed() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let (request, mut opener) = exchange(&tenant, &mut enclave);
    let m2 = answer(&enclave, &request, &[b"one", b"two"]);
    opener.push(&m2[..2].concat()).unwrap();
    let mut bad = m2[2].clone();
    bad[5] ^= 1;
    assert_eq!(opener.push(&bad).err(), Some(OpenError::Forged));
    assert_eq!(opener.push(&m2[3]).err(), Some(OpenError::Forged));
    assert_eq!(opener.push(&[]).err(), Some(OpenError::Forged));
    assert_eq!(opener.finish().err(), Some(OpenError::Forged));
}

#[test]
fn a_plaintext_answer() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    for plain in [b"{\"choices\":[]}".repeat(20), b"data: [DONE]\n\n".to_vec(), Vec::new()] {
        let (_, opener) = exchange(&tenant, &mut enclave);
        assert_eq!(receive(opener, &plain, usize::MAX).err(), Some(OpenError::Forged));
    }
}

#[test]
fn another_version_of_the_protocol() {
    assert!(forged(|m2| m2[0][0] = 2));
}

#[test]
fn an_answer_by_another_candidate_in_the_ones_name() {
    let (tenant, mut one, _) = scene(PaddingProfile::OFF);
    let mut two = Enclave::new(PaddingProfile::OFF);
    let candidates = [one.config(&tenant.reference()), two.config(&tenant.reference())];
    let seal = || tenant.seal(&candidates, now(), b"{}");
    for (claimed, expected) in [(0, Some(OpenError::Forged)), (1, None)] {
        let (sealed, opener) = seal();
        let request = two.open(&sealed.bytes).unwrap();
        let mut m2 = answer(&two, &request, &[b"hello"]);
        m2[0][1..17].copy_from_slice(candidates[claimed].config().key_id.as_bytes());
        assert_eq!(receive(opener, &m2.concat(), usize::MAX).err(), expected);
    }
    // Sealed with the two's context as the one's: what the two can do if it lies, since both hold the DEK.
    let (sealed, opener) = seal();
    let request = two.open(&sealed.bytes).unwrap();
    let (mut sealer, prefix) = request.respond_with(&candidates[0].config().key_id, &[0; 32]);
    let m2 = [prefix, sealer.head(&HEAD).unwrap()].concat();
    assert_eq!(receive(opener, &m2, usize::MAX).err(), Some(OpenError::Forged));
}

#[test]
fn an_answer_by_an_enclave_that_is_no_candidate() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let mut outsider = Enclave::new(PaddingProfile::OFF);
    let (_, opener) = exchange(&tenant, &mut enclave);
    let (request, _) = exchange(&tenant, &mut outsider);
    let m2 = answer(&outsider, &request, &[b"hello"]).concat();
    assert_eq!(receive(opener, &m2, usize::MAX).err(), Some(OpenError::Forged));
}

#[test]
fn an_answer_to_another_request() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let (_, opener) = exchange(&tenant, &mut enclave);
    let (other, _) = exchange(&tenant, &mut enclave);
    let m2 = answer(&enclave, &other, &[b"hello"]).concat();
    assert_eq!(receive(opener, &m2, usize::MAX).err(), Some(OpenError::Forged));
}

#[test]
fn an_answer_under_another_nonce() {
    assert!(forged(|m2| m2[0][RESPONSE_PREFIX - 1] ^= 1));
}

/// A lying enclave: seals with the right key what `lie` says, then an honest end.
fn lied(padding: PaddingProfile, outcome: Outcome, lie: impl Fn(&mut ResponseSealer) -> Chunks) -> Option<OpenError> {
    let (tenant, mut enclave, _) = scene(padding);
    let (request, opener) = exchange(&tenant, &mut enclave);
    let (mut sealer, prefix) = request.respond().unwrap();
    let mut m2 = vec![prefix];
    m2.append(&mut lie(&mut sealer));
    m2.push(raw_end(&enclave, &request, &mut sealer, padding, outcome));
    receive(opener, &m2.concat(), usize::MAX).err()
}

fn raw_end(
    enclave: &Enclave,
    request: &OpenedRequest,
    sealer: &mut ResponseSealer,
    padding: PaddingProfile,
    outcome: Outcome,
) -> Vec<u8> {
    let receipt = enclave.receipt(request, sealer.hash(), outcome).sign(&enclave.identity);
    let size = if padding.is_on() { END_RECORD } else { 0 };
    sealer.raw(&encode(Kind::End, &receipt.to_bytes(), size).unwrap(), true)
}

/// Records as bytes, of the size that the profile wants.
fn sealed(sealer: &mut ResponseSealer, padding: PaddingProfile, records: &[(Kind, &[u8])]) -> Chunks {
    records
        .iter()
        .map(|(kind, payload)| sealer.raw(&encode(*kind, payload, padding.record_size.into()).unwrap(), false))
        .collect()
}

#[test]
fn records_out_of_order() {
    let head = HEAD.encode();
    let error = crate::record::encode_error(ErrorCode::EngineFailed);
    let (head, data) = ((Kind::Head, head.as_slice()), (Kind::Data, b"data".as_slice()));
    let (error, dummy) = ((Kind::Error, error.as_slice()), (Kind::Dummy, [].as_slice()));
    // A bucket of four records each, so that only their order is wrong.
    let lie = |outcome, records: [(Kind, &[u8]); 4]| lied(PADDED, outcome, |s| sealed(s, PADDED, &records));
    let complete = |records| lie(Outcome::Complete, records);
    let failed = |records| lie(Outcome::Error, records);
    assert_eq!(complete([head, data, dummy, data]), None);
    assert_eq!(failed([head, data, error, dummy]), None);
    assert_eq!(failed([error, dummy, dummy, dummy]), None);
    let forged = Some(OpenError::Forged);
    assert_eq!(complete([data, head, data, data]), forged, "data before head");
    assert_eq!(complete([dummy, head, data, data]), forged, "dummy before head");
    assert_eq!(failed([dummy, error, dummy, dummy]), forged, "dummy before error");
    assert_eq!(complete([head, head, data, data]), forged, "head twice");
    assert_eq!(complete([head, data, head, data]), forged, "head after data");
    assert_eq!(failed([head, error, data, dummy]), forged, "data after error");
    assert_eq!(failed([head, error, error, dummy]), forged, "error twice");
    assert_eq!(failed([error, head, dummy, dummy]), forged, "head after error");
    // Nothing at all before the end.
    assert_eq!(lied(PaddingProfile::OFF, Outcome::Complete, |_| Vec::new()), forged);
}

#[test]
fn a_count_of_records_that_fills_no_bucket() {
    let head = HEAD.encode();
    let records: Vec<_> = std::iter::once((Kind::Head, head.as_slice()))
        .chain(std::iter::repeat_n((Kind::Data, b"data".as_slice()), 8))
        .collect();
    for count in 1..=records.len() {
        let outcome = lied(PADDED, Outcome::Complete, |s| sealed(s, PADDED, &records[..count]));
        assert_eq!(outcome.is_none(), count % 4 == 0, "{count}");
    }
}

#[test]
fn a_record_of_another_size() {
    let whole = |size| {
        lied(PADDED, Outcome::Complete, |s| {
            let mut chunks = sealed(
                s,
                PADDED,
                &[(Kind::Head, &HEAD.encode()), (Kind::Data, b"1"), (Kind::Data, b"2")],
            );
            chunks.push(s.raw(&encode(Kind::Data, b"3", size).unwrap(), false));
            chunks
        })
    };
    assert_eq!(whole(256), None);
    assert_eq!(whole(255), Some(OpenError::Forged));
    assert_eq!(whole(257), Some(OpenError::Forged));
}

#[test]
fn padding_of_a_record_that_is_not_zero_or_not_agreed_on() {
    let with = |padding, record: Vec<u8>| {
        lied(padding, Outcome::Complete, |s| {
            let mut chunks = sealed(s, padding, &[(Kind::Head, &HEAD.encode())]);
            chunks.push(s.raw(&record, false));
            for _ in 0..2 {
                chunks.append(&mut sealed(s, padding, &[(Kind::Data, b"x")]));
            }
            chunks
        })
    };
    let mut record = encode(Kind::Data, b"x", 256).unwrap().to_vec();
    assert_eq!(with(PADDED, record.clone()), None);
    record[255] = 1;
    assert_eq!(with(PADDED, record), Some(OpenError::Forged));
    let plain = encode(Kind::Data, b"x", 0).unwrap().to_vec();
    assert_eq!(with(PaddingProfile::OFF, plain.clone()), None);
    assert_eq!(
        with(PaddingProfile::OFF, [plain, vec![0]].concat()),
        Some(OpenError::Forged)
    );
}

#[test]
fn no_end() {
    let (tenant, mut enclave, _) = scene(PADDED);
    let (request, opener) = exchange(&tenant, &mut enclave);
    let (mut sealer, prefix) = request.respond().unwrap();
    let mut m2 = vec![prefix];
    let head = HEAD.encode();
    let data = (Kind::Data, b"x".as_slice());
    m2.append(&mut sealed(
        &mut sealer,
        PADDED,
        &[(Kind::Head, &head), data, data, data],
    ));
    // A final chunk that holds data, of the size of an end record.
    m2.push(sealer.raw(&encode(Kind::Data, b"x", END_RECORD).unwrap(), true));
    assert_eq!(receive(opener, &m2.concat(), usize::MAX).err(), Some(OpenError::Forged));
}

#[test]
fn an_end_before_the_final_chunk() {
    for padding in [
        PaddingProfile::OFF,
        PaddingProfile {
            record_size: 2048,
            ..PADDED
        },
    ] {
        let (tenant, mut enclave, _) = scene(padding);
        let (request, opener) = exchange(&tenant, &mut enclave);
        let (mut sealer, prefix) = request.respond().unwrap();
        let mut m2 = vec![prefix, sealer.head(&HEAD).unwrap()];
        let early = enclave
            .receipt(&request, sealer.hash(), Outcome::Complete)
            .sign(&enclave.identity);
        m2.append(&mut sealed(&mut sealer, padding, &[(Kind::End, &early.to_bytes())]));
        m2.append(&mut sealed(&mut sealer, padding, &[(Kind::Data, b"x".as_slice()); 2]));
        m2.push(raw_end(&enclave, &request, &mut sealer, padding, Outcome::Complete));
        assert_eq!(receive(opener, &m2.concat(), usize::MAX).err(), Some(OpenError::Forged));
    }
}

#[test]
fn the_sealer_makes_no_answer_that_a_client_would_refuse() {
    let (tenant, mut enclave, _) = scene(PADDED);
    let (request, _) = exchange(&tenant, &mut enclave);
    let sealer = || request.respond().unwrap().0;
    let started = || {
        let mut sealer = sealer();
        sealer.head(&HEAD).unwrap();
        sealer
    };
    assert_eq!(sealer().data(b"x"), Err(SealError), "data before head");
    assert_eq!(sealer().dummy(), Err(SealError), "dummy before head");
    assert_eq!(started().head(&HEAD), Err(SealError), "head twice");
    assert_eq!(started().data(b""), Err(SealError), "nothing");
    let capacity = started().data_capacity();
    assert!(started().data(&vec![0; capacity]).is_ok());
    assert_eq!(started().data(&vec![0; capacity + 1]), Err(SealError), "too much");
    let mut failed = started();
    failed.error(ErrorCode::EngineFailed).unwrap();
    assert_eq!(failed.data(b"x"), Err(SealError), "data after error");
    assert_eq!(failed.error(ErrorCode::EngineFailed), Err(SealError), "error twice");
    let sign = |hash| {
        enclave
            .receipt(&request, hash, Outcome::Complete)
            .sign(&enclave.identity)
    };
    assert_eq!(started().missing_dummies(), 3);
    assert_eq!(started().end(sign), Err(SealError), "a bucket that is not full");
    assert_eq!(sealer().end(sign), Err(SealError), "an end of nothing");

    let (tenant, mut plain, _) = scene(PaddingProfile::OFF);
    let (request, opener) = exchange(&tenant, &mut plain);
    let (mut sealer, prefix) = request.respond().unwrap();
    let head = sealer.head(&HEAD).unwrap();
    assert_eq!(sealer.dummy(), Err(SealError), "dummy without padding");
    let data = sealer.data(b"x").unwrap();
    let mut m2 = vec![prefix, head, data];
    end(&plain, &request, sealer, &mut m2, Outcome::Complete);
    assert!(
        receive(opener, &m2.concat(), usize::MAX).is_ok(),
        "a refused call leaves no trace"
    );
}

#[test]
fn an_opener_that_heard_nothing() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let (_, opener): (_, ResponseOpener) = exchange(&tenant, &mut enclave);
    assert_eq!(opener.finish().err(), Some(OpenError::Forged));
}

#[test]
fn what_was_authenticated_before_the_cut_is_there() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let (request, mut opener) = exchange(&tenant, &mut enclave);
    let m2 = answer(&enclave, &request, &[b"one", b"two"]).concat();
    let events = opener.push(&m2[..m2.len() - 1]).unwrap();
    assert!(matches!(&events[..], [Event::Head(_), Event::Data(_), Event::Data(_)]));
    assert_eq!(opener.finish().err(), Some(OpenError::Forged));
}
