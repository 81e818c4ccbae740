//! A simulator on a unix socket, and the smallest client for it.

use std::path::PathBuf;

use cloister_engine_simulator::{Listening, Simulator, SimulatorConfig};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

pub(crate) struct Rig {
    pub(crate) simulator: Simulator,
    path: PathBuf,
    _listening: Listening,
    _directory: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(config: SimulatorConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("engine.sock");
        let simulator = Simulator::new(config).expect("a simulator");
        let listening = simulator.listen_unix(&path).expect("a socket");
        Self {
            simulator,
            path,
            _listening: listening,
            _directory: directory,
        }
    }

    /// Sends a request on a connection of its own and returns with the head of the answer.
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        body: &Value,
    ) -> hyper::Result<http::Response<Incoming>> {
        let stream = UnixStream::connect(&self.path).await.expect("the simulator listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "engine")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("a request");
        sender.send_request(request).await
    }

    pub(crate) async fn text(&self, method: &str, target: &str, body: &Value) -> (StatusCode, String) {
        let response = self.send(method, target, body).await.expect("an answer");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        (status, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Value {
        let (status, text) = self.text("POST", target, body).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The `data` of each server-sent event.
    pub(crate) async fn events(&self, target: &str, body: &Value) -> Vec<String> {
        let (status, text) = self.text("POST", target, body).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(ToOwned::to_owned)
            .collect()
    }
}
