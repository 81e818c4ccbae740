//! Back-pressure and cancellation of single requests.

mod common;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::Response,
    routing::{get as on_get, post as on_post},
};
use bytes::Bytes;
use cloister_transport::{ClientLimits, Http2Client, ServeLimits};
use common::{Authority, Running, Watched, get, text};
use futures::{StreamExt, stream};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};

const CHUNK: usize = 4 * 1024;
const WINDOW: usize = 64 * 1024;
const SEND_BUFFER: usize = 16 * 1024;
/// One chunk may be taken before the buffer is seen to be full, and hyper holds one more.
const SLACK: usize = 2 * CHUNK;

/// `length` bytes in chunks, made when they are asked for, and counted.
struct Source {
    left: usize,
    given: Arc<AtomicUsize>,
    _watched: Option<Watched>,
}

impl http_body::Body for Source {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= CHUNK;
        self.given.fetch_add(CHUNK, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![7; CHUNK])))))
    }
}

fn source(length: usize) -> (Source, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let source = Source {
        left: length,
        given: Arc::clone(&given),
        _watched: None,
    };
    (source, given)
}

fn server_limits() -> ServeLimits {
    ServeLimits {
        initial_stream_window: u32::try_from(WINDOW).unwrap(),
        max_send_buffer: SEND_BUFFER,
        ..ServeLimits::default()
    }
}

fn client_limits() -> ClientLimits {
    ClientLimits {
        initial_stream_window: u32::try_from(WINDOW).unwrap(),
        max_send_buffer: SEND_BUFFER,
        ..ClientLimits::default()
    }
}

/// Requests and answers on the same connection: whatever was going to be sent before them has been by then.
async fn exchange_others(client: &Http2Client) {
    for _ in 0..50 {
        assert_eq!(text(client, "/other").await, "other");
    }
}

fn with_other(app: Router) -> Router {
    app.route("/other", on_get(|| async { "other" }))
}

/// What a handler hands to its test, once.
type Slot<T> = Arc<Mutex<Option<oneshot::Sender<T>>>>;

fn slot<T>() -> (Slot<T>, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (Arc::new(Mutex::new(Some(sender))), receiver)
}

fn hand_over<T>(slot: &Slot<T>, value: T) {
    let sender = slot.lock().unwrap().take().unwrap();
    assert!(sender.send(value).is_ok());
}

async fn serve(authority: &Authority, app: Router) -> (Running, Http2Client) {
    let server = authority.serve(with_other(app), server_limits()).await;
    let client = server.client_with(&authority.client("client"), client_limits());
    (server, client)
}

#[tokio::test]
async fn a_handler_that_does_not_read_lets_one_window_in() {
    let authority = Authority::new();
    let (bodies, body) = slot::<Body>();
    let (answers, answer) = mpsc::channel::<()>(1);
    let answer = Arc::new(tokio::sync::Mutex::new(answer));
    let app = Router::new().route(
        "/upload",
        on_post(move |request: axum::extract::Request| async move {
            hand_over(&bodies, request.into_body());
            answer.lock().await.recv().await;
            "done"
        }),
    );
    let (_server, client) = serve(&authority, app).await;
    let length = 16 * WINDOW;
    let (source, given) = source(length);
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.send(Request::post("/upload").body(source).unwrap()).await }
    });

    let body = body.await.unwrap();
    exchange_others(&client).await;
    let sent = given.load(Ordering::SeqCst);
    assert!(sent >= WINDOW, "{sent} bytes are less than the window");
    assert!(
        sent <= WINDOW + SEND_BUFFER + SLACK,
        "{sent} bytes went past the window"
    );

    // Reading opens it again.
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), length);
    answers.send(()).await.unwrap();
    assert_eq!(upload.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_response_back() {
    let authority = Authority::new();
    let length = 16 * WINDOW;
    let (body, given) = source(length);
    let body = Arc::new(Mutex::new(Some(body)));
    let app = Router::new().route(
        "/download",
        on_get(move || async move { Response::new(Body::new(body.lock().unwrap().take().unwrap())) }),
    );
    let (_server, client) = serve(&authority, app).await;
    let response = client.send(get("/download")).await.unwrap();
    exchange_others(&client).await;
    let sent = given.load(Ordering::SeqCst);
    assert!(sent >= WINDOW, "{sent} bytes are less than the window");
    assert!(
        sent <= WINDOW + SEND_BUFFER + SLACK,
        "{sent} bytes went past the window"
    );
    let read = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read.len(), length);
}

