//! Uploads that take longer than they may.

use bytes::Bytes;
use cloister_proto::LeaseState;
use cloister_tests::{
    enclave::{Enclave, Setup},
    lying::{Lying, refusal, request},
    site::Site,
    tenant::{Client, chat},
};
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

const INSTANT: &[&str] = &["--profile", "instant"];

/// An upload that waits for its next piece.
struct Upload {
    pieces: mpsc::Sender<Bytes>,
    response: JoinHandle<Response<cloister_transport::ResponseBody>>,
}

fn upload(lying: &Lying) -> Upload {
    let (pieces, receiver) = mpsc::channel(1);
    let frames = ReceiverStream::new(receiver).map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
    let (lying, request) = (lying.clone(), request(StreamBody::new(frames)));
    let response = tokio::spawn(async move { lying.send(request).await.expect("a response") });
    Upload { pieces, response }
}

async fn scene(lease: &Value) -> (Enclave, Lying, Client) {
    let enclave = Enclave::start(&Site::new(), &Setup::simulator(INSTANT).with(&json!({"lease": lease}))).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    (enclave, lying, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_takes_too_long_is_refused_and_holds_no_lease() {
    let (enclave, lying, client) = scene(&json!({"uploadTimeoutMillis": 400, "drainCapMillis": 600_000})).await;
    let epoch = lying.lease(client.reference()).await;
    let (sealed, _) = client.seal(&chat(&"x".repeat(100_000), 4));
    // Nothing at all, a part of the outer part, and a part of the chunks.
    for length in [0, 500, 40_000] {
        let upload = upload(&lying);
        if length > 0 {
            upload
                .pieces
                .send(Bytes::copy_from_slice(&sealed.bytes[..length]))
                .await
                .expect("sent");
        }
        let refusal = refusal(upload.response.await.expect("a response")).await;
        assert!(!refusal.is_retryable(), "{length}");
    }
    // The drain cap is far away: the permits were given back.
    lying.release(epoch).await;
    assert!(enclave.batches().salts().is_empty(), "something reached the engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_holds_the_lease_no_longer_than_the_drain_cap() {
    let (enclave, lying, client) = scene(&json!({"uploadTimeoutMillis": 600_000, "drainCapMillis": 300})).await;
    let epoch = lying.lease(client.reference()).await;
    let (sealed, _) = client.seal(&chat(&"x".repeat(100_000), 4));
    let mut wrong = sealed.bytes.clone();
    let middle = wrong.len() / 4;
    wrong[middle] ^= 1;
    // One that may become a good request, and one that is refused already and only read to its end.
    let mut uploads = Vec::new();
    for m1 in [&sealed.bytes, &wrong] {
        let upload = upload(&lying);
        upload
            .pieces
            .send(Bytes::copy_from_slice(&m1[..m1.len() / 2]))
            .await
            .expect("sent");
        uploads.push(upload);
    }
    // Both hold a permit, so the load shows.
    lying
        .until("both uploads", |status| status.load() != cloister_proto::Load::Idle)
        .await;
    assert!(lying.drain(epoch.clone()).await.applied);
    assert_eq!(lying.status().await.state(), LeaseState::Draining);
    let next = lying.until_vacant().await;
    assert_eq!(next.number, epoch.number + 1);
    for upload in uploads {
        let refusal = refusal(upload.response.await.expect("a response")).await;
        assert!(refusal.is_retryable(), "it outlived the lease");
        drop(upload.pieces);
    }
    let other = Client::new(&enclave, &lying).await;
    lying.lease(other.reference()).await;
    assert_eq!(other.answer(&lying, &chat("hello", 4)).await.error, None);
    assert_eq!(enclave.batches().salts().len(), 1);
}
