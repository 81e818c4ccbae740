//! Chunks of M1: order, borders and lengths.

use super::fixture::*;
use cloister_attestation::ModelDigest;

use crate::{
    credential::{MemberCredential, TenantRoot},
    enclave::{AuthStep, AwaitingBody, Reason},
    key_config::PaddingProfile,
    limits::{FIRST_CHUNK_UNIT, MAX_CHUNK, TAG_LEN},
};

/// An enclave and a good request of five chunks: the first one, three full ones, the final one.
fn five_chunks() -> (Enclave, Draft) {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let draft = Draft::new(&tenant, &[config], &vec![b'x'; 3 * MAX_CHUNK]);
    assert_eq!(draft.pieces.len(), 4);
    assert_eq!(enclave.refusal(&draft.m1()), None);
    (enclave, draft)
}

fn refusal(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Option<Reason> {
    let (enclave, draft) = five_chunks();
    let mut frames = draft.frames();
    change(&mut frames);
    enclave.refusal(&[draft.outer(), frames.concat()].concat())
}

/// Varint of a full chunk.
const FULL: [u8; 4] = [0x80, 0, 0x40, 0x10];

#[test]
fn chunks_in_another_order() {
    assert_eq!(refusal(|_| ()), None);
    assert_eq!(refusal(|f| f.swap(1, 2)), Some(Reason::Chunk));
    assert_eq!(refusal(|f| f.swap(0, 1)), Some(Reason::Chunk));
}

#[test]
fn a_chunk_dropped_or_twice() {
    assert_eq!(refusal(|f| drop(f.remove(2))), Some(Reason::Chunk));
    assert_eq!(refusal(|f| drop(f.remove(0))), Some(Reason::Chunk));
    assert_eq!(refusal(|f| f.insert(2, f[2].clone())), Some(Reason::Chunk));
}

#[test]
fn a_chunk_relabelled_as_final() {
    assert_eq!(
        refusal(|f| {
            f.truncate(4);
            assert_eq!(f[3][..4], FULL);
            f[3].splice(..4, [0]);
        }),
        Some(Reason::Chunk)
    );
}

#[test]
fn the_final_chunk_relabelled_as_one_before_it() {
    assert_eq!(refusal(|f| drop(f[4].splice(..1, FULL))), Some(Reason::Chunk));
}

#[test]
fn the_first_chunk_relabelled_as_final() {
    assert_eq!(
        refusal(|f| {
            f.truncate(1);
            f[0].splice(..2, [0]);
        }),
        Some(Reason::Framing)
    );
    // Refused when it begins, not only when the upload ends.
    let (enclave, draft) = five_chunks();
    let m1 = draft.m1();
    let (outer, _) = outer(&m1).unwrap();
    let live = enclave.keys.find(&outer, now()).unwrap();
    let waiting = enclave.keys.open(&live, &outer).unwrap();
    let refused = waiting.push(&[0]).err().unwrap();
    assert_eq!(refused.reason, Reason::Framing);
}

#[test]
fn data_after_the_final_chunk() {
    // The final chunk is full: one byte more is above every chunk's length, whatever it opens to.
    assert_eq!(refusal(|f| f.push(vec![0])), Some(Reason::Framing));
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let mut m1 = Draft::new(&tenant, &[config], b"{}").m1();
    m1.push(0);
    assert_eq!(enclave.refusal(&m1), Some(Reason::Chunk));
}

#[test]
fn an_empty_chunk_that_is_not_final() {
    let (enclave, mut draft) = five_chunks();
    draft.pieces.insert(2, Vec::new());
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::Framing));
}

#[test]
fn an_empty_final_chunk() {
    let (enclave, mut draft) = five_chunks();
    draft.pieces.push(Vec::new());
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::Framing));
}

#[test]
fn a_length_that_is_not_the_shortest_varint() {
    assert_eq!(
        refusal(|f| {
            let length = u16::from_be_bytes([f[0][0], f[0][1]]) & 0x3fff;
            f[0].splice(..2, (u32::from(length) | 0x8000_0000).to_be_bytes());
        }),
        Some(Reason::Framing)
    );
    assert_eq!(refusal(|f| drop(f[4].splice(..1, [0x40, 0]))), Some(Reason::Framing));
}

#[test]
fn a_chunk_above_the_cap() {
    let (enclave, mut draft) = five_chunks();
    let moved = draft.pieces[1].remove(0);
    draft.pieces[0].push(moved);
    assert_eq!(draft.frames()[1].len(), 4 + MAX_CHUNK + 1 + TAG_LEN);
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::Framing));

    let (enclave, mut draft) = five_chunks();
    let moved = draft.pieces[2].pop().unwrap();
    draft.pieces[3].insert(0, moved);
    // The shorter chunk before it would be refused for that, if the two were not read at once.
    draft.pieces.remove(2);
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::Framing), "final");
}

