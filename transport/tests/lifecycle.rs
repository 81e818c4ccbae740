//! Connections: how they begin, how they end, and what a client makes of it.

mod common;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Extension, Router, routing::get as on_get};
use cloister_transport::{ClientAuth, ClientError, ClientLimits, Http2Client, Peer, ServeLimits, Stopped};
use common::{Authority, Running, address, get, text};
use http_body_util::BodyExt;
use rustls::{ClientConfig, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longer than any test: a limit of this length plays no part.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(50);

/// `/` answers with the client's port: the same answer is the same connection.
fn app() -> Router {
    Router::new().route(
        "/",
        on_get(|Extension(peer): Extension<Peer>| async move { peer.address.port().to_string() }),
    )
}

/// Waits for the other side to close.
async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    // A reset is as good as an end.
    stream.read_to_end(&mut Vec::new()).await.ok();
}

/// A connection after its TLS handshake that does not go on.
async fn silent(server: &Running, authority: &Authority) -> io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(authority.chain("client"), authority.key("client"))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

#[tokio::test]
async fn requests_share_a_connection() {
    let authority = Authority::new();
    let server = authority.serve(app(), ServeLimits::default()).await;
    let client = server.client(&authority.client("client"));
    let clone = client.clone();
    let (one, two) = tokio::join!(text(&client, "/"), text(&clone, "/"));
    assert_eq!(one, two);
    assert_eq!(one, text(&client, "/").await);
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_ended() {
    let authority = Authority::new();
    let limits = ServeLimits {
        handshake_timeout: SOON,
        idle_timeout: NEVER,
        ..ServeLimits::default()
    };
    let server = authority.serve(app(), limits).await;
    closed(TcpStream::connect(server.address).await.unwrap()).await;
}

#[tokio::test]
async fn handshakes_that_do_not_go_on_keep_nobody_out() {
    let authority = Authority::new();
    let limits = ServeLimits {
        max_handshakes: 2,
        handshake_timeout: NEVER,
        ..ServeLimits::default()
    };
    let server = authority.serve(app(), limits).await;
    let client = server.client(&authority.client("client"));
    let port = text(&client, "/").await;
    let mut stuck = Vec::new();
    for _ in 0..5 {
        stuck.push(TcpStream::connect(server.address).await.unwrap());
    }
    // The oldest make room.
    for stream in stuck.drain(..3) {
        closed(stream).await;
    }
    // Whoever has finished a handshake has nothing to fear, and newcomers come in.
    assert_eq!(text(&client, "/").await, port);
    let other = server.client(&authority.client("client"));
    assert_ne!(text(&other, "/").await, port);
}

#[tokio::test]
async fn a_connection_without_requests_is_ended() {
    let authority = Authority::new();
    let limits = ServeLimits {
        handshake_timeout: Duration::from_secs(2),
        idle_timeout: SOON,
        ..ServeLimits::default()
    };
    let server = authority.serve(app(), limits).await;
    // Not even a preface.
    closed(silent(&server, &authority).await.unwrap()).await;
}

#[tokio::test]
async fn a_connection_above_the_limit_is_closed() {
    let authority = Authority::new();
    let limits = ServeLimits {
        max_connections: 1,
        ..ServeLimits::default()
    };
    let server = authority.serve(app(), limits).await;
    let tls = authority.client("client");
    let first = server.client(&tls);
    let port = text(&first, "/").await;
    let error = server.client(&tls).send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    assert_eq!(text(&first, "/").await, port);
}

/// A server with a handler at `/held` that says when it was entered and waits for a permit.
struct Held {
    app: Router,
    entered: oneshot::Receiver<()>,
    permits: Arc<Semaphore>,
}

fn held() -> Held {
    let (enter, entered) = oneshot::channel();
    let enter = Arc::new(Mutex::new(Some(enter)));
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let app = app().route(
        "/held",
        on_get(move || async move {
            if let Some(enter) = enter.lock().unwrap().take() {
                enter.send(()).unwrap();
            }
            gate.acquire().await.unwrap().forget();
            "held"
        }),
    );
    Held { app, entered, permits }
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_takes_no_more() {
    let authority = Authority::new();
    let held = held();
    let limits = ServeLimits {
        drain_deadline: NEVER,
        ..ServeLimits::default()
    };
    let server = authority.serve(held.app, limits).await;
    let at = server.address;
    let client = server.client(&authority.client("client"));
    let request = tokio::spawn({
        let client = client.clone();
        async move { text(&client, "/held").await }
    });
    held.entered.await.unwrap();
    let idle = silent(&server, &authority).await.unwrap();
    let task = server.stop();
    // Connections without requests go first, and the door is shut.
    drop(idle);
    while TcpStream::connect(at).await.is_ok() {
        tokio::task::yield_now().await;
    }
    held.permits.add_permits(1);
    assert_eq!(request.await.unwrap(), "held");
    assert_eq!(task.await.unwrap(), Stopped::Drained);
}

#[tokio::test]
async fn the_drain_deadline_cuts_what_is_left() {
    let authority = Authority::new();
    let held = held();
    let limits = ServeLimits {
        drain_deadline: SOON,
        ..ServeLimits::default()
    };
    let server = authority.serve(held.app, limits).await;
    let client = server.client(&authority.client("client"));
    let request = tokio::spawn(async move { client.send(get("/held")).await.map(drop) });
    held.entered.await.unwrap();
    assert_eq!(server.stop().await.unwrap(), Stopped::Cut { connections: 1 });
    // The handler had begun: this must not look like a request that can be repeated.
    let error = request.await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Interrupted { .. }), "{error}");
    assert!(!error.is_unprocessed());
}

