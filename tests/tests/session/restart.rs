//! An enclave that ends over a busy engine, and preemption.

use cloister_session::record::ErrorCode;
use cloister_tests::{
    enclave::{Enclave, Setup},
    process,
    real::{self, RealEngine},
    site::Site,
    tenant::{Client, chat, stream},
    wait,
};
use http_body_util::BodyExt;
use serde_json::json;

/// So slow that no answer of any length ends by itself.
const SLOW: &[&str] = &["--profile", "8b-h100", "--output-tokens", "100000"];

/// Kills the enclave over a busy engine and starts it again in the same place.
async fn killed_and_restarted(setup: &Setup, tokens: u32) {
    let mut enclave = Enclave::start(&Site::new(), setup).await;
    let lying = enclave.lying().await;
    let mut client = Client::new(&enclave, &lying).await;
    lying.lease(client.reference()).await;
    let busy = client.ask(&lying, &stream("count", tokens)).await.begun().await;
    let (old, engine) = (enclave.engine_processes(), enclave.engine_pid().await);
    assert!(old.contains(&engine) && process::is_alive(engine));

    enclave.child().kill_alone();
    enclave.start_again();
    let lying = enclave.lying().await;
    lying.until_vacant().await;
    for pid in &old {
        assert!(
            !process::is_alive(*pid),
            "process {pid} of the old engine is there at the first lease"
        );
    }
    assert_ne!(enclave.engine_pid().await, engine);
    assert!(busy.ended().await.is_err(), "an answer that was cut");

    client.renew(&enclave, &lying).await;
    lying.lease(client.reference()).await;
    assert_eq!(client.answer(&lying, &chat("hello", 4)).await.error, None);

    // An orderly end leaves nothing running, either, and nothing that an engine wrote.
    let new = enclave.engine_processes();
    assert!(enclave.child().stop().await.success());
    wait::until("no engine", || async {
        new.iter().all(|pid| !process::is_alive(*pid)).then_some(())
    })
    .await;
    assert!(!enclave.runtime_dir().join("engine").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_was_killed_gets_another_engine() {
    killed_and_restarted(&Setup::simulator(SLOW), 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_was_killed_over_the_real_engine_gets_another() {
    let Some(engine) = RealEngine::find() else { return };
    let _turn = real::turn().await;
    killed_and_restarted(&Setup::real(&engine), 1500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_drain_cap_a_long_answer_is_preempted_and_the_next_tenant_served() {
    for padding in [
        json!({"recordSize": 0}),
        json!({"recordSize": 256, "tickMillis": 1, "countBucket": 4}),
    ] {
        let setup = Setup::simulator(SLOW).with(&json!({"lease": {"drainCapMillis": 200}, "padding": padding}));
        let enclave = Enclave::start(&Site::new(), &setup).await;
        let lying = enclave.lying().await;
        let (a, b) = (Client::new(&enclave, &lying).await, Client::new(&enclave, &lying).await);
        let epoch = lying.lease(a.reference()).await;
        let begun = a.ask(&lying, &stream("count", 100_000)).await.begun().await;
        let (sealed, opener) = a.seal(&chat("count", 100_000));
        let whole = tokio::spawn({
            let lying = lying.clone();
            async move {
                cloister_tests::answer::Exchange::new(lying.post(&sealed.bytes).await, opener)
                    .finish()
                    .await
            }
        });
        wait::until("both in the engine", || async {
            (enclave.batches().requests() >= 2).then_some(())
        })
        .await;

        let engine = enclave.engine_pid().await;
        lying.release(epoch.clone()).await;
        let second = lying.lease(b.reference()).await;
        let answer = b.answer(&lying, &chat("hello", 4)).await;
        assert_eq!((answer.error, answer.receipt.epoch), (None, second.number));

        // Delivery does not need the lease.
        let answer = begun.finish().await;
        assert_eq!((answer.status, answer.error), (Some(200), Some(ErrorCode::Preempted)));
        assert_eq!(
            (answer.receipt.epoch, answer.receipt.tenant_id),
            (epoch.number, a.tenant.id())
        );
        let answer = whole.await.expect("an answer");
        assert_eq!((answer.status, answer.error), (None, Some(ErrorCode::Preempted)));
        assert_eq!(enclave.engine_pid().await, engine, "an abort is enough for this engine");
        assert_eq!(enclave.batches().salts().len(), 2);
    }
}

/// A client that is gone takes its request out of the engine.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_holds_no_lease() {
    let setup = Setup::simulator(SLOW).with(&json!({"lease": {"drainCapMillis": 600_000}}));
    let enclave = Enclave::start(&Site::new(), &setup).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    for body in [stream("count", 100_000), chat("count", 100_000)] {
        let epoch = lying.lease(client.reference()).await;
        let (before, (sealed, _)) = (enclave.batches().requests(), client.seal(&body));
        let sending = tokio::spawn({
            let lying = lying.clone();
            async move { lying.post(&sealed.bytes).await.into_body().collect().await.map(drop) }
        });
        wait::until("it is in the engine", || async {
            (enclave.batches().requests() > before).then_some(())
        })
        .await;
        sending.abort();
        // The drain cap is far away, so the lease ends only if the request did.
        lying.release(epoch).await;
    }
}

/// A reader that takes nothing gets what fits the enclave's buffer of ciphertext, and holds no lease for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_holds_no_lease() {
    let setup = Setup::simulator(&["--profile", "instant", "--output-tokens", "200"]);
    let enclave = Enclave::start(&Site::new(), &setup).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    let epoch = lying.lease(client.reference()).await;
    let silent = client.ask(&lying, &stream("count", 200)).await;
    assert!(silent.is_answered());
    // The answer has left the engine: what is left to deliver is ciphertext.
    lying.release(epoch).await;
    assert_eq!(silent.finish().await.error, None);
}

/// One whose answer is larger than that gets no short success, and the next tenant is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_before_a_large_answer_holds_no_lease() {
    let setup = Setup::simulator(&["--profile", "instant", "--output-tokens", "50000"]);
    let setup = setup.with(&json!({"lease": {"drainCapMillis": 200}}));
    let enclave = Enclave::start(&Site::new(), &setup).await;
    let lying = enclave.lying().await;
    let (client, other) = (Client::new(&enclave, &lying).await, Client::new(&enclave, &lying).await);
    let epoch = lying.lease(client.reference()).await;
    let silent = client.ask(&lying, &stream("count", 50_000)).await;
    assert!(silent.is_answered());
    lying.release(epoch).await;
    lying.lease(other.reference()).await;
    assert_eq!(other.answer(&lying, &chat("hello", 4)).await.error, None);
    // Cut off, or ended by a sealed error.
    let ended = silent.ended().await;
    assert!(
        ended.as_ref().map_or(true, |answer| answer.error.is_some()),
        "{ended:?}"
    );
}
