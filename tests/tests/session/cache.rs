//! After a switch nothing of the former tenant is cached.

use cloister_tests::{
    enclave::{Enclave, Setup},
    real::{self, RealEngine},
    site::Site,
    tenant::{Client, chat},
};
use serde_json::json;

/// The same long prompt, by the same tenant and by the other: only cached tokens tell who asked before.
async fn paired(setup: &Setup) {
    let enclave = Enclave::start(&Site::new(), &setup.clone().with(&json!({"exposeCachedTokens": true}))).await;
    let lying = enclave.lying().await;
    let (a, b) = (Client::new(&enclave, &lying).await, Client::new(&enclave, &lying).await);
    let mut prompt = chat(&"All that is in this prompt is nobody else's business. ".repeat(20), 4);
    prompt["temperature"] = json!(0);

    let epoch = lying.lease(a.reference()).await;
    assert_eq!(a.answer(&lying, &prompt).await.cached_tokens(), 0, "the first to ask");
    let hit = a.answer(&lying, &prompt).await.cached_tokens();
    assert!(hit > 100, "the same tenant hits: {hit}");
    lying.release(epoch).await;

    let epoch = lying.lease(b.reference()).await;
    assert_eq!(
        b.answer(&lying, &prompt).await.cached_tokens(),
        0,
        "another tenant misses"
    );
    assert!(b.answer(&lying, &prompt).await.cached_tokens() > 100);
    lying.release(epoch).await;

    let epoch = lying.lease(a.reference()).await;
    assert_eq!(
        a.answer(&lying, &prompt).await.cached_tokens(),
        0,
        "the first tenant after the other's epoch"
    );
    lying.release(epoch).await;
    lying.lease(a.reference()).await;
    assert_eq!(
        a.answer(&lying, &prompt).await.cached_tokens(),
        0,
        "the same tenant in an epoch of its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cached_after_a_switch() {
    paired(&Setup::simulator(&["--profile", "instant"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cached_after_a_switch_by_restart() {
    let restart = json!({"switchIsolation": "restart"});
    paired(&Setup::simulator(&["--profile", "instant"]).with(&restart)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_engine_has_nothing_cached_after_a_switch() {
    let Some(engine) = RealEngine::find() else { return };
    let _turn = real::turn().await;
    paired(&Setup::real(&engine)).await;
}

/// A salt that the engine ignores is not what keeps tenants apart: the reset is.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cached_after_a_switch_even_where_salts_are_ignored() {
    paired(&Setup::simulator(&[
        "--profile",
        "instant",
        "--faults",
        r#"{"ignoreSalt": true}"#,
    ]))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_tokens_are_not_shown_by_default() {
    let enclave = Enclave::start(&Site::new(), &Setup::simulator(&["--profile", "instant"])).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    lying.lease(client.reference()).await;
    for _ in 0..2 {
        let answer = client.answer(&lying, &chat(&"again and again ".repeat(50), 4)).await;
        assert!(answer.json()["usage"]["total_tokens"].is_u64());
        assert!(!answer.text().contains("cached"), "{}", answer.text());
    }
}