#[tokio::test]
async fn requests_that_are_not_read_do_not_hold_up_others() {
    let authority = Authority::new();
    let (sender, mut bodies) = mpsc::channel::<Body>(64);
    let app = Router::new()
        .route(
            "/upload",
            on_post(
                |State(sender): State<mpsc::Sender<Body>>, request: axum::extract::Request| async move {
                    sender.send(request.into_body()).await.unwrap();
                    std::future::pending::<()>().await;
                },
            ),
        )
        .with_state(sender);
    let (_server, client) = serve(&authority, app).await;
    let mut held = Vec::new();
    // All but one of the streams that the server allows.
    for _ in 1..ServeLimits::default().max_concurrent_streams {
        let (client, (source, _)) = (client.clone(), source(2 * WINDOW));
        tokio::spawn(async move {
            client.send(Request::post("/upload").body(source).unwrap()).await.ok();
        });
        held.push(bodies.recv().await.unwrap());
    }
    exchange_others(&client).await;
}

#[tokio::test]
async fn dropping_the_future_ends_the_handler() {
    let authority = Authority::new();
    let (entries, entered) = slot::<oneshot::Receiver<()>>();
    let app = Router::new().route(
        "/slow",
        on_get(move || async move {
            let (watched, gone) = Watched::new();
            hand_over(&entries, gone);
            std::future::pending::<()>().await;
            drop(watched);
        }),
    );
    let (_server, client) = serve(&authority, app).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/slow")).await.map(drop) }
    });
    let gone = entered.await.unwrap();
    waiting.abort();
    gone.await.unwrap();
    // The connection outlives its streams.
    exchange_others(&client).await;
}

#[tokio::test]
async fn dropping_the_future_ends_a_stalled_upload() {
    let authority = Authority::new();
    let (entries, entered) = slot::<oneshot::Receiver<()>>();
    let app = Router::new().route(
        "/slow",
        on_post(move |request: axum::extract::Request| async move {
            let (watched, gone) = Watched::new();
            hand_over(&entries, gone);
            std::future::pending::<()>().await;
            drop((watched, request));
        }),
    );
    let (_server, client) = serve(&authority, app).await;
    let (source, _) = source(16 * WINDOW);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move {
            let request = Request::post("/slow").body(source).unwrap();
            client.send(request).await.map(drop)
        }
    });
    let gone = entered.await.unwrap();
    waiting.abort();
    gone.await.unwrap();
    exchange_others(&client).await;
}

#[tokio::test]
async fn dropping_the_response_ends_its_body() {
    let authority = Authority::new();
    let (watched, gone) = Watched::new();
    let (mut body, _) = source(16 * WINDOW);
    body._watched = Some(watched);
    let body = Arc::new(Mutex::new(Some(body)));
    let app = Router::new().route(
        "/download",
        on_get(move || async move { Response::new(Body::new(body.lock().unwrap().take().unwrap())) }),
    );
    let (_server, client) = serve(&authority, app).await;
    let mut response = client.send(get("/download")).await.unwrap();
    response.frame().await.unwrap().unwrap();
    drop(response);
    gone.await.unwrap();
    exchange_others(&client).await;
}

