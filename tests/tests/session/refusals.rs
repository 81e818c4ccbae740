//! Whatever is wrong with a sealed request, from outside all refusals are the same one.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use cloister_attestation::{PolicyHash, UnixTime};
use cloister_session::{REQUEST_MEDIA_TYPE, credential::MemberCredential, signing::SigningKey};
use cloister_tests::{
    enclave::{Enclave, Setup},
    forge::{Draft, copy},
    lying::{Lying, REQUESTS_PATH, Refusal, refusal},
    site::Site,
    tenant::{Client, chat, claims, now},
};
use http::Request;
use http_body::Frame;
use serde_json::json;

/// Larger than what HTTP/2 takes for a handler that does not read.
const LARGE: usize = 300_000;

/// A body that counts what is taken of it.
struct Counted {
    pieces: std::vec::IntoIter<Bytes>,
    left: Arc<AtomicUsize>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let piece = self.pieces.next();
        self.left.store(self.pieces.len(), Ordering::SeqCst);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// The refusal of `m1` under these headers, and how much of it had not been read when it came.
async fn refused(lying: &Lying, m1: &[u8], headers: &[(&str, &str)]) -> (Refusal, usize) {
    let pieces: Vec<Bytes> = m1.chunks(4096).map(Bytes::copy_from_slice).collect();
    let left = Arc::new(AtomicUsize::new(pieces.len()));
    let body = Counted {
        pieces: pieces.into_iter(),
        left: Arc::clone(&left),
    };
    let mut request = Request::post(REQUESTS_PATH).body(body).expect("a request");
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        request.headers_mut().append(name, value.parse().expect("a value"));
    }
    let response = lying.send(request).await.expect("a response");
    let left = left.load(Ordering::SeqCst);
    (refusal(response).await, left)
}

fn drafts(client: &Client, other: &Client) -> Vec<(&'static str, Vec<u8>)> {
    let body = chat(&"x".repeat(LARGE), 1);
    let draft = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new(client, &body);
        change(&mut draft);
        draft.m1()
    };
    let credential = |change: &dyn Fn(&mut MemberCredential)| {
        let mut said = claims(&client.tenant.member, client.key().verified.config().model);
        change(&mut said);
        draft(&|draft| draft.credential = client.tenant.root.issue(&said).to_bytes())
    };
    let good = Draft::new(client, &body);
    let flipped = |at: usize| {
        let mut m1 = good.m1();
        m1[at] ^= 1;
        m1
    };
    let outer = good.outer().len();
    let chunks = good.chunks();
    vec![
        ("a wrap that does not open", flipped(outer - 1)),
        ("an encapsulated key that was changed", flipped(outer - 500)),
        ("another key in the wrap", draft(&|draft| draft.wrapped[0] ^= 1)),
        ("another commitment", draft(&|draft| draft.header.dek_commit[0] ^= 1)),
        ("an edited life", flipped(3 + 16 + 8 + 3)),
        ("a first chunk that was changed", flipped(outer + 100)),
        (
            "a chunk in the middle that was changed",
            flipped(outer + chunks[0].len() + 20_000),
        ),
        ("a final chunk that was changed", flipped(good.m1().len() - 1)),
        (
            "chunks in another order",
            [
                good.outer(),
                chunks[0].clone(),
                chunks[2].clone(),
                chunks[1].clone(),
                chunks[3..].concat(),
            ]
            .concat(),
        ),
        (
            "a chunk that is missing",
            [good.outer(), chunks[0].clone(), chunks[2..].concat()].concat(),
        ),
        (
            "no final chunk",
            [good.outer(), chunks[..chunks.len() - 1].concat()].concat(),
        ),
        ("bytes after the final chunk", [good.m1(), vec![0]].concat()),
        (
            "an expired credential",
            credential(&|said| (said.not_before, said.not_after) = (UnixTime(now().0 - 100), UnixTime(now().0 - 10))),
        ),
        (
            "a credential of tomorrow",
            credential(&|said| (said.not_before, said.not_after) = (now().plus(600), now().plus(700))),
        ),
        (
            "a credential for too long",
            credential(&|said| said.not_after = said.not_before.plus(3601)),
        ),
        (
            "a credential for another cluster",
            credential(&|said| said.audience = "elsewhere".to_owned()),
        ),
        (
            "a credential for another model",
            credential(&|said| said.models = vec![cloister_attestation::ModelDigest::from_bytes([9; 32])]),
        ),
        (
            "a credential of another tenant",
            draft(&|draft| draft.credential = other.tenant.credential.to_bytes()),
        ),
        (
            "another tenant under this tenant's name",
            draft(&|draft| {
                draft.tenant = other.tenant.id();
                draft.credential = other.tenant.credential.to_bytes();
                draft.signer = copy(&other.tenant.member);
            }),
        ),
        ("another tenant's id", draft(&|draft| draft.tenant = other.tenant.id())),
        (
            "a credential that is none",
            draft(&|draft| draft.credential = vec![0x80]),
        ),
        (
            "another member's signature",
            draft(&|draft| draft.signer = SigningKey::generate().expect("a key")),
        ),
        (
            "padding that is not zero",
            draft(&|draft| *draft.message.last_mut().expect("a byte") = 1),
        ),
        ("a message that is none", draft(&|draft| draft.message[0] = 7)),
        ("no version that is known", flipped(0)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_cannot_be_told_apart() {
    let setup = Setup::simulator(&["--profile", "instant"]).with(&json!({"lease": {"uploadTimeoutMillis": 600_000}}));
    let enclave = Enclave::start(&Site::new(), &setup).await;
    let lying = enclave.lying().await;
    let (client, other) = (Client::new(&enclave, &lying).await, Client::new(&enclave, &lying).await);
    lying.lease(client.reference()).await;

    let plain = [("content-type", REQUEST_MEDIA_TYPE)];
    let mut seen = Vec::new();
    for (what, m1) in drafts(&client, &other) {
        seen.push((what, refused(&lying, &m1, &plain).await));
    }
    let good = || Draft::new(&client, &chat(&"x".repeat(LARGE), 1)).m1();
    for (what, headers) in [
        ("a content encoding", vec![plain[0], ("content-encoding", "gzip")]),
        ("an identity encoding", vec![plain[0], ("content-encoding", "identity")]),
        ("another media type", vec![("content-type", "application/json")]),
        (
            "a media type with a parameter",
            vec![("content-type", "application/vnd.cloister.request.v1; a=b")],
        ),
        ("no media type", vec![]),
    ] {
        seen.push((what, refused(&lying, &good(), &headers).await));
    }
    let (first, _) = &seen[0].1;
    assert!(!first.is_retryable() && first.body.is_empty());
    for (what, (refusal, left)) in &seen {
        assert_eq!(refusal, first, "{what}");
        assert_eq!(*left, 0, "{what}: refused before all of it was read");
    }
    assert_eq!(
        enclave.batches().assert_exclusive().batches,
        0,
        "nothing reached the engine"
    );

    // What was wrong was wrong for the reason that is named: without it the request is answered.
    let stated = PolicyHash::from_bytes([0; 32]);
    let mut draft = Draft::new(&client, &chat(&"x".repeat(LARGE), 1));
    draft.policy = *stated.as_bytes();
    assert_eq!(lying.post(&draft.m1()).await.status(), 200);
}