#[test]
fn a_request_cut_at_every_border() {
    let (enclave, draft) = five_chunks();
    let (outer, frames) = (draft.outer(), draft.frames());
    let mut cut = outer.clone();
    for frame in &frames {
        assert_eq!(enclave.refusal(&cut), Some(Reason::Framing), "before a chunk");
        let start = cut.len();
        cut.extend_from_slice(frame);
        let cuts = [start + 1, start + 4, start + 5, cut.len() - TAG_LEN, cut.len() - 1];
        for at in cuts {
            let expected = if frame[0] == 0 && at > start + 1 + TAG_LEN {
                Reason::Chunk
            } else {
                Reason::Framing
            };
            assert_eq!(enclave.refusal(&cut[..at]), Some(expected));
        }
    }
    assert_eq!(enclave.refusal(&cut), None, "whole");
    for at in [0, 1, 2, 3, 50, outer.len() - 1] {
        assert_eq!(enclave.refusal(&outer[..at]), Some(Reason::Framing));
    }
}

#[test]
fn a_first_chunk_with_more_or_less_in_it() {
    let (enclave, mut draft) = five_chunks();
    draft.credential.push(0);
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::FirstChunk), "byte after");
    draft.credential.truncate(10);
    assert_eq!(enclave.refusal(&draft.m1()), Some(Reason::FirstChunk), "cut");
}

#[test]
fn a_first_chunk_with_other_padding() {
    let (enclave, mut draft) = five_chunks();
    // The first chunk without its padding.
    let bare = 32 + 2 + draft.credential.len() + 32 + 64;
    let missing = FIRST_CHUNK_UNIT - bare;
    let mut with = |padding: Vec<u8>| {
        draft.first_padding = Some(padding);
        enclave.refusal(&draft.m1())
    };
    assert_eq!(with(vec![0; missing]), None);
    assert_eq!(with(vec![0; missing - 1]), Some(Reason::FirstChunk));
    assert_eq!(
        with(vec![0; missing + FIRST_CHUNK_UNIT]),
        Some(Reason::FirstChunk),
        "more than needed"
    );
    assert_eq!(with(Vec::new()), Some(Reason::FirstChunk), "none");
    let mut dirty = vec![0; missing];
    dirty[missing - 1] = 1;
    assert_eq!(with(dirty), Some(Reason::FirstChunk), "not zero");
}

/// A claim that fills its chunk exactly is padded with nothing, and not with a whole unit.
#[test]
fn a_first_chunk_that_is_full_with_a_unit_of_padding() {
    let (enclave, mut draft) = five_chunks();
    let member = key();
    let root = TenantRoot::new(key());
    let bare = |credential: &[u8]| 32 + 2 + credential.len() + 32 + 64;
    let lengths = (1..=64).flat_map(|models| (1..=100).map(move |audience| (models, audience)));
    let credentials = lengths.map(|(models, audience)| {
        let claims = MemberCredential {
            models: (1..=models).map(|n| ModelDigest::from_bytes([n; 32])).collect(),
            audience: "x".repeat(audience),
            ..claims(&member)
        };
        root.issue(&claims).to_bytes()
    });
    let mut full = credentials.filter(|credential| bare(credential).is_multiple_of(FIRST_CHUNK_UNIT));
    draft.credential = full.next().expect("some length fits");
    let refusal = |draft: &Draft| enclave.refusal(&draft.m1());
    let good_form = refusal(&draft);
    assert!(
        good_form.is_some_and(|reason| reason != Reason::FirstChunk),
        "{good_form:?}"
    );
    draft.first_padding = Some(vec![0; FIRST_CHUNK_UNIT]);
    assert_eq!(refusal(&draft), Some(Reason::FirstChunk));
}

/// The body of a request whose second chunk does not open, and all chunks.
fn failed() -> (AwaitingBody, Vec<Vec<u8>>) {
    let (enclave, draft) = five_chunks();
    let m1 = draft.m1();
    let (outer, _) = outer(&m1).unwrap();
    let live = enclave.keys.find(&outer, now()).unwrap();
    let waiting = enclave.keys.open(&live, &outer).unwrap();
    let frames = draft.frames();
    let Ok(AuthStep::Claimed(claimed)) = waiting.push(&frames[0]) else {
        panic!("the first chunk is whole")
    };
    let mut body = claimed.verify(now(), CLUSTER).unwrap();
    let mut bad = frames[1].clone();
    bad[10] ^= 1;
    assert_eq!(body.push(&bad).unwrap_err().reason, Reason::Chunk);
    (body, frames)
}

#[test]
fn chunks_after_one_that_failed() {
    let (mut body, frames) = failed();
    assert_eq!(body.push(&frames[2]).unwrap_err().reason, Reason::AfterFailure);
    assert_eq!(body.push(&[]).unwrap_err().reason, Reason::AfterFailure);
    assert_eq!(body.finish().err().unwrap().reason, Reason::AfterFailure);
    let (body, _) = failed();
    assert_eq!(body.finish().err().unwrap().reason, Reason::AfterFailure);
}
