//! Who gets a connection, and who does not.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router, routing::get as on_get};
use cloister_transport::{
    ClientAuth, ClientError, ClientLimits, ClientTls, Http2Client, Peer, ServeLimits, client_config, pki::Usage,
    server_config,
};
use common::{Authority, Running, address, get, text};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, HandshakeKind, ServerConfig, crypto::aws_lc_rs, version};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A server that counts the requests that get through.
async fn counting(authority: &Authority) -> (Running, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let app = Router::new().route(
        "/",
        on_get(move || async move {
            counter.fetch_add(1, Ordering::SeqCst);
            "hello"
        }),
    );
    (authority.serve(app, ServeLimits::default()).await, seen)
}

async fn assert_refused(server: &Running, seen: &AtomicUsize, tls: &ClientTls) -> String {
    let error = server.client(tls).send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    assert!(error.is_unprocessed());
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    error.to_string()
}

#[tokio::test]
async fn a_client_of_the_authority_is_served_and_named() {
    let authority = Authority::new();
    let app = Router::new().route(
        "/",
        on_get(|Extension(peer): Extension<Peer>| async move { peer.certificate.unwrap().as_ref().to_vec() }),
    );
    let server = authority.serve(app, ServeLimits::default()).await;
    let client = server.client(&authority.client("client"));
    let response = client.send(get("/")).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(&*body, authority.chain("client")[0].as_ref());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let authority = Authority::new();
    let (server, seen) = counting(&authority).await;
    let message = assert_refused(&server, &seen, &authority.anonymous()).await;
    assert!(message.contains("certificate"), "{message}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_served_where_none_is_asked_for() {
    let authority = Authority::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let app = Router::new().route(
        "/",
        on_get(|Extension(peer): Extension<Peer>| async move {
            assert!(peer.certificate.is_none());
            "hello"
        }),
    );
    let server = authority.serve_on(listener, app, ServeLimits::default(), ClientAuth::None);
    assert_eq!(text(&server.client(&authority.anonymous()), "/").await, "hello");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let authority = Authority::new();
    let other = Authority::new();
    let (server, seen) = counting(&authority).await;
    let stranger = client_config(
        &authority.path("ca.pem"),
        Some((&other.path("client.pem"), &other.path("client.key"))),
    )
    .unwrap();
    assert_refused(&server, &seen, &stranger).await;
}

#[tokio::test]
async fn a_servers_certificate_does_not_make_a_client() {
    let authority = Authority::new();
    let (server, seen) = counting(&authority).await;
    assert_refused(&server, &seen, &authority.client("server")).await;
}

#[tokio::test]
async fn a_clients_certificate_does_not_make_a_server() {
    let authority = Authority::new();
    let tls = server_config(&authority.files("client"), ClientAuth::None).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(cloister_transport::serve(
        listener,
        tls,
        Router::new(),
        ServeLimits::default(),
        std::future::pending(),
    ));
    let client = Http2Client::new(&address(at), &authority.anonymous(), ClientLimits::default()).unwrap();
    let error = client.send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let authority = Authority::new();
    let other = Authority::new();
    let (server, seen) = counting(&authority).await;
    let misled = client_config(
        &other.path("ca.pem"),
        Some((&authority.path("client.pem"), &authority.path("client.key"))),
    )
    .unwrap();
    assert_refused(&server, &seen, &misled).await;
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let authority = Authority::new();
    authority.issue("elsewhere", &["elsewhere.example"], Usage::Server);
    let tls = server_config(&authority.files("elsewhere"), ClientAuth::None).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(cloister_transport::serve(
        listener,
        tls,
        Router::new(),
        ServeLimits::default(),
        std::future::pending(),
    ));
    let client = Http2Client::new(&address(at), &authority.anonymous(), ClientLimits::default()).unwrap();
    let error = client.send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
}

/// An authority of its own: a server, and two clients, of which one ended an hour ago.
fn with_an_expired_client(dir: &std::path::Path) -> (cloister_transport::TlsFiles, Clients) {
    let now = time::OffsetDateTime::now_utc();
    let hour = Duration::from_secs(3600);
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, &ca_key);
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let leaf = |usage: ExtendedKeyUsagePurpose, not_after| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = now - 2 * hour;
        params.not_after = not_after;
        params.insert_extended_key_usage(usage);
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let ca = write("ca.pem", &ca_pem);
    let (certificate, key) = leaf(ExtendedKeyUsagePurpose::ServerAuth, now + hour);
    let server = cloister_transport::TlsFiles {
        ca: ca.clone(),
        certificate: write("server.pem", &certificate),
        key: write("server.key", &key),
    };
    let client = |name: &str, not_after| {
        let (certificate, key) = leaf(ExtendedKeyUsagePurpose::ClientAuth, not_after);
        let certificate = write(&format!("{name}.pem"), &certificate);
        let key = write(&format!("{name}.key"), &key);
        client_config(&ca, Some((&certificate, &key))).unwrap()
    };
    let clients = Clients {
        expired: client("expired", now - hour),
        current: client("current", now + hour),
    };
    (server, clients)
}

