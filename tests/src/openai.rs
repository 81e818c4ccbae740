//! A client program: HTTP/1.1 without encryption to a local proxy, as the OpenAI libraries do.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::wait;

/// What came back, to its end or to where it broke off.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// All bytes that came.
    pub body: String,
    /// The connection broke before the end of the body.
    pub broken: bool,
}

impl Reply {
    /// The events of a stream.
    #[must_use]
    pub fn events(&self) -> Vec<&str> {
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect()
    }

    /// Whether it is a stream that has come to its proper end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.status == StatusCode::OK && !self.broken && self.events().last() == Some(&"[DONE]")
    }

    /// Whether a client library takes it for a success: a whole stream, or a whole answer without an error in it.
    #[must_use]
    pub fn looks_successful(&self) -> bool {
        if self.body.contains("[DONE]") {
            return true;
        }
        let whole = serde_json::from_str::<Value>(&self.body);
        self.status.is_success() && !self.broken && whole.is_ok_and(|answer| answer.get("choices").is_some())
    }

    /// `error.code`, of an answer or of an event.
    #[must_use]
    pub fn error_code(&self) -> Option<String> {
        let texts = self.events().into_iter().chain([self.body.as_str()]);
        let mut values = texts.filter_map(|text| serde_json::from_str::<Value>(text).ok());
        values.find_map(|value| Some(value.get("error")?.get("code")?.as_str()?.to_owned()))
    }
}

/// A response whose body has not been read.
pub struct Streaming {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    read: Vec<u8>,
}

impl Streaming {
    /// Waits for the first event.
    pub async fn begun(mut self) -> Self {
        while !self.read.windows(6).any(|window| window == b"data: ") {
            let frame = wait::within("an event", self.body.frame()).await;
            let frame = frame.expect("an event").expect("an event");
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        self
    }

    /// Reads to the end.
    pub async fn finish(mut self) -> Reply {
        let mut broken = false;
        while let Some(frame) = wait::within("a piece of a reply", self.body.frame()).await {
            match frame {
                Ok(frame) => self.read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        Reply {
            status: self.status,
            headers: self.headers,
            body: String::from_utf8_lossy(&self.read).into_owned(),
            broken,
        }
    }
}

/// Sends a chat and waits for its head.
pub async fn start_chat(proxy: SocketAddr, body: &Value) -> Streaming {
    let sent = send(proxy, Method::POST, "/v1/chat/completions", &body.to_string()).await;
    sent.expect("the proxy answers")
}

/// Sends a chat and reads all of the answer.
pub async fn chat(proxy: SocketAddr, body: &Value) -> Reply {
    start_chat(proxy, body).await.finish().await
}

/// Asks a proxy for something; none if it does not listen.
pub async fn get(proxy: SocketAddr, path: &str) -> Option<Reply> {
    Some(send(proxy, Method::GET, path, "").await?.finish().await)
}

async fn send(proxy: SocketAddr, method: Method, path: &str, body: &str) -> Option<Streaming> {
    let stream = TcpStream::connect(proxy).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", proxy.to_string())
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .ok()?;
    let response = wait::within("the head of a reply", sender.send_request(request))
        .await
        .ok()?;
    let (parts, body) = response.into_parts();
    Some(Streaming {
        status: parts.status,
        headers: parts.headers,
        body,
        read: Vec::new(),
    })
}
