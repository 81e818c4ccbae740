//! Nothing of an HTTP exchange reaches the log, whatever the filter says.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tracing::Level;

use super::*;

const CANARY: &str = "CANARY-77aa";

/// A log that is kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options(log_format: LogFormat, filter: &str) -> Options {
    Options {
        log_format,
        log_filter: Some(filter.to_owned()),
        otlp_endpoint: None,
    }
}

/// What `run` makes this crate's subscriber log.
fn logged(options: &Options, run: impl FnOnce()) -> String {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = subscriber(options, None, move || writer.clone(), false).unwrap();
    tracing::subscriber::with_default(subscriber, run);
    kept.text()
}

/// An HTTP/1 or HTTP/2 exchange with the canary in a path, a header, a body and an answer.
fn exchange(http2: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async move {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (client, server) = (TokioIo::new(client), TokioIo::new(server));
        let service = service_fn(|request: Request<Incoming>| async move {
            let body = request.into_body().collect().await?;
            Ok::<_, hyper::Error>(Response::new(Full::new(body.to_bytes())))
        });
        let request = Request::post(format!("http://localhost/{CANARY}"))
            .header("x-canary", CANARY)
            .body(Full::new(Bytes::from_static(CANARY.as_bytes())))
            .unwrap();
        tokio::spawn(async move {
            if http2 {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.serve_connection(server, service).await
            } else {
                let builder = hyper::server::conn::http1::Builder::new();
                builder.serve_connection(server, service).await
            }
        });
        let response = if http2 {
            let executor = TokioExecutor::new();
            let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, client).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(client).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, CANARY);
    });
}

/// Filters that ask for everything, also by the names of those that must not.
const GREEDY: [&str; 3] = [
    "trace",
    "trace,h2=trace,hyper=trace,tonic=trace,rustls=trace,axum=trace,tower=trace",
    "h2[Connection]=trace,hyper::proto=trace",
];

#[test]
fn an_exchange_leaves_nothing_in_the_log() {
    for filter in GREEDY {
        for format in [LogFormat::Text, LogFormat::Json] {
            for http2 in [false, true] {
                let log = logged(&options(format, filter), || exchange(http2));
                assert_eq!(log, "", "with {filter}");
            }
        }
    }
}

#[test]
fn the_same_exchange_would_be_logged_without_the_cap() {
    let kept = Kept::default();
    let writer = kept.clone();
    let uncapped = fmt::layer()
        .with_writer(move || writer.clone())
        .with_filter(EnvFilter::new("trace"));
    tracing::subscriber::with_default(Registry::default().with(uncapped), || exchange(true));
    assert_ne!(kept.text(), "");
}

/// An event of each level, by a crate of this name.
macro_rules! events_of {
    ($target:literal) => {
        tracing::trace!(target: $target, content = CANARY, "trace");
        tracing::debug!(target: $target, content = CANARY, "debug");
        tracing::info!(target: $target, content = CANARY, "info");
        tracing::warn!(target: $target, "warn");
        tracing::error!(target: $target, "error");
    };
}

#[test]
fn others_are_capped_at_warn() {
    for filter in GREEDY.into_iter().take(2) {
        let log = logged(&options(LogFormat::Json, filter), || {
            events_of!("h2::codec::framed_write");
            events_of!("hyper::proto::h1::io");
            events_of!("rustls::client");
            events_of!("tonic::transport");
            events_of!("axum::rejection");
            events_of!("tower::buffer");
            events_of!("log");
            events_of!("some_new_dependency");
            let _span = tracing::info_span!(target: "h2", "exchange", content = CANARY).entered();
            tracing::error!(target: "h2", "within");
        });
        assert!(!log.contains(CANARY), "{log}");
        assert_eq!(log.lines().count(), 8 * 2 + 1, "{log}");
    }
}

#[test]
fn the_projects_own_events_follow_the_filter() {
    let counted = |filter: Option<&str>| {
        let options = Options {
            log_filter: filter.map(ToOwned::to_owned),
            log_format: LogFormat::Json,
            otlp_endpoint: None,
        };
        let log = logged(&options, || {
            events_of!("cloister_scheduler::queue");
        });
        log.lines().count()
    };
    assert_eq!(counted(None), 3);
    assert_eq!(counted(Some("trace")), 5);
    assert_eq!(counted(Some("off")), 0);
    assert_eq!(counted(Some("warn,cloister_scheduler=debug")), 4);
}

#[test]
fn json_lines_are_objects() {
    let log = logged(&options(LogFormat::Json, "info"), || {
        tracing::info!(target: "cloister_test", count = 3, "a line\nof two");
    });
    let line: serde_json::Value = serde_json::from_str(log.trim_end()).unwrap();
    assert_eq!(line["level"], Level::INFO.as_str());
    assert_eq!(line["message"], "a line\nof two");
    assert_eq!(line["count"], 3);
    assert_eq!(line["target"], "cloister_test");
}
