//! Engines that hang, die, or cannot be proven empty.

use cloister_proto::{KeyConfigsRequest, LeaseState};
use cloister_session::record::ErrorCode;
use cloister_tests::{
    enclave::{Enclave, Setup},
    lying::Lying,
    process,
    site::Site,
    tenant::{Client, Tenant, chat, stream},
    wait,
};
use serde_json::{Value, json};

const INSTANT: &[&str] = &["--profile", "instant"];
/// So slow that no answer of any length ends by itself.
const SLOW: &[&str] = &["--profile", "8b-h100", "--output-tokens", "100000"];

async fn scene(setup: &Setup) -> (Enclave, Lying, Client) {
    let enclave = Enclave::start(&Site::new(), setup).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    (enclave, lying, client)
}

/// The replica can be leased, and serves.
async fn serves(lying: &Lying, client: &Client) {
    let epoch = lying.lease(client.reference()).await;
    let answer = client.answer(lying, &chat("hello", 4)).await;
    assert_eq!((answer.error, answer.receipt.epoch), (None, epoch.number));
    lying.release(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_given_up_with_a_receipt() {
    let limits = json!({"engine": {"firstByteTimeoutMillis": 200, "idleTimeoutMillis": 200}});
    let (enclave, lying, client) = scene(&Setup::simulator(INSTANT).with(&limits)).await;
    let epoch = lying.lease(client.reference()).await;
    enclave.engine().set_faults(json!({"hang": true})).await;
    for body in [chat("hello", 4), stream("hello", 4)] {
        let answer = client.answer(&lying, &body).await;
        assert_eq!((answer.status, answer.error), (None, Some(ErrorCode::EngineTimeout)));
    }
    enclave.engine().set_faults(json!({})).await;
    assert_eq!(client.answer(&lying, &chat("hello", 4)).await.error, None);
    lying.release(epoch).await;
    serves(&lying, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_falls_silent_is_given_up_in_mid_stream() {
    let limits = json!({"engine": {"idleTimeoutMillis": 300}});
    let (enclave, lying, client) = scene(&Setup::simulator(SLOW).with(&limits)).await;
    let epoch = lying.lease(client.reference()).await;
    let exchange = client.ask(&lying, &stream("hello", 100_000)).await.begun().await;
    enclave.engine().set_faults(json!({"slow": 1e6})).await;
    let answer = exchange.finish().await;
    assert_eq!(
        (answer.status, answer.error),
        (Some(200), Some(ErrorCode::EngineTimeout))
    );
    lying.release(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_mid_stream_is_no_answer() {
    let (enclave, lying, client) = scene(&Setup::simulator(SLOW)).await;
    let epoch = lying.lease(client.reference()).await;
    enclave.engine().set_faults(json!({"dieAfterTokens": 3})).await;
    let answer = client.answer(&lying, &stream("hello", 100)).await;
    assert_eq!(
        (answer.status, answer.error),
        (Some(200), Some(ErrorCode::EngineFailed))
    );
    let answer = client.answer(&lying, &chat("hello", 100)).await;
    assert_eq!((answer.status, answer.error), (None, Some(ErrorCode::EngineFailed)));
    enclave.engine().set_faults(json!({})).await;
    lying.release(epoch).await;
    serves(&lying, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_ends_the_epoch() {
    let (enclave, lying, client) = scene(&Setup::simulator(SLOW)).await;
    let epoch = lying.lease(client.reference()).await;
    let old = enclave.engine_pid().await;
    let long = client.ask(&lying, &stream("hello", 100_000)).await.begun().await;
    enclave.engine().set_faults(json!({"exitAfterTokens": 2})).await;
    // It makes the engine exit, as soon as it has two tokens.
    let deadly = client.ask(&lying, &stream("hello", 100)).await;
    for exchange in [long, deadly] {
        let error = exchange.finish().await.error;
        assert!(
            matches!(error, Some(ErrorCode::Preempted | ErrorCode::EngineFailed)),
            "{error:?}"
        );
    }
    let next = lying.until_vacant().await;
    assert_eq!(next.number, epoch.number + 1);
    assert!(!process::is_alive(old), "the engine that died");
    assert_ne!(enclave.engine_pid().await, old);
    lying.lease(client.reference()).await;
    assert_eq!(client.answer(&lying, &chat("hello", 4)).await.error, None);
    assert_eq!(enclave.batches().salts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_while_vacant_is_replaced() {
    let (enclave, lying, client) = scene(&Setup::simulator(INSTANT)).await;
    let epoch = lying.until_vacant().await;
    let old = enclave.engine_pid().await;
    let killed = rustix::process::kill_process(pid(old), rustix::process::Signal::KILL);
    assert!(killed.is_ok());
    lying
        .until("the next epoch", |status| {
            status.epoch.as_ref().is_some_and(|next| next.number > epoch.number)
        })
        .await;
    assert!(
        !lying.grant(client.reference(), epoch).await.applied,
        "an epoch of the engine that is gone"
    );
    lying.until_vacant().await;
    assert_ne!(enclave.engine_pid().await, old);
    serves(&lying, &client).await;
}

fn pid(pid: u32) -> rustix::process::Pid {
    let raw = i32::try_from(pid).expect("a process id");
    rustix::process::Pid::from_raw(raw).expect("a process id")
}

/// A reset that is not proven: the replica is vacant again only with another engine.
async fn replaced(faults: &Value) {
    let (enclave, lying, client) = scene(&Setup::simulator(INSTANT)).await;
    let epoch = lying.lease(client.reference()).await;
    assert_eq!(client.answer(&lying, &chat("hello", 4)).await.error, None);
    let old = enclave.engine_pid().await;
    enclave.engine().set_faults(faults.clone()).await;
    assert!(lying.drain(epoch.clone()).await.applied);
    let next = lying.until_vacant().await;
    // There was no proof in between, so there was no other epoch.
    assert_eq!(next.number, epoch.number + 1, "{faults}");
    assert!(!process::is_alive(old), "{faults}: leased without a proof");
    assert_ne!(enclave.engine_pid().await, old);
    serves(&lying, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_without_proof_replaces_the_engine() {
    for reset in ["empty", "refused", "leak", "missing"] {
        replaced(&json!({"reset": reset})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_shows_too_little_is_replaced() {
    for fault in ["noMetrics", "hideCachedTokens"] {
        replaced(&json!({ fault: true })).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_never_becomes_idle_is_replaced() {
    replaced(&json!({"neverIdle": true})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_hangs_replaces_the_engine() {
    replaced(&json!({"reset": "hang"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_never_proven_empty_is_never_leased() {
    for fault in ["noMetrics", "neverIdle", "lora"] {
        let faults = json!({ fault: true }).to_string();
        let enclave = Enclave::spawn(
            &Site::new(),
            &Setup::simulator(&["--profile", "instant", "--faults", &faults]),
        );
        let lying = enclave.lying().await;
        let failed = lying
            .until("a replica that is given up", |status| {
                assert_ne!(status.state(), LeaseState::Vacant, "{fault}: without a proof");
                status.state() == LeaseState::Failed
            })
            .await;
        let tenant = Tenant::new(enclave.model());
        let epoch = failed.epoch.expect("an epoch");
        for number in [epoch.number, epoch.number + 1] {
            let expect = cloister_proto::Epoch {
                number,
                ..epoch.clone()
            };
            let status = lying.grant(tenant.reference(), expect).await;
            assert_eq!((status.applied, status.state()), (false, LeaseState::Failed));
        }
        let request = KeyConfigsRequest {
            tenant_ref: tenant.reference().as_bytes().to_vec().into(),
        };
        let keys = lying.keys().key_configs(request).await;
        assert!(keys.is_err(), "{fault}: keys for what will never be opened");
        wait::until("no engine", || async {
            enclave.engine_processes().is_empty().then_some(())
        })
        .await;
    }
}

/// Some engines repeat the prompt in their errors: neither text nor type of them gets out.
#[tokio::test(flavor = "multi_thread")]
async fn the_engines_own_error_texts_stay_inside() {
    let (mut enclave, lying, client) = scene(&Setup::simulator(INSTANT).log("trace")).await;
    lying.lease(client.reference()).await;
    enclave.engine().set_faults(json!({"echoError": true})).await;
    for body in [chat("the secret word", 4), stream("the secret word", 4)] {
        let answer = client.answer(&lying, &body).await;
        assert!(
            answer.status.is_some_and(|status| status >= 500) || answer.error.is_some(),
            "{answer:?}"
        );
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    assert!(!enclave.child().log().contains("secret"));
}