#[tokio::test]
async fn a_client_connects_again_when_the_server_is_back() {
    let authority = Authority::new();
    let server = authority.serve(app(), ServeLimits::default()).await;
    let at = server.address;
    let client = server.client(&authority.client("client"));
    text(&client, "/").await;
    assert_eq!(server.stop().await.unwrap(), Stopped::Drained);

    let error = client.send(get("/")).await.unwrap_err();
    assert!(error.is_unprocessed(), "{error}");
    assert!(error.to_string().contains(&at.port().to_string()), "{error}");

    let listener = TcpListener::bind(at).await.unwrap();
    let server = authority.serve_on(listener, app(), ServeLimits::default(), ClientAuth::Required);
    text(&client, "/").await;
    assert_eq!(server.stop().await.unwrap(), Stopped::Drained);
}

#[tokio::test]
async fn nothing_is_lost_while_servers_come_and_go() {
    let authority = Authority::new();
    let mut server = authority.serve(app(), ServeLimits::default()).await;
    let at = server.address;
    let client = server.client(&authority.client("client"));
    for _ in 0..5 {
        // In flight while the server leaves: each is answered, or known not to have been processed.
        let requests = (0..20).map(|_| async { client.send(get("/")).await.map(drop) });
        let stopped = server.stop();
        for result in futures::future::join_all(requests).await {
            if let Err(error) = result {
                assert!(error.is_unprocessed(), "{error}");
            }
        }
        assert_eq!(stopped.await.unwrap(), Stopped::Drained);
        let listener = TcpListener::bind(at).await.unwrap();
        server = authority.serve_on(listener, app(), ServeLimits::default(), ClientAuth::Required);
        text(&client, "/").await;
    }
}

#[tokio::test]
async fn waiting_requests_share_an_attempt_that_does_not_need_its_first_asker() {
    let authority = Authority::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let tls = authority.client("client");
    let client = Http2Client::new(&address(at), &tls, ClientLimits::default()).unwrap();
    let ask = || {
        let client = client.clone();
        tokio::spawn(async move { text(&client, "/").await })
    };
    let first = ask();
    // The backlog takes the connection: the attempt is under way, and nobody has accepted it.
    let second = ask();
    tokio::task::yield_now().await;
    first.abort();
    let _server = authority.serve_on(listener, app(), ServeLimits::default(), ClientAuth::Required);
    let port = second.await.unwrap();
    assert_eq!(text(&client, "/").await, port);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let authority = Authority::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = address(listener.local_addr().unwrap());
    let limits = ClientLimits {
        connect_timeout: SOON,
        ..ClientLimits::default()
    };
    let client = Http2Client::new(&at, &authority.client("client"), limits).unwrap();
    let error = client.send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    assert!(error.to_string().contains("in time"), "{error}");
}

#[tokio::test]
async fn only_requests_for_the_server_are_sent() {
    let authority = Authority::new();
    let server = authority.serve(app(), ServeLimits::default()).await;
    let client = server.client(&authority.client("client"));
    let port = server.address.port();
    for uri in [format!("https://127.0.0.1:{port}/"), "/".to_owned()] {
        assert_eq!(client.send(get(&uri)).await.unwrap().status(), 200, "{uri}");
    }
    for uri in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://localhost:{port}/"),
        format!("https://user@127.0.0.1:{port}/"),
        "https://127.0.0.1/".to_owned(),
    ] {
        let error = client.send(get(&uri)).await.unwrap_err();
        assert!(matches!(error, ClientError::WrongAuthority { .. }), "{uri}: {error}");
    }
}

#[test]
fn an_address_is_a_server_and_nothing_else() {
    let authority = Authority::new();
    let tls = authority.anonymous();
    let new = |uri: &str| Http2Client::new(&uri.parse().unwrap(), &tls, ClientLimits::default());
    for uri in ["https://localhost", "https://127.0.0.1:9001", "https://[::1]:9001/"] {
        new(uri).unwrap();
    }
    for uri in [
        "http://localhost:1",
        "https://localhost/path",
        "https://localhost/?query",
        "https://user@localhost",
        "localhost:1",
        "/path",
        "https://under_score..x/",
    ] {
        let result = new(uri);
        assert!(matches!(result, Err(ClientError::Address(_))), "{uri}: {result:?}");
    }
}

#[tokio::test]
async fn headers_above_the_limit_are_refused() {
    let authority = Authority::new();
    let limits = ServeLimits {
        max_header_list_size: 2048,
        ..ServeLimits::default()
    };
    let server = authority.serve(app(), limits).await;
    let client = server.client(&authority.client("client"));
    text(&client, "/").await;
    let mut request = get("/");
    let value = "x".repeat(4096).parse().unwrap();
    request.headers_mut().insert("x-large", value);
    let answered = match client.send(request).await {
        Ok(response) => {
            let status = response.status();
            response.into_body().collect().await.ok();
            status.is_success()
        }
        Err(_) => false,
    };
    assert!(!answered, "a request with headers above the limit was served");
    text(&client, "/").await;
}
