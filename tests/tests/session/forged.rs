//! A lying scheduler in front of a real proxy: the client program sees an error, never a short success.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cloister_session::{REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, TenantRef, limits::RESPONSE_PREFIX};
use cloister_tests::{
    answer::ends,
    chain::{Member, Options, Proxy},
    enclave::{Enclave, Setup},
    lying::Lying,
    openai::{self, Reply},
    site::{Site, free_address},
    tenant::{chat, stream},
};
use cloister_transport::{ClientAuth, ServeLimits, serve, server_config};
use futures::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// A few records of little content each.
const PADDED: &str = r#"{"recordSize": 512, "tickMillis": 1, "countBucket": 4}"#;

/// What becomes of an answer on its way.
type Lie = Arc<dyn Fn(&[u8]) -> Lied + Send + Sync>;

/// What the proxy gets.
#[derive(Clone)]
enum Lied {
    /// These bytes as a sealed answer, with a proper end of the stream.
    Sealed(Vec<u8>),
    /// The same, and then the stream is reset.
    Reset(Vec<u8>),
    /// Another media type.
    Plain(&'static str, String),
}

struct Liar {
    lying: Lying,
    lie: Mutex<Lie>,
    answer: Mutex<Vec<u8>>,
}

async fn keys(State(liar): State<Arc<Liar>>, Path(tenant): Path<TenantRef>) -> Json<Value> {
    let keys = liar.lying.key_configs(tenant).await;
    let keys: Vec<_> = keys.iter().map(|key| STANDARD.encode(key.to_bytes())).collect();
    Json(json!({ "keyConfigs": keys }))
}

async fn evidence(
    State(liar): State<Arc<Liar>>,
    Path((tenant, _)): Path<(TenantRef, String)>,
    Json(body): Json<Value>,
) -> Response {
    let mut nonce = [0; 32];
    hex::decode_to_slice(body["nonce"].as_str().expect("a nonce"), &mut nonce).expect("hex");
    let evidence = liar.lying.evidence(nonce, tenant).await.to_json();
    ([("content-type", "application/json")], evidence).into_response()
}

async fn requests(State(liar): State<Arc<Liar>>, request: Request) -> Response {
    assert_eq!(request.headers()["content-type"], REQUEST_MEDIA_TYPE);
    let m1 = request.into_body().collect().await.expect("a body").to_bytes();
    let response = liar.lying.post(&m1).await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "the enclave refuses: {:?}",
        response.headers()
    );
    let m2 = response.into_body().collect().await.expect("an answer").to_bytes();
    let lied = {
        let lie = liar.lie.lock().expect("a lock");
        (*lie)(&m2)
    };
    *liar.answer.lock().expect("a lock") = m2.to_vec();
    match lied {
        Lied::Sealed(bytes) => ([("content-type", RESPONSE_MEDIA_TYPE)], bytes).into_response(),
        Lied::Reset(bytes) => {
            let pieces = [Ok(Bytes::from(bytes)), Err(std::io::Error::other("reset"))];
            // Apart, so that the first goes out.
            let stream = futures::stream::iter(pieces).then(|piece| async {
                tokio::task::yield_now().await;
                piece
            });
            ([("content-type", RESPONSE_MEDIA_TYPE)], Body::from_stream(stream)).into_response()
        }
        Lied::Plain(media_type, text) => ([("content-type", media_type)], text).into_response(),
    }
}

