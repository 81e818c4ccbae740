use super::*;
use crate::backend::Piece;
use crate::fake::{Script, Step};
use crate::files::create_secret;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;

const DONE: &str = "data: [DONE]\n\n";
const TOKEN: &str = "data: {\"choices\":[]}\n\n";

fn surface(script: &Arc<Script>) -> Surface {
    Surface {
        backend: script.clone(),
        models: ["m".to_owned(), "org/name".to_owned()].into(),
        api_keys: None,
        retry: RetryPolicy {
            attempts: 2,
            base: Duration::from_millis(1),
            max: Duration::from_secs(1),
            after_execution: true,
        },
        max_in_flight: 4,
    }
}

fn post_to(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header(HOST, "127.0.0.1:8080")
        .header(CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

fn chat(stream: bool) -> Request<Body> {
    post_to(
        "/v1/chat/completions",
        format!(r#"{{"model":"m","stream":{stream},"messages":[]}}"#),
    )
}

async fn send(script: &Arc<Script>, request: Request<Body>) -> Response<Body> {
    router(surface(script)).oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The bytes that arrive before the body ends or breaks, and whether it broke.
async fn until_broken(response: Response<Body>) -> (String, bool) {
    let mut stream = response.into_body().into_data_stream();
    let mut bytes = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(_) => return (String::from_utf8(bytes).unwrap(), true),
        }
    }
    (String::from_utf8(bytes).unwrap(), false)
}

async fn code(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    assert!(response.headers().contains_key(REQUEST_ID));
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    let error = &body["error"];
    assert!(error["message"].is_string() && error["type"].is_string() && error.get("param").is_some());
    (status, error["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_whole_answer_passes_and_the_body_is_the_clients_own() {
    let script = Arc::new(Script::new([Step::answer(r#"{"id":"x"}"#)]));
    let body = "{ \"messages\" : [],\n \"model\":\"m\" }";
    let response = send(&script, post_to("/v1/chat/completions", body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    let id = response.headers()[REQUEST_ID].to_str().unwrap().to_owned();
    assert!(id.starts_with("req_") && id.len() == 36);
    assert_eq!(text(response).await, r#"{"id":"x"}"#);
    assert_eq!(script.bodies(), [body.as_bytes()]);
}

#[tokio::test]
async fn every_endpoint_reaches_the_backend() {
    for endpoint in crate::openai::Endpoint::ALL {
        let script = Arc::new(Script::new([Step::answer("{}")]));
        let response = send(&script, post_to(endpoint.as_str(), r#"{"model":"m"}"#)).await;
        assert_eq!(response.status(), StatusCode::OK, "{endpoint:?}");
        assert_eq!(script.attempts(), 1);
    }
}

#[tokio::test]
async fn what_is_refused_never_reaches_the_backend() {
    let no_type = Request::post("/v1/chat/completions")
        .header(HOST, "localhost")
        .body(Body::from(r#"{"model":"m"}"#))
        .unwrap();
    let mut encoded = chat(false);
    encoded.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
    let mut elsewhere = chat(false);
    elsewhere.headers_mut().insert(HOST, "rebound.example".parse().unwrap());
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    let chunks = futures::stream::iter((0..9).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024])));
    let get = Request::get("/v1/chat/completions")
        .header(HOST, "localhost")
        .body(Body::empty())
        .unwrap();
    let cases = [
        (post_to("/v1/chat/completions", "{"), 400, "invalid_request"),
        (
            post_to("/v1/chat/completions", r#"{"model":"m","model":"m"}"#),
            400,
            "invalid_request",
        ),
        (
            post_to("/v1/chat/completions", r#"{"model":"other"}"#),
            404,
            "model_not_found",
        ),
        (
            post_to("/v1/responses", r#"{"model":"m","store":true}"#),
            400,
            "unsupported_parameter",
        ),
        (
            post_to("/v1/responses", r#"{"model":"m","previous_response_id":"r"}"#),
            400,
            "unsupported_parameter",
        ),
        (
            post_to("/v1/embeddings", r#"{"model":"m","stream":true}"#),
            400,
            "invalid_request",
        ),
        (post_to("/v1/chat/completions", large), 413, "request_too_large"),
        (
            post_to("/v1/chat/completions", Body::from_stream(chunks)),
            413,
            "request_too_large",
        ),
        (no_type, 415, "unsupported_media_type"),
        (encoded, 415, "unsupported_media_type"),
        (elsewhere, 403, "forbidden_host"),
        (post_to("/v1/images/generations", "{}"), 404, "not_found"),
        (post_to("/v1/models", "{}"), 405, "method_not_allowed"),
        (get, 405, "method_not_allowed"),
    ];
    for (request, status, expected) in cases {
        let script = Arc::new(Script::new([Step::answer("{}")]));
        let name = request.uri().to_string();
        let got = code(send(&script, request).await).await;
        assert_eq!(got, (status, expected.to_owned()), "{name}");
        assert_eq!(script.attempts(), 0, "{name} {expected}");
    }
}

#[tokio::test]
async fn the_largest_body_passes() {
    let script = Arc::new(Script::new([Step::answer("{}")]));
    let mut body = br#"{"model":"m"}"#.to_vec();
    body.resize(MAX_BODY_BYTES, b' ');
    assert_eq!(
        send(&script, post_to("/v1/completions", body)).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn keys_are_checked_when_configured() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    create_secret(&path, b"sk-right\n").unwrap();
    for (header, expected) in [
        (None, 401),
        (Some("Bearer sk-wrong"), 401),
        (Some("Bearer sk-right"), 200),
    ] {
        let script = Arc::new(Script::new([Step::answer("{}")]));
        let mut surface = surface(&script);
        surface.api_keys = Some(ApiKeys::load(&path).unwrap());
        let mut request = chat(false);
        // With keys the name does not matter.
        request.headers_mut().insert(HOST, "proxy.internal".parse().unwrap());
        if let Some(header) = header {
            request.headers_mut().insert(AUTHORIZATION, header.parse().unwrap());
        }
        let response = router(surface).oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{header:?}");
        if expected == 401 {
            assert_eq!(code(response).await.1, "invalid_api_key");
        }
    }
}

#[tokio::test]
async fn models_are_those_of_the_configuration() {
    let script = Arc::new(Script::default());
    let get = |path: &str| {
        Request::get(path)
            .header(HOST, "localhost")
            .body(Body::empty())
            .unwrap()
    };
    let list: Value = serde_json::from_str(&text(send(&script, get("/v1/models")).await).await).unwrap();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][1]["id"], "org/name");
    let one: Value = serde_json::from_str(&text(send(&script, get("/v1/models/org/name")).await).await).unwrap();
    assert_eq!((&one["id"], &one["object"]), (&"org/name".into(), &"model".into()));
    assert_eq!(
        code(send(&script, get("/v1/models/other")).await).await,
        (404, "model_not_found".into())
    );
}

#[tokio::test]
async fn readiness_is_the_backends() {
    let get = || Request::get("/readyz").body(Body::empty()).unwrap();
    let idle = Arc::new(Script::default());
    assert_eq!(code(send(&idle, get()).await).await, (503, "no_enclave".into()));
    let ready = Arc::new(Script::new([Step::answer("{}")]));
    let response = send(&ready, get()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(response).await.contains("SIMULATED"));
}

#[tokio::test]
async fn a_stream_passes_and_ends_with_done() {
    let script = Arc::new(Script::new([Step::sse(&[TOKEN, TOKEN, DONE], Ok(Piece::End))]));
    let response = send(&script, chat(true)).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream; charset=utf-8");
    assert_eq!(until_broken(response).await, (format!("{TOKEN}{TOKEN}{DONE}"), false));
}

#[tokio::test]
async fn a_truncated_stream_is_an_error_without_done() {
    let failures = [Some(Failure::new(Code::AnswerNotAuthentic, "forged")), None];
    for failure in failures {
        let expected = failure.as_ref().map_or(Code::AnswerTruncated, |failure| failure.code);
        let last = failure.map_or(Ok(Piece::Data(Bytes::new())), Err);
        let script = Arc::new(Script::new([Step::sse(&[TOKEN, DONE], last)]));
        let (body, broken) = until_broken(send(&script, chat(true)).await).await;
        assert!(broken, "the connection must be cut");
        assert!(body.starts_with(TOKEN) && !body.contains("[DONE]"), "{body}");
        assert!(body.contains(expected.as_str()), "{body}");
    }
}

#[tokio::test]
async fn a_refused_stream_has_the_enclaves_status() {
    let step = Step::Answer {
        status: 400,
        content_type: "application/json",
        pieces: vec![Ok(Piece::Data(Bytes::from_static(b"{\"error\":{}}"))), Ok(Piece::End)],
    };
    let response = send(&Arc::new(Script::new([step])), chat(true)).await;
    assert_eq!(response.status(), 400);
    assert_eq!(text(response).await, "{\"error\":{}}");
}

#[tokio::test]
async fn heads_outside_the_protocol_are_refused() {
    for (status, content_type) in [(200, "text/html"), (7, "application/json")] {
        let step = Step::Answer {
            status,
            content_type,
            pieces: vec![Ok(Piece::End)],
        };
        let got = code(send(&Arc::new(Script::new([step])), chat(false)).await).await;
        assert_eq!(got, (502, "upstream_failed".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_stream_gets_comments_and_then_the_answer() {
    let (go, wait) = oneshot::channel();
    let answer = Step::sse(&[TOKEN, DONE], Ok(Piece::End));
    let script = Arc::new(Script::new([Step::Wait(wait, Box::new(answer))]));
    let response = send(&script, chat(true)).await;
    assert_eq!(response.status(), StatusCode::OK, "the status is decided after 10 s");
    let mut stream = response.into_body().into_data_stream();
    for _ in 0..3 {
        assert_eq!(&stream.next().await.unwrap().unwrap()[..], b": queued\n\n");
    }
    go.send(()).unwrap();
    let mut rest = Vec::new();
    while let Some(data) = stream.next().await {
        rest.extend_from_slice(&data.unwrap());
    }
    assert_eq!(String::from_utf8(rest).unwrap(), format!("{TOKEN}{DONE}"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_status_is_an_event() {
    let (go, wait) = oneshot::channel();
    let failure = Failure::new(Code::QueueTimeout, "too long");
    let script = Arc::new(Script::new([Step::Wait(wait, Box::new(Step::Fail(failure)))]));
    let response = send(&script, chat(true)).await;
    go.send(()).unwrap();
    let (body, broken) = until_broken(response).await;
    assert!(
        body.contains("data: {\"error\":") && body.contains("queue_timeout"),
        "{body}"
    );
    assert!(!broken && !body.contains("[DONE]"));
}

#[tokio::test(start_paused = true)]
async fn the_enclaves_error_after_the_status_is_an_event() {
    let (go, wait) = oneshot::channel();
    let refused = Step::Answer {
        status: 400,
        content_type: "application/json",
        pieces: vec![Ok(Piece::Data(Bytes::from_static(b"{\"error\":\n{}}"))), Ok(Piece::End)],
    };
    let script = Arc::new(Script::new([Step::Wait(wait, Box::new(refused))]));
    let response = send(&script, chat(true)).await;
    go.send(()).unwrap();
    let (body, broken) = until_broken(response).await;
    assert!(body.ends_with("data: {\"error\": {}}\n\n"), "{body}");
    assert!(!broken);
}

#[tokio::test(start_paused = true)]
async fn retries_stop_once_bytes_are_out() {
    let cut = Step::sse(&[TOKEN], Ok(Piece::Data(Bytes::new())));
    let script = Arc::new(Script::new([cut, Step::sse(&[TOKEN, DONE], Ok(Piece::End))]));
    let (_, broken) = until_broken(send(&script, chat(true)).await).await;
    assert!(broken);
    assert_eq!(script.attempts(), 1);
}

#[tokio::test]
async fn queue_full_carries_the_headers() {
    let mut failure = Failure::retryable(Code::RateLimitExceeded, "full");
    failure.retry_after = Some(Duration::from_secs(7));
    let script = Arc::new(Script::new([Step::Fail(failure)]));
    let response = send(&script, chat(true)).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "0");
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_their_place_is_given_back() {
    let (pieces, receiver) = mpsc::channel(1);
    let script = Arc::new(Script::new([Step::Live(receiver), Step::answer("{}")]));
    let mut surface = surface(&script);
    surface.max_in_flight = 1;
    let router = router(surface);
    let first = router.clone().oneshot(chat(true)).await.unwrap();
    let second = router.clone().oneshot(chat(false)).await.unwrap();
    assert_eq!(code(second).await, (429, "too_many_calls".into()));
    drop(first);
    assert!(pieces.is_closed(), "dropping the answer drops the upstream");
    assert_eq!(router.oneshot(chat(false)).await.unwrap().status(), StatusCode::OK);
}

/// Over a real connection: what a client sees of a cut stream, and what the backend sees of a client that goes.
#[tokio::test]
async fn over_a_connection() {
    let (pieces, receiver) = mpsc::channel(1);
    let cut = Step::sse(&[TOKEN, DONE], Err(Failure::new(Code::AnswerNotAuthentic, "forged")));
    let script = Arc::new(Script::new([cut, Step::Live(receiver)]));
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, router(surface(&script)), async move {
        let _ = stopped.await;
    }));

    let body = r#"{"model":"m","stream":true}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.contains("answer_not_authentic"),
        "the error event arrives: {answer}"
    );
    assert!(
        !answer.ends_with("0\r\n\r\n") && !answer.contains("[DONE]"),
        "and no proper end: {answer}"
    );

    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    pieces
        .send(Ok(Piece::Data(Bytes::from_static(TOKEN.as_bytes()))))
        .await
        .unwrap();
    let mut first = [0; 16];
    connection.read_exact(&mut first).await.unwrap();
    drop(connection);
    pieces.closed().await;

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

/// Clients send all of a body before they read: with the rest of it unread, the system would cut the connection.
#[tokio::test]
async fn who_sends_too_much_gets_to_read_why() {
    let script = Arc::new(Script::new([]));
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, router(surface(&script)), std::future::pending()));
    let body = vec![b' '; 2 * MAX_BODY_BYTES];
    for (media_type, expected) in [
        ("application/json", "request_too_large"),
        ("text/plain", "unsupported_media_type"),
    ] {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: {media_type}\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&body).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
    server.abort();
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let refused = bind("0.0.0.0:0".parse().unwrap()).await;
    assert!(matches!(refused, Err(ServeError::NotLoopback(_))));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let script = Arc::new(Script::new([Step::answer("{}")]));
    let never = Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>());
    let got = code(send(&script, post_to("/v1/completions", never)).await).await;
    assert_eq!(got, (408, "request_timeout".into()));
}
