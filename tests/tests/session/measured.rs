//! What was measured is what runs.

use std::fs;

use cloister_tests::{
    enclave::{Enclave, Setup},
    site::Site,
    tenant::{Client, chat},
    wait,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_replaced_between_two_leases_is_never_served() {
    let setup = Setup::simulator(&["--profile", "instant"]).with(&json!({"switchIsolation": "restart"}));
    let site = Site::new();
    let mut enclave = Enclave::start(&site, &setup).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    let epoch = lying.lease(client.reference()).await;
    assert_eq!(client.answer(&lying, &chat("hello", 4)).await.error, None);
    // Unchanged, it is started again for the next lease.
    lying.release(epoch).await;
    let epoch = lying.lease(client.reference()).await;
    let before = enclave.batches().requests();

    fs::write(site.join("model"), "another model").expect("a file");
    lying.drain(epoch).await;
    let ended = wait::until("the end", || {
        let ended = enclave.child().ended();
        async move { ended }
    })
    .await;
    assert_eq!(ended.code(), Some(1));
    assert_eq!(enclave.batches().requests(), before, "nothing ran on it");
    assert!(enclave.child().log().contains("changed since they were measured"));
}
