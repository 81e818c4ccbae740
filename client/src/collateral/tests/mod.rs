//! Against a server on this machine that answers what vendors answered, or worse.

mod hostile;
mod vendors;

use super::fetch::{self, FetchError, Outcome, Sources};
use super::http::{Http, Limits};
use super::need::Need;
use super::store::Store;
use crate::retry::RetryPolicy;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use der::asn1::{BitString, GeneralizedTime, Null, OctetString};
use der::{Decode, Encode};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use x509_ocsp::{
    BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse, OcspResponseStatus, ResponderId,
    ResponseBytes, ResponseData, SingleResponse, Version,
};

/// Recorded evidence and answers.
pub(super) fn data(path: &str) -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../attestation/testdata/");
    std::fs::read(format!("{root}{path}")).unwrap()
}

/// One answer.
#[derive(Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Content,
}

type Change = fn(&mut ResponseData);

#[derive(Clone)]
enum Content {
    Bytes(Vec<u8>),
    /// Without a length, for ever.
    Endless,
    /// A first byte, and nothing after it.
    Silent,
    /// A status made for the request, changed by a function.
    Status(Change),
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Content::Bytes(body.into()),
        }
    }

    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn of(body: Content) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body,
        }
    }

    async fn response(self, request: Request) -> Response<Body> {
        let body = match self.body {
            Content::Bytes(bytes) => Body::from(bytes),
            Content::Endless => {
                let piece = || Ok::<_, std::io::Error>(vec![b'x'; 64 * 1024]);
                Body::from_stream(futures::stream::repeat_with(piece))
            }
            Content::Silent => {
                let first = futures::stream::iter([Ok::<_, std::io::Error>(vec![b'x'])]);
                Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
            }
            Content::Status(change) => {
                Body::from(status_of(&to_bytes(request.into_body(), 4096).await.unwrap(), change))
            }
        };
        let mut response = Response::builder().status(StatusCode::from_u16(self.status).unwrap());
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(body).unwrap()
    }
}

/// A server, and what it was asked.
pub(super) struct Server {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each path and query with its replies in order, the last of them again and again, and anything else with 404.
    async fn new(replies: impl IntoIterator<Item = (String, Vec<Reply>)>) -> Self {
        let replies: HashMap<String, VecDeque<Reply>> = replies
            .into_iter()
            .map(|(path, replies)| (path, replies.into()))
            .collect();
        let replies = Arc::new(Mutex::new(replies));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let handler = move |request: Request| {
            let path = request.uri().path_and_query().unwrap().to_string();
            log.lock().unwrap().push(path.clone());
            let reply = next_reply(&mut replies.lock().unwrap(), &path);
            reply.response(request)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    async fn one(path: &str, replies: Vec<Reply>) -> Self {
        Self::new([(path.to_owned(), replies)]).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn sources(&self) -> Sources {
        let base = || self.url.parse().unwrap();
        Sources {
            amd_kds: base(),
            intel_pcs: base(),
            intel_root_crl: None,
            nvidia_rim: base(),
            nvidia_ocsp: base(),
        }
    }
}

fn next_reply(replies: &mut HashMap<String, VecDeque<Reply>>, path: &str) -> Reply {
    let Some(queue) = replies.get_mut(path) else {
        return Reply::new(404, "");
    };
    if queue.len() > 1 {
        return queue.pop_front().unwrap();
    }
    queue.front().unwrap().clone()
}

/// A status in the form of the service's. SYNTHETIC: there is no captured one, and nothing signs it.
fn status_of(request: &[u8], change: Change) -> Vec<u8> {
    let request = OcspRequest::from_der(request).unwrap().tbs_request;
    let at = |text: &str| OcspGeneralizedTime(GeneralizedTime::from_date_time(text.parse().unwrap()));
    let responses = request.request_list.into_iter().map(|asked| SingleResponse {
        cert_id: asked.req_cert,
        cert_status: CertStatus::Good(Null),
        this_update: at("2024-12-01T00:00:00Z"),
        next_update: Some(at("2024-12-02T00:00:00Z")),
        single_extensions: None,
    });
    let mut data = ResponseData {
        version: Version::V1,
        responder_id: ResponderId::ByKey(OctetString::new([0; 20]).unwrap()),
        produced_at: at("2024-12-01T00:00:00Z"),
        responses: responses.collect(),
        response_extensions: request.request_extensions,
    };
    change(&mut data);
    let basic = BasicOcspResponse {
        tbs_response_data: data,
        signature_algorithm: spki::AlgorithmIdentifierOwned {
            oid: const_oid::db::rfc5912::ECDSA_WITH_SHA_384,
            parameters: None,
        },
        signature: BitString::from_bytes(&[0; 8]).unwrap(),
        certs: None,
    };
    OcspResponse {
        response_status: OcspResponseStatus::Successful,
        response_bytes: Some(ResponseBytes {
            response_type: const_oid::db::rfc6960::ID_PKIX_OCSP_BASIC,
            response: OctetString::new(basic.to_der().unwrap()).unwrap(),
        }),
    }
    .to_der()
    .unwrap()
}

fn http() -> Http {
    Http::new(Limits {
        connect: Duration::from_secs(5),
        total: Duration::from_secs(20),
        retry: RetryPolicy {
            attempts: 3,
            base: Duration::from_millis(1),
            max: Duration::from_secs(1),
            after_execution: true,
        },
    })
    .unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    (dir, store)
}

async fn fetch_all(store: &Store, server: &Server, needs: impl IntoIterator<Item = Need>) -> Vec<Outcome> {
    fetch::fetch(store, &http(), &server.sources(), needs, |_| {}).await
}

/// The error of the only need.
async fn error_of(server: &Server, need: Need) -> FetchError {
    error_with(server, &http(), need).await
}

async fn error_with(server: &Server, http: &Http, need: Need) -> FetchError {
    let (_dir, store) = store();
    let mut outcomes = fetch::fetch(&store, http, &server.sources(), [need], |_| {}).await;
    // Whatever is refused leaves nothing behind.
    assert!(store.list().unwrap().is_empty());
    outcomes.remove(0).result.unwrap_err()
}
