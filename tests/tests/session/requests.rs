//! Requests that are swapped, relabelled and replayed.

use cloister_session::{
    outer::{OuterRequest, Parsed},
    record::ErrorCode,
};
use cloister_tests::{
    answer::Exchange,
    enclave::{Enclave, Setup},
    forge::Draft,
    lying::Lying,
    site::Site,
    tenant::{Client, chat},
    wait,
};
use futures::future::join_all;
use http_body_util::BodyExt;

const INSTANT: &[&str] = &["--profile", "instant"];

async fn scene() -> (Enclave, Lying, Client, Client) {
    let enclave = Enclave::start(&Site::new(), &Setup::simulator(INSTANT)).await;
    let lying = enclave.lying().await;
    let (a, b) = (Client::new(&enclave, &lying).await, Client::new(&enclave, &lying).await);
    (enclave, lying, a, b)
}

/// Where the chunks begin.
fn outer_length(m1: &[u8]) -> usize {
    match OuterRequest::parse(m1) {
        Ok(Parsed::Complete { consumed, .. }) => consumed,
        _ => panic!("not a request"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_another_tenants_name_is_never_opened() {
    let (enclave, lying, a, b) = scene().await;
    let epoch = lying.lease(a.reference()).await;

    // B's whole request, and B's body behind A's header and wrap.
    let (of_a, _) = a.seal(&chat("of a", 4));
    let (of_b, _) = b.seal(&chat("of b", 4));
    assert!(
        lying.refused(&of_b.bytes).await.is_retryable(),
        "B does not hold the lease"
    );
    let (at_a, at_b) = (outer_length(&of_a.bytes), outer_length(&of_b.bytes));
    let swapped = [&of_a.bytes[..at_a], &of_b.bytes[at_b..]].concat();
    assert!(!lying.refused(&swapped).await.is_retryable());

    // B's request, whose header says A: first with B's key, which is not A's, then with A's key.
    let mut relabelled = Draft::new(&b, &chat("of b", 4));
    relabelled.header.tenant_ref = a.reference();
    assert!(
        lying.refused(&relabelled.m1()).await.is_retryable(),
        "A has no such key"
    );
    let mut sealed_to_a = Draft::new(&a, &chat("of b", 4));
    sealed_to_a.tenant = b.tenant.id();
    sealed_to_a.credential = b.tenant.credential.to_bytes();
    sealed_to_a.signer = cloister_tests::forge::copy(&b.tenant.member);
    assert!(
        !lying.refused(&sealed_to_a.m1()).await.is_retryable(),
        "B under A's name"
    );

    // A's request, relabelled to B on the way: header and seal do not match any more.
    let mut bytes = of_a.bytes.clone();
    let at = 3 + 16 + 8 + 4;
    bytes[at..at + 16].copy_from_slice(b.reference().as_bytes());
    assert!(lying.refused(&bytes).await.is_retryable(), "B has no such key");

    assert_eq!(
        enclave.batches().assert_exclusive().batches,
        0,
        "nothing reached the engine"
    );
    // And the draft is right but for what was made wrong.
    let answer = a.answer(&lying, &chat("of a", 4)).await;
    assert_eq!(answer.receipt.epoch, epoch.number);
    let response = lying.post(&Draft::new(&a, &chat("of a", 4)).m1()).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_once() {
    let (mut enclave, lying, mut a, _) = scene().await;
    let epoch = lying.lease(a.reference()).await;

    let (sealed, opener) = a.seal(&chat("once", 4));
    assert_eq!(lying.post(&sealed.bytes).await.status(), 200);
    wait::until("the first answer", || async {
        (enclave.batches().requests() == 1).then_some(())
    })
    .await;
    // A replay is answered, sealed, so that nobody outside can tell it from any other answer.
    let replayed = Exchange::new(lying.post(&sealed.bytes).await, opener).finish().await;
    assert_eq!((replayed.status, replayed.error), (None, Some(ErrorCode::Replayed)));

    // The same bytes at once.
    let pairs = join_all((0..8).map(|_| async {
        let (sealed, _) = a.seal(&chat("at once", 4));
        let (one, two) = tokio::join!(lying.post(&sealed.bytes), lying.post(&sealed.bytes));
        let (one, two) = tokio::join!(one.into_body().collect(), two.into_body().collect());
        (one.expect("an answer").to_bytes(), two.expect("an answer").to_bytes())
    }));
    for (one, two) in pairs.await {
        assert_ne!(one, two, "two answers under one key");
    }
    assert_eq!(enclave.batches().requests(), 9, "one run for each request");

    lying.release(epoch).await;
    assert!(lying.refused(&sealed.bytes).await.is_retryable(), "no lease");
    lying.lease(a.reference()).await;
    let response = lying.post(&sealed.bytes).await;
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("an answer");
    assert_eq!(
        enclave.batches().salts().len(),
        1,
        "a replay reached the engine in another epoch"
    );

    // A new boot has new keys.
    enclave.child().kill_alone();
    enclave.start_again();
    let lying = enclave.lying().await;
    lying.lease(a.reference()).await;
    assert!(
        lying.refused(&sealed.bytes).await.is_retryable(),
        "a key of another boot"
    );
    a.renew(&enclave, &lying).await;
    assert_eq!(a.answer(&lying, &chat("anew", 4)).await.error, None);
}
