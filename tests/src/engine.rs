//! The engine's own socket, which only its enclave and the machine's owner can reach.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::wait;

/// The engine of an enclave, seen from behind.
#[derive(Debug, Clone)]
pub struct EngineSocket {
    path: PathBuf,
}

impl EngineSocket {
    /// The socket in an enclave's runtime folder.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Sets the simulator's faults: see its `Faults`.
    pub async fn set_faults(&self, faults: Value) {
        let set = self.call(Method::POST, "/simulator/faults", &faults.to_string()).await;
        let (status, _) = set.expect("the simulator answers");
        assert_eq!(status, StatusCode::OK);
    }

    /// llama.cpp's slots; none while there is no engine.
    pub async fn slots(&self) -> Option<Vec<Value>> {
        let (status, body) = self.call(Method::GET, "/slots", "").await?;
        if status != StatusCode::OK {
            return None;
        }
        serde_json::from_slice(&body).ok()
    }

    /// The text of the metrics; none while there is no engine.
    pub async fn metrics(&self) -> Option<String> {
        let (_, body) = self.call(Method::GET, "/metrics", "").await?;
        String::from_utf8(body.to_vec()).ok()
    }

    async fn call(&self, method: Method, path: &str, body: &str) -> Option<(StatusCode, Bytes)> {
        wait::within("the engine's answer", self.exchange(method, path, body)).await
    }

    async fn exchange(&self, method: Method, path: &str, body: &str) -> Option<(StatusCode, Bytes)> {
        let stream = UnixStream::connect(&self.path).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "engine")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, body))
    }
}
