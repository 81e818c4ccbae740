//! Export to a collector: one that counts what it is sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::Uri, response::IntoResponse};
use cloister_telemetry::{Error, Options, labels};

labels! {
    /// How it went.
    enum Outcome("outcome") {
        /// Well.
        Answered => "answered",
    }
}

type Received = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

async fn collect(State(received): State<Received>, uri: Uri, body: Bytes) -> impl IntoResponse {
    let mut received = received.lock().unwrap();
    received.entry(uri.path().to_owned()).or_default().extend(body);
    // An empty message, and a status in the headers as gRPC allows.
    ([("content-type", "application/grpc"), ("grpc-status", "0")], [0_u8; 5])
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_metrics_are_exported_without_what_others_log() {
    let received = Received::default();
    let app = Router::new().fallback(collect).with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let options = Options {
        log_filter: Some("trace".to_owned()),
        otlp_endpoint: Some(format!("http://{address}")),
        ..Options::default()
    };
    let guard = cloister_telemetry::init("exporting", &options).unwrap();
    assert!(matches!(
        cloister_telemetry::init("again", &Options::default()),
        Err(Error::AlreadySet)
    ));
    tracing::info_span!(target: "cloister_test", "own_span").in_scope(|| {
        tracing::info!(target: "cloister_test", "own_event");
        tracing::debug!(target: "hyper::proto", "CANARY-event");
        tracing::debug_span!(target: "h2::codec", "CANARY-span").in_scope(|| {});
    });
    let requests = cloister_telemetry::meter().counter::<Outcome>("cloister.test", "{request}", "Requests.");
    requests.add(1, Outcome::Answered);
    guard.shutdown().await.unwrap();

    let received = received.lock().unwrap();
    let traces = &received["/opentelemetry.proto.collector.trace.v1.TraceService/Export"];
    let metrics = &received["/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"];
    for text in ["exporting", "own_span", "own_event"] {
        assert!(contains(traces, text), "{text} was not exported");
    }
    for text in ["exporting", "cloister.test", "outcome", "answered"] {
        assert!(contains(metrics, text), "{text} was not exported");
    }
    for text in ["CANARY", "hyper", "h2::"] {
        assert!(!contains(traces, text), "{text} was exported");
    }
}