#[tokio::test]
async fn dropping_an_idle_response_ends_its_body() {
    let authority = Authority::new();
    let (watched, gone) = Watched::new();
    let watched = Arc::new(Mutex::new(Some(watched)));
    let app = Router::new().route(
        "/watch",
        on_get(move || async move {
            let watched = watched.lock().unwrap().take();
            let body = stream::pending::<Result<Bytes, Infallible>>();
            Response::new(Body::from_stream(body.map(move |item| {
                let _kept = &watched;
                item
            })))
        }),
    );
    let (_server, client) = serve(&authority, app).await;
    let response = client.send(get("/watch")).await.unwrap();
    drop(response);
    gone.await.unwrap();
    exchange_others(&client).await;
}

#[tokio::test]
async fn dropping_the_response_ends_an_upload_that_goes_on() {
    let authority = Authority::new();
    let (bodies, body) = slot::<Body>();
    let app = Router::new().route(
        "/both",
        on_post(move |request: axum::extract::Request| async move {
            hand_over(&bodies, request.into_body());
            Response::new(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()))
        }),
    );
    let (_server, client) = serve(&authority, app).await;
    let (sender, chunks) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let upload = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(chunks));
    let response = client.send(Request::post("/both").body(upload).unwrap()).await.unwrap();
    let mut body = body.await.unwrap();
    sender.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().data_ref().unwrap(), "first");
    drop(response);
    assert!(body.frame().await.unwrap().is_err());
    drop(sender);
    exchange_others(&client).await;
}

#[tokio::test]
async fn a_request_body_that_fails_is_not_taken_for_complete() {
    let authority = Authority::new();
    let (outcomes, outcome) = slot::<bool>();
    let app = Router::new().route(
        "/upload",
        on_post(move |request: axum::extract::Request| async move {
            hand_over(&outcomes, request.into_body().collect().await.is_ok());
        }),
    );
    let (_server, client) = serve(&authority, app).await;
    let chunks = stream::iter([
        Ok(Bytes::from_static(b"first")),
        Err(std::io::Error::other("the source failed")),
    ]);
    let request = Request::post("/upload").body(Body::from_stream(chunks)).unwrap();
    client.send(request).await.unwrap_err();
    assert!(!outcome.await.unwrap(), "a broken upload looked complete");
    exchange_others(&client).await;
}

#[tokio::test]
async fn a_response_body_that_fails_is_not_taken_for_complete() {
    let authority = Authority::new();
    let app = Router::new().route(
        "/download",
        on_get(|| async {
            Response::new(Body::from_stream(stream::iter([
                Ok(Bytes::from_static(b"first")),
                Err(std::io::Error::other("the source failed")),
            ])))
        }),
    );
    let (_server, client) = serve(&authority, app).await;
    let response = client.send(get("/download")).await;
    let complete = match response {
        Ok(response) => response.into_body().collect().await.is_ok(),
        Err(_) => false,
    };
    assert!(!complete, "a broken response looked complete");
    exchange_others(&client).await;
}

/// A body that says something, then nothing, as one that is passed on from another stream does where that one ended.
fn with_empty_end() -> Body {
    let pieces = ["said", ""].map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())));
    Body::from_stream(stream::iter(pieces))
}

/// h2 ends a connection at the 101st empty frame.
#[tokio::test]
async fn empty_data_does_not_use_up_a_connection() {
    let app = Router::new().route(
        "/",
        on_post(async |body: Bytes| {
            assert_eq!(body, "said");
            Response::new(with_empty_end())
        }),
    );
    let authority = Authority::new();
    let server = authority.serve(app, ServeLimits::default()).await;
    let client = server.client(&authority.client("client"));
    for request in 0..150 {
        let response = client.send(Request::post("/").body(with_empty_end()).unwrap()).await;
        let body = response
            .unwrap_or_else(|error| panic!("request {request}: {error}"))
            .into_body();
        let body = body
            .collect()
            .await
            .unwrap_or_else(|error| panic!("answer {request}: {error}"));
        assert_eq!(body.to_bytes(), "said", "answer {request}");
    }
}
