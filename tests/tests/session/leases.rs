//! What a lying scheduler says of leases changes nothing.

use cloister_proto::{Epoch, LeaseState};
use cloister_tests::{
    enclave::{Enclave, Setup},
    site::Site,
    tenant::{Client, chat},
};

const INSTANT: &[&str] = &["--profile", "instant"];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_lease_never_makes_one() {
    let enclave = Enclave::start(&Site::new(), &Setup::simulator(INSTANT)).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    let epoch = lying.until_vacant().await;

    for _ in 0..3 {
        let refusal = client.ask(&lying, &chat("hello", 4)).await.refusal().await;
        assert!(refusal.is_retryable());
    }
    let status = lying.status().await;
    assert_eq!((status.state(), status.epoch), (LeaseState::Vacant, Some(epoch)));
    assert_eq!(enclave.batches().assert_exclusive().batches, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_serves_one_tenant_after_the_other() {
    let enclave = Enclave::start(&Site::new(), &Setup::simulator(INSTANT)).await;
    let lying = enclave.lying().await;
    let (a, b) = (Client::new(&enclave, &lying).await, Client::new(&enclave, &lying).await);

    let first = lying.lease(a.reference()).await;
    let answer = a.answer(&lying, &chat("hello", 4)).await;
    assert_eq!(answer.json()["usage"]["completion_tokens"], 4);
    assert_eq!(
        (answer.receipt.epoch, answer.receipt.tenant_id),
        (first.number, a.tenant.id())
    );
    assert!(b.ask(&lying, &chat("hello", 4)).await.refusal().await.is_retryable());

    lying.release(first).await;
    let second = lying.lease(b.reference()).await;
    let answer = b.answer(&lying, &chat("hello", 4)).await;
    assert_eq!(
        (answer.receipt.epoch, answer.receipt.tenant_id),
        (second.number, b.tenant.id())
    );
    assert!(a.ask(&lying, &chat("hello", 4)).await.refusal().await.is_retryable());
    assert_eq!(enclave.batches().salts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_do_not_fit_the_state_change_nothing() {
    let enclave = Enclave::start(&Site::new(), &Setup::simulator(INSTANT)).await;
    let lying = enclave.lying().await;
    let (a, b) = (Client::new(&enclave, &lying).await, Client::new(&enclave, &lying).await);
    let epoch = lying.until_vacant().await;
    let wrong = [
        Epoch {
            number: epoch.number - 1,
            ..epoch.clone()
        },
        Epoch {
            number: epoch.number + 1,
            ..epoch.clone()
        },
        Epoch {
            boot_id: vec![7; 16].into(),
            ..epoch.clone()
        },
    ];

    assert!(!lying.drain(epoch.clone()).await.applied, "there is nothing to drain");
    for expect in &wrong {
        let status = lying.grant(a.reference(), expect.clone()).await;
        assert_eq!((status.applied, status.state()), (false, LeaseState::Vacant));
    }
    assert!(lying.grant(a.reference(), epoch.clone()).await.applied);
    for tenant in [a.reference(), b.reference()] {
        let status = lying.grant(tenant, epoch.clone()).await;
        assert_eq!((status.applied, status.state()), (false, LeaseState::Held));
        assert_eq!(status.tenant_ref.as_ref(), a.reference().as_bytes());
    }
    for expect in &wrong {
        let status = lying.drain(expect.clone()).await;
        assert_eq!((status.applied, status.state()), (false, LeaseState::Held));
    }
    let _ = a.answer(&lying, &chat("hello", 4)).await.json();
    let next = lying.release(epoch.clone()).await;
    assert!(!lying.drain(epoch.clone()).await.applied, "a duplicate");
    assert!(!lying.grant(a.reference(), epoch).await.applied, "of the epoch before");
    assert_eq!(lying.until_vacant().await, next);
}
