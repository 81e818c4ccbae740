//! What a client may conclude from the ways in which a server ends a request: frames written by hand.

mod common;

use std::sync::Arc;

use cloister_transport::{ClientError, ClientLimits, Http2Client};
use common::{Authority, address, get};
use rustls::{ServerConfig, crypto::aws_lc_rs, version::TLS13};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, 0];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn go_away(last_stream: u32, reason: u32) -> Vec<u8> {
    let payload = [last_stream.to_be_bytes(), reason.to_be_bytes()].concat();
    frame(GOAWAY, 0, &payload)
}

fn reset(reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 1, &reason.to_be_bytes())
}

/// A server that answers the first request (stream 1) with these bytes, then closes; the error that a client gets.
async fn error_after(answer: Vec<u8>) -> ClientError {
    let authority = Authority::new();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(authority.chain("server"), authority.key("server"))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = address(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == HEADERS {
                break;
            }
        }
        stream.write_all(&answer).await.unwrap();
        stream.shutdown().await.ok();
        // Nobody is listening any more: a request that was sent again would fail to connect.
        drop(listener);
    });
    let client = Http2Client::new(&at, &authority.anonymous(), ClientLimits::default()).unwrap();
    let error = client.send(get("/")).await.unwrap_err();
    server.await.unwrap();
    error
}

#[tokio::test]
async fn a_refused_stream_was_not_processed() {
    let error = error_after(reset(REFUSED_STREAM)).await;
    assert!(matches!(error, ClientError::NotProcessed { .. }), "{error}");
    assert!(error.is_unprocessed());
}

#[tokio::test]
async fn a_stream_after_the_last_one_of_a_goaway_was_not_processed() {
    let error = error_after(go_away(0, NO_ERROR)).await;
    assert!(matches!(error, ClientError::NotProcessed { .. }), "{error}");
}

#[tokio::test]
async fn a_stream_that_a_goaway_covers_may_have_been_processed() {
    let error = error_after(go_away(1, NO_ERROR)).await;
    assert!(matches!(error, ClientError::Interrupted { .. }), "{error}");
    assert!(!error.is_unprocessed());
}

#[tokio::test]
async fn a_stream_that_was_reset_otherwise_may_have_been_processed() {
    for reason in [NO_ERROR, CANCEL] {
        let error = error_after(reset(reason)).await;
        assert!(matches!(error, ClientError::Interrupted { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off_may_have_processed_its_requests() {
    let error = error_after(Vec::new()).await;
    assert!(matches!(error, ClientError::Interrupted { .. }), "{error}");
}
