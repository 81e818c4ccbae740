//! Key configurations and evidence for clients, and how the scheduler follows its enclaves.

mod support;

use axum::body::Body;
use cloister_attestation::EnclaveId;
use http::{Request, StatusCode, header};
use support::{Fixture, PATIENCE, TOKEN, authorized, bytes, message, model, refusal, refused, tenant};

fn evidence(tenant: &impl ToString, enclave: &EnclaveId, body: impl Into<Body>) -> Request<Body> {
    let uri = format!(
        "/cloister/v1/tenants/{}/enclaves/{enclave}/evidence",
        tenant.to_string()
    );
    authorized(Request::post(uri)).body(body.into()).unwrap()
}

fn nonce() -> String {
    format!(r#"{{"nonce":"{}"}}"#, "ab".repeat(32))
}

#[tokio::test]
async fn every_enclave_offers_a_key_of_the_tenant() {
    let fixture = Fixture::start(3).await;
    for tenant in [tenant(0), tenant(1)] {
        let keys = fixture.keys(&tenant).await;
        let enclaves: std::collections::HashSet<_> = keys.iter().map(|key| key.unverified().enclave_id).collect();
        assert_eq!(enclaves.len(), 3);
        assert!(
            keys.iter()
                .all(|key| key.unverified().tenant_ref == tenant && key.unverified().model == model())
        );
    }
}

#[tokio::test]
async fn another_model_has_no_keys() {
    let fixture = Fixture::start(1).await;
    let uri = format!("/cloister/v1/tenants/{}/keys?model={}", tenant(0), "00".repeat(32));
    let request = authorized(Request::get(uri)).body(Body::empty()).unwrap();
    let response = fixture.client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(bytes(response).await, r#"{"keyConfigs":[]}"#);
}

#[tokio::test]
async fn keys_are_for_those_with_a_credential() {
    let fixture = Fixture::start(1).await;
    let ask = |uri: String, token: &str| {
        let request = Request::get(uri).header(header::AUTHORIZATION, format!("Bearer {token}"));
        fixture.client.send(request.body(Body::empty()).unwrap())
    };
    let path = |tenant: &dyn std::fmt::Display| format!("/cloister/v1/tenants/{tenant}/keys?model={}", model());
    let cases = [
        (path(&tenant(0)), "another", refusal(401, "unauthorized", false)),
        (path(&tenant(9)), TOKEN, refusal(403, "unknown_tenant", false)),
        (
            path(&tenant(1)),
            support::NARROW_TOKEN,
            refusal(403, "unknown_tenant", false),
        ),
        (path(&"xyz"), TOKEN, refusal(400, "malformed", false)),
        (
            format!("/cloister/v1/tenants/{}/keys", tenant(0)),
            TOKEN,
            refusal(400, "malformed", false),
        ),
        (
            format!("/cloister/v1/tenants/{}/keys?model=xyz", tenant(0)),
            TOKEN,
            refusal(400, "malformed", false),
        ),
    ];
    for (uri, token, expected) in cases {
        assert_eq!(refused(ask(uri.clone(), token).await.unwrap()).await, expected, "{uri}");
    }
}

#[tokio::test]
async fn keys_are_rate_limited_per_tenant() {
    let fixture = Fixture::start_with(1, |config| config.limits.keys_per_minute = 1).await;
    assert_eq!(fixture.get_keys(&tenant(0)).await.status(), StatusCode::OK);
    let response = fixture.get_keys(&tenant(0)).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(refused(response).await, refusal(429, "queue_full", true));
    assert_eq!(
        fixture.get_keys(&tenant(1)).await.status(),
        StatusCode::OK,
        "the other tenant has its own"
    );
}

#[tokio::test]
async fn evidence_is_passed_on() {
    let fixture = Fixture::start(2).await;
    fixture.keys(&tenant(0)).await;
    for fake in &fixture.enclaves {
        let request = evidence(&tenant(0), &fake.enclave_id(), nonce());
        let response = fixture.client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(
            bytes(response).await,
            format!(r#"{{"evidence over":"{}"}}"#, "ab".repeat(32))
        );
    }
}

#[tokio::test]
async fn evidence_is_refused_for_what_is_not_known_or_not_asked_properly() {
    let fixture = Fixture::start(1).await;
    fixture.keys(&tenant(0)).await;
    let enclave = fixture.enclaves[0].enclave_id();
    let stranger = EnclaveId::from_bytes([9; 32]);
    let long = format!("{}{}", nonce(), " ".repeat(2_000));
    let cases = [
        (
            evidence(&tenant(0), &stranger, nonce()),
            refusal(409, "unknown_key", true),
        ),
        (
            evidence(&tenant(1), &enclave, nonce()),
            refusal(409, "unknown_key", true),
        ),
        (
            evidence(&tenant(9), &enclave, nonce()),
            refusal(403, "unknown_tenant", false),
        ),
        (evidence(&tenant(0), &enclave, "{}"), refusal(400, "malformed", false)),
        (
            evidence(&tenant(0), &enclave, r#"{"nonce":"ab"}"#),
            refusal(400, "malformed", false),
        ),
        (evidence(&tenant(0), &enclave, long), refusal(400, "malformed", false)),
    ];
    for (index, (request, expected)) in cases.into_iter().enumerate() {
        let response = fixture.client.send(request).await.unwrap();
        assert_eq!(refused(response).await, expected, "case {index}");
    }
}

#[tokio::test]
async fn evidence_is_rate_limited_per_tenant() {
    let fixture = Fixture::start_with(1, |config| config.limits.evidence_per_minute = 1).await;
    fixture.keys(&tenant(0)).await;
    let ask = || {
        fixture
            .client
            .send(evidence(&tenant(0), &fixture.enclaves[0].enclave_id(), nonce()))
    };
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
    assert_eq!(refused(ask().await.unwrap()).await, refusal(429, "queue_full", true));
}

#[tokio::test]
async fn a_restarted_enclave_is_known_by_its_new_name_only() {
    let fixture = Fixture::start(1).await;
    fixture.keys(&tenant(0)).await;
    let before = fixture.enclaves[0].enclave_id();
    fixture.enclaves[0].reboot();
    let after = fixture.enclaves[0].enclave_id();
    // Until the news have arrived there is no key of the new boot.
    let wait = async { while fixture.keys(&tenant(0)).await.is_empty() {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    assert_eq!(fixture.keys(&tenant(0)).await[0].unverified().enclave_id, after);
    let response = fixture
        .client
        .send(evidence(&tenant(0), &before, nonce()))
        .await
        .unwrap();
    assert_eq!(refused(response).await, refusal(409, "unknown_key", true));
    let response = fixture
        .client
        .send(evidence(&tenant(0), &after, nonce()))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_enclave_that_is_not_there_is_told_so() {
    let mut fixture = Fixture::start(1).await;
    let keys = fixture.key_ids(&tenant(0)).await;
    fixture.enclaves[0].leave();
    fixture.reachable(0).await;
    assert_eq!(
        refused(fixture.get_keys(&tenant(0)).await).await,
        refusal(503, "candidate_unavailable", true)
    );
    let response = fixture.send(message(&tenant(0), &keys, 10)).await;
    assert_eq!(refused(response).await, refusal(503, "candidate_unavailable", true));
    // Nothing waits, so it stops at once.
    fixture.stop().await;
}
