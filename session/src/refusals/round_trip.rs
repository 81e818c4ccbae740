//! What must not be refused, and what it looks like from outside.

use super::fixture::*;
use crate::{
    enclave::OpenedRequest,
    inner::{ApiPath, ContentType, ResponseHead},
    key_config::PaddingProfile,
    limits::{END_RECORD, FIRST_CHUNK_UNIT, MAX_CHUNK, TAG_LEN},
    opener::{Event, ResponseOpener},
    receipt::Outcome,
    record::ErrorCode,
    response::ResponseSealer,
};

pub(super) const HEAD: ResponseHead = ResponseHead {
    status: 200,
    content_type: ContentType::EventStream,
};

/// A whole answer as chunks: prefix, head, one data record per piece, dummies, end.
pub(super) fn answer(enclave: &Enclave, request: &OpenedRequest, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut sealer, prefix) = request.respond().unwrap();
    let mut m2 = vec![prefix, sealer.head(&HEAD).unwrap()];
    m2.extend(pieces.iter().map(|piece| sealer.data(piece).unwrap()));
    end(enclave, request, sealer, &mut m2, Outcome::Complete);
    m2
}

pub(super) fn end(
    enclave: &Enclave,
    request: &OpenedRequest,
    mut sealer: ResponseSealer,
    m2: &mut Vec<Vec<u8>>,
    outcome: Outcome,
) {
    for _ in 0..sealer.missing_dummies() {
        m2.push(sealer.dummy().unwrap());
    }
    let sign = |hash| enclave.receipt(request, hash, outcome).sign(&enclave.identity);
    m2.push(sealer.end(sign).unwrap());
}

/// A sealed request, opened, with what opens its answer.
pub(super) fn exchange(tenant: &Tenant, enclave: &mut Enclave) -> (OpenedRequest, ResponseOpener) {
    let config = enclave.config(&tenant.reference());
    let (sealed, opener) = tenant.seal(&[config], now(), b"{\"prompt\":1}");
    (enclave.open(&sealed.bytes).unwrap(), opener)
}

fn body(events: &[Event]) -> Vec<u8> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Data(data) => Some(data.as_slice()),
            Event::Head(_) | Event::Error(_) => None,
        })
        .collect::<Vec<_>>()
        .concat()
}

#[test]
fn answers_arrive_with_and_without_padding() {
    for padding in [PaddingProfile::OFF, PADDED, PaddingProfile::DEFAULT] {
        let (tenant, mut enclave, _) = scene(padding);
        let pieces: [&[&[u8]]; 3] = [
            &[b"{\"unary\":true}"],
            &[],
            &[b"one", b"two", b"three", b"four", b"five"],
        ];
        for pieces in pieces {
            let (request, opener) = exchange(&tenant, &mut enclave);
            assert_eq!(request.path(), ApiPath::ChatCompletions);
            assert_eq!(request.body(), b"{\"prompt\":1}");
            assert_eq!(request.tenant(), tenant.id());
            assert_eq!(request.member(), tenant.member.public());
            assert_eq!(request.policy(), POLICY);
            let m2 = answer(&enclave, &request, pieces).concat();
            let (events, ended) = receive(opener, &m2, usize::MAX).unwrap();
            assert!(matches!(&events[0], Event::Head(head) if *head == HEAD));
            assert_eq!(body(&events), pieces.concat());
            assert_eq!(ended.receipt.outcome, Outcome::Complete);
            assert_eq!(ended.receipt.request_id, request.request_id());
            assert_eq!(ended.key_id, request.key_id());
        }
    }
}

#[test]
fn bodies_arrive_at_every_length_around_the_chunks_borders() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let around_the_overhead = (MAX_CHUNK - 70..MAX_CHUNK - 50).chain(2 * MAX_CHUNK - 70..2 * MAX_CHUNK - 50);
    for length in around_the_overhead.chain([0, 1, 63, 64, MAX_CHUNK, 100_000, 1 << 20]) {
        let body = vec![b'x'; length];
        let (sealed, _) = tenant.seal(std::slice::from_ref(&config), now(), &body);
        let opened = enclave.open(&sealed.bytes).unwrap();
        assert!(opened.body() == body, "{length}");
    }
}

