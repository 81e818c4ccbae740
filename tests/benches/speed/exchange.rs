//! The client program of the bench: streamed chats over one connection that stays, as the OpenAI libraries keep theirs.
//! The same code measures both sides.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cloister_tests::wait::within;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// A connection to something that speaks OpenAI's API.
pub(crate) struct Connection {
    target: Target,
    sender: SendRequest<Full<Bytes>>,
}

enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Times of one answer since its request was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// First token.
    pub(crate) first: Duration,
    /// Last token.
    pub(crate) last: Duration,
    /// Longest wait between two tokens.
    pub(crate) pause: Duration,
    /// End of the body.
    pub(crate) end: Duration,
    /// Tokens of the answer, as its usage says.
    pub(crate) tokens: u64,
    /// Tokens of the prompt, as its usage says.
    pub(crate) prompt_tokens: u64,
}

impl Answer {
    /// Tokens per second from the first to the last.
    pub(crate) fn rate(&self) -> f64 {
        self.tokens.saturating_sub(1) as f64 / (self.last - self.first).as_secs_f64()
    }
}

impl Connection {
    /// Connects to a TCP address.
    pub(crate) async fn tcp(address: SocketAddr) -> Self {
        Self::to(Target::Tcp(address)).await
    }

    /// Connects to a unix socket.
    pub(crate) async fn unix(path: PathBuf) -> Self {
        Self::to(Target::Unix(path)).await
    }

    async fn to(target: Target) -> Self {
        let sender = target.connect().await;
        Self { target, sender }
    }

    /// Streams a chat and measures its answer.
    ///
    /// # Panics
    /// When the answer is no success, or not whole.
    pub(crate) async fn chat(&mut self, body: &Value) -> Answer {
        let request = Request::post("/v1/chat/completions")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        // Connecting is not what is measured. llama.cpp closes what was idle for some seconds, perhaps just now, and the
        // enclave makes a connection for each call.
        if matches!(self.target, Target::Unix(_)) || self.sender.ready().await.is_err() {
            self.sender = self.target.connect().await;
        }
        let sent = Instant::now();
        let response = within("the head of an answer", self.sender.send_request(request)).await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "a refusal");
        let mut body = response.into_body();
        let mut events = Events::default();
        while let Some(frame) = within("a piece of an answer", body.frame()).await {
            let arrived = sent.elapsed();
            let data = frame.expect("a whole answer").into_data().unwrap_or_default();
            events.push(&data, arrived);
        }
        events.end(sent.elapsed())
    }
}

impl Target {
    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await.expect("a server that listens");
                // As the OpenAI libraries do.
                stream.set_nodelay(true).expect("a TCP socket");
                begin(stream).await
            }
            Self::Unix(path) => begin(UnixStream::connect(path).await.expect("a server that listens")).await,
        }
    }
}

async fn begin(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("an HTTP server");
    tokio::spawn(connection);
    sender
}

/// Reads the events of an answer as they come.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
    first: Option<Duration>,
    last: Duration,
    pause: Duration,
    usage: Option<Value>,
    done: bool,
}

impl Events {
    fn push(&mut self, data: &[u8], arrived: Duration) {
        self.rest.extend_from_slice(data);
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            // Comments and names of events say nothing that is measured.
            let Some(data) = event.strip_prefix(b"data: ") else {
                continue;
            };
            if data.starts_with(b"[DONE]") {
                self.done = true;
                continue;
            }
            let event: Value = serde_json::from_slice(data).expect("an event in JSON");
            assert!(event.get("error").is_none(), "a failed answer");
            if event["choices"][0]["delta"]["content"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
            {
                if self.first.is_some() {
                    self.pause = self.pause.max(arrived - self.last);
                }
                self.first.get_or_insert(arrived);
                self.last = arrived;
            }
            if event["usage"].is_object() {
                self.usage = Some(event["usage"].clone());
            }
        }
    }

    fn end(self, end: Duration) -> Answer {
        assert!(self.done, "an answer without its end");
        let usage = self.usage.expect("the usage that was asked for");
        Answer {
            first: self.first.expect("an answer with text"),
            last: self.last,
            pause: self.pause,
            end,
            tokens: usage["completion_tokens"].as_u64().expect("a number"),
            prompt_tokens: usage["prompt_tokens"].as_u64().expect("a number"),
        }
    }
}