struct Clients {
    expired: ClientTls,
    current: ClientTls,
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (files, clients) = with_an_expired_client(dir.path());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = address(listener.local_addr().unwrap());
    tokio::spawn(cloister_transport::serve(
        listener,
        server_config(&files, ClientAuth::Required).unwrap(),
        Router::new().route("/", on_get(|| async { "hello" })),
        ServeLimits::default(),
        std::future::pending(),
    ));
    let client = |tls: &ClientTls| Http2Client::new(&at, tls, ClientLimits::default()).unwrap();
    let error = client(&clients.expired).send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
    assert_eq!(text(&client(&clients.current), "/").await, "hello");
}

/// A client's raw TLS connection, with whatever the test wants to get wrong.
async fn raw(
    server: &Running,
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(authority.chain("client"), authority.key("client"))
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    raw_with(server, Arc::new(config)).await
}

async fn raw_with(server: &Running, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, tcp).await
}

/// What the server says to an HTTP/2 client's first words; nothing when it closes.
async fn answer(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    stream.write_all(PREFACE).await.ok();
    let mut answer = vec![0; 9];
    match stream.read_exact(&mut answer).await {
        Ok(_) => answer,
        Err(_) => Vec::new(),
    }
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let authority = Authority::new();
    let (server, _) = counting(&authority).await;
    assert!(raw(&server, &authority, &[&version::TLS12], &[b"h2"]).await.is_err());
    let mut stream = raw(&server, &authority, &[&version::TLS13], &[b"h2"]).await.unwrap();
    assert!(!answer(&mut stream).await.is_empty());
}

#[tokio::test]
async fn only_h2_is_spoken() {
    let authority = Authority::new();
    let (server, _) = counting(&authority).await;
    assert!(
        raw(&server, &authority, &[&version::TLS13], &[b"http/1.1"])
            .await
            .is_err()
    );
    // rustls lets a client through that names no protocol.
    let mut silent = raw(&server, &authority, &[&version::TLS13], &[]).await.unwrap();
    assert_eq!(answer(&mut silent).await, b"");
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let authority = Authority::new();
    let (server, _) = counting(&authority).await;
    // One configuration for both connections: the client keeps whatever tickets it is given.
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(authority.chain("client"), authority.key("client"))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut stream = raw_with(&server, Arc::clone(&config)).await.unwrap();
        assert!(!answer(&mut stream).await.is_empty());
        assert_ne!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}

/// A server that is not this crate's.
async fn foreign_server(
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Http2Client {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(authority.chain("server"), authority.key("server"))
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = address(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(tcp).await {
            // Empty SETTINGS: what an HTTP/2 server says first.
            stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.ok();
            stream.read_to_end(&mut Vec::new()).await.ok();
        }
    });
    Http2Client::new(&at, &authority.anonymous(), ClientLimits::default()).unwrap()
}

#[tokio::test]
async fn the_client_speaks_only_tls_1_3_and_only_h2() {
    let authority = Authority::new();
    let old = foreign_server(&authority, &[&version::TLS12], &[b"h2"]).await;
    let error = old.send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    let other = foreign_server(&authority, &[&version::TLS13], &[]).await;
    let error = other.send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    assert!(error.to_string().contains("HTTP/2"), "{error}");
}