#[test]
fn an_error_arrives_before_the_head_and_after_data() {
    for padding in [PaddingProfile::OFF, PADDED] {
        for started in [false, true] {
            let (tenant, mut enclave, _) = scene(padding);
            let (request, opener) = exchange(&tenant, &mut enclave);
            let (mut sealer, prefix) = request.respond().unwrap();
            let mut m2 = vec![prefix];
            if started {
                m2.push(sealer.head(&HEAD).unwrap());
                m2.push(sealer.data(b"half").unwrap());
            }
            m2.push(sealer.error(ErrorCode::Preempted).unwrap());
            end(&enclave, &request, sealer, &mut m2, Outcome::Error);
            let (events, ended) = receive(opener, &m2.concat(), usize::MAX).unwrap();
            assert!(matches!(events.last(), Some(Event::Error(ErrorCode::Preempted))));
            assert_eq!(events.len(), if started { 3 } else { 1 });
            assert_eq!(ended.receipt.outcome, Outcome::Error);
        }
    }
}

#[test]
fn each_candidate_can_answer() {
    let (tenant, mut one, _) = scene(PaddingProfile::OFF);
    let mut two = Enclave::new(PADDED);
    for answering in [0, 1] {
        let candidates = [one.config(&tenant.reference()), two.config(&tenant.reference())];
        let (sealed, opener) = tenant.seal(&candidates, now(), b"{}");
        let enclave = [&one, &two][answering];
        let request = enclave.open(&sealed.bytes).unwrap();
        let m2 = answer(enclave, &request, &[b"hello"]).concat();
        let (events, ended) = receive(opener, &m2, usize::MAX).unwrap();
        assert_eq!(body(&events), b"hello");
        assert_eq!(ended.receipt.enclave_id, enclave.facts.enclave_id);
    }
}

#[test]
fn different_answers_of_a_length_look_the_same() {
    let (tenant, mut enclave, _) = scene(PADDED);
    let mut sizes = |pieces: &[&[u8]]| {
        let (request, _) = exchange(&tenant, &mut enclave);
        answer(&enclave, &request, pieces)
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>()
    };
    let yes = sizes(&[b"y", b"es, that is a kind of answer with a long tail", b"."]);
    let no = sizes(&[b"no"]);
    assert_eq!(yes, no, "one bucket of records");
    let record = usize::from(PADDED.record_size) + TAG_LEN + 2;
    assert_eq!(yes[1..yes.len() - 1], vec![record; 4]);
    assert_eq!(yes[yes.len() - 1], END_RECORD + TAG_LEN + 1);
    // One record more than a bucket holds takes a whole further bucket.
    assert_eq!(sizes(&[b"a", b"b", b"c", b"d"]).len(), 1 + 8 + 1);
}

#[test]
fn members_with_more_and_fewer_models_look_the_same() {
    let (mut tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut size = |models| {
        let mut claims = claims(&tenant.member);
        claims.models = vec![MODEL; models];
        tenant.credential = tenant.root.issue(&claims);
        let m1 = tenant.seal(std::slice::from_ref(&config), now(), b"{}").0.bytes;
        assert!(enclave.open(&m1).is_ok());
        m1.len()
    };
    assert_eq!(size(1), size(18));
    assert_eq!(size(64) - size(1), 2 * FIRST_CHUNK_UNIT);
}

#[test]
fn different_requests_of_a_bucket_look_the_same() {
    let (tenant, _, config) = scene(PaddingProfile::OFF);
    let size = |body: &[u8]| tenant.seal(std::slice::from_ref(&config), now(), body).0.bytes.len();
    assert_eq!(size(b"short"), size(&[b'l'; 900]));
    assert_ne!(size(b"short"), size(&[b'l'; 1000]));
}