/// An enclave, the liar in front of it, and a real proxy in front of that.
struct Scene {
    liar: Arc<Liar>,
    proxy: Proxy,
    server: JoinHandle<()>,
    _enclave: Enclave,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scene {
    async fn new() -> Self {
        let padding: Value = serde_json::from_str(PADDED).expect("JSON");
        let setup = Setup::simulator(&["--profile", "instant"]).with(&json!({ "padding": padding }));
        let enclave = Enclave::start(&Site::new(), &setup).await;
        let lying = enclave.lying().await;
        let member = Member::new(&enclave, "tenant");
        lying.lease(member.reference).await;
        let liar = Arc::new(Liar {
            lying,
            lie: Mutex::new(honest()),
            answer: Mutex::default(),
        });
        let address = free_address();
        let listener = TcpListener::bind(address).await.expect("a listener");
        let tls = server_config(&enclave.site().tls_files("scheduler"), ClientAuth::None).expect("TLS");
        let app = Router::new()
            .route("/cloister/v1/requests", post(requests))
            .route("/cloister/v1/tenants/{tenant}/keys", get(keys))
            .route(
                "/cloister/v1/tenants/{tenant}/enclaves/{enclave}/evidence",
                post(evidence),
            )
            .with_state(Arc::clone(&liar));
        let server = tokio::spawn(async move {
            serve(listener, tls, app, ServeLimits::default(), std::future::pending()).await;
        });
        let options = Options {
            attempts: 1,
            ..Options::default()
        };
        let proxy = Proxy::start(&enclave, &format!("https://{address}"), &member, &options).await;
        Self {
            liar,
            proxy,
            server,
            _enclave: enclave,
        }
    }

    async fn chat(&self, lie: Lie, body: &Value) -> Reply {
        *self.liar.lie.lock().expect("a lock") = lie;
        openai::chat(self.proxy.address, body).await
    }
}

fn honest() -> Lie {
    Arc::new(|m2| Lied::Sealed(m2.to_vec()))
}

fn lies(records: usize) -> Vec<(String, Lie)> {
    let mut lies: Vec<(String, Lie)> = Vec::new();
    let mut add = |what: String, lie: Lie| lies.push((what, lie));
    for record in 0..records {
        let cut = move |m2: &[u8]| m2[..*ends(m2).get(record).unwrap_or(&RESPONSE_PREFIX)].to_vec();
        add(
            format!("cut after record {record}"),
            Arc::new(move |m2| Lied::Sealed(cut(m2))),
        );
        add(
            format!("reset after record {record}"),
            Arc::new(move |m2| Lied::Reset(cut(m2))),
        );
    }
    let whole = |change: fn(&mut Vec<u8>)| -> Lie {
        Arc::new(move |m2| {
            let mut m2 = m2.to_vec();
            change(&mut m2);
            Lied::Sealed(m2)
        })
    };
    add("nothing".into(), whole(Vec::clear));
    add("a part of the prefix".into(), whole(|m2| m2.truncate(20)));
    add("cut inside the end".into(), whole(|m2| m2.truncate(m2.len() - 1)));
    add("bytes after the end".into(), whole(|m2| m2.push(0)));
    add("another key".into(), whole(|m2| m2[1] ^= 1));
    add("another nonce".into(), whole(|m2| m2[20] ^= 1));
    add("a changed record".into(), whole(|m2| m2[RESPONSE_PREFIX + 600] ^= 1));
    add("a changed end".into(), whole(|m2| *m2.last_mut().expect("a byte") ^= 1));
    add(
        "a record that is left out".into(),
        whole(|m2| {
            let ends = ends(m2);
            m2.drain(ends[1]..ends[2]);
        }),
    );
    add(
        "a record that comes twice".into(),
        whole(|m2| {
            let ends = ends(m2);
            let twice = m2[ends[1]..ends[2]].to_vec();
            m2.splice(ends[2]..ends[2], twice);
        }),
    );
    add(
        "the last record as the end".into(),
        whole(|m2| {
            let ends = ends(m2);
            let last = ends.len() - 1;
            m2.truncate(ends[last]);
            m2.splice(ends[last - 1]..ends[last - 1] + 2, [0]);
        }),
    );
    let answer = r#"{"id":"x","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"forged"},"finish_reason":"stop"}]}"#;
    let event = r#"{"id":"x","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{"content":"forged"},"finish_reason":"stop"}]}"#;
    let events = format!("data: {event}\n\ndata: [DONE]\n\n");
    for (media_type, text) in [
        ("application/json", answer.to_owned()),
        ("text/event-stream", events.clone()),
        (RESPONSE_MEDIA_TYPE, answer.to_owned()),
        (RESPONSE_MEDIA_TYPE, events),
    ] {
        let what = format!("plaintext as {media_type}");
        add(what, Arc::new(move |_| Lied::Plain(media_type, text.clone())));
    }
    lies
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_answer_is_a_success() {
    let scene = Scene::new().await;
    for body in [stream("hello", 6), chat("hello", 6)] {
        let is_stream = body.get("stream").is_some();
        let reply = scene.chat(honest(), &body).await;
        assert!(reply.looks_successful() && (!is_stream || reply.is_done()), "{reply:?}");
        let former = scene.liar.answer.lock().expect("a lock").clone();
        let records = ends(&former).len();
        assert!(records > 4, "{records} records");

        let mut lies = lies(records);
        let swapped: Lie = Arc::new(move |_| Lied::Sealed(former.clone()));
        lies.push(("the answer to another request".to_owned(), swapped));
        for (what, lie) in lies {
            let reply = scene.chat(lie, &body).await;
            assert!(!reply.looks_successful(), "{what}: {reply:?}");
            let code = reply.error_code();
            assert!(code.is_some() || reply.broken, "{what}: no error: {reply:?}");
            assert!(!reply.body.contains("forged"), "{what}: {reply:?}");
            assert!(is_stream || !reply.status.is_success(), "{what}: {reply:?}");
        }
        // Still the same proxy, with the same key.
        assert!(scene.chat(honest(), &body).await.looks_successful());
    }
}
