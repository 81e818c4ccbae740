//! HTTP/1.1 to the engine's socket: one connection per call, which ends with the call.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::call::{EngineBody, EngineCall, EngineResponse};
use crate::config::Timeouts;
use crate::error::EngineError;

/// Longest answer of a control route in bytes.
const MAX_CONTROL_BODY: usize = 8 * 1024 * 1024;

/// The way to the engine's socket.
#[derive(Clone)]
pub(crate) struct Connector {
    socket: PathBuf,
    /// User id that the peer must have.
    uid: u32,
    timeouts: Timeouts,
    live: watch::Sender<u64>,
    begun: Arc<AtomicU64>,
}

/// An answer of a control route.
pub(crate) struct ControlAnswer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl ControlAnswer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When the status is not a success, or the body is not JSON.
    pub(crate) fn json(&self, route: &'static str) -> Result<Value, EngineError> {
        if !self.status.is_success() {
            return Err(EngineError::Status {
                route,
                status: self.status.as_u16(),
            });
        }
        serde_json::from_slice(&self.body).map_err(|_| EngineError::Malformed {
            route,
            reason: "it is not JSON",
        })
    }
}

impl Connector {
    pub(crate) fn new(socket: PathBuf, uid: u32, timeouts: Timeouts) -> Self {
        Self {
            socket,
            uid,
            timeouts,
            live: watch::Sender::new(0),
            begun: Arc::default(),
        }
    }

    /// Connections of calls that are open. Connections of control routes do not count.
    pub(crate) fn live(&self) -> u64 {
        *self.live.borrow()
    }

    /// Calls that were ever begun: a scrub sees by it whether one came in between.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until no connection of a call is open. False when the limit is over before.
    pub(crate) async fn closed(&self, limit: Duration) -> bool {
        let mut live = self.live.subscribe();
        // The sender lives in this value, so the wait ends by the count or by the limit.
        timeout(limit, live.wait_for(|open| *open == 0))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Sends a call and waits for the head of its answer.
    pub(crate) async fn call(&self, call: EngineCall) -> Result<EngineResponse, EngineError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let live = LiveCall::begin(&self.live);
        let body = Bytes::from_owner(Erased(call.body));
        let (response, connection) = self
            .exchange(Method::POST, call.path, body, self.timeouts.first_byte, live)
            .await?;
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned);
        let status = response.status();
        let idle = self.timeouts.idle;
        let body = futures::stream::unfold(Some((response.into_body(), connection)), move |state| async move {
            let (mut incoming, connection) = state?;
            let piece = match next_data(&mut incoming, idle).await? {
                Ok(bytes) => return Some((Ok(bytes), Some((incoming, connection)))),
                Err(error) => Err(error),
            };
            // Nothing follows an error, and the engine should stop.
            drop(connection);
            Some((piece, None))
        });
        Ok(EngineResponse {
            status,
            content_type,
            body: EngineBody::new(body.boxed()),
        })
    }

    /// A control route that is read whole.
    pub(crate) async fn control(
        &self,
        method: Method,
        target: &str,
        route: &'static str,
        body: &Value,
    ) -> Result<ControlAnswer, EngineError> {
        let bytes = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let limit = self.timeouts.control;
        let whole = async {
            let (response, connection) = self.exchange(method, target, bytes, limit, ()).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_CONTROL_BODY).collect().await;
            drop(connection);
            let body = body.map_err(|_| EngineError::Malformed {
                route,
                reason: "it broke off or is too long",
            })?;
            Ok(ControlAnswer {
                status,
                body: body.to_bytes(),
            })
        };
        timeout(limit, whole).await.unwrap_or(Err(EngineError::Timeout {
            what: "answer to a control route",
            after: limit,
        }))
    }

    /// `GET` of a control route.
    pub(crate) async fn get(&self, route: &'static str) -> Result<ControlAnswer, EngineError> {
        self.control(Method::GET, route, route, &Value::Null).await
    }

    async fn exchange<G: Send + 'static>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        first_byte: Duration,
        guard: G,
    ) -> Result<(http::Response<Incoming>, AbortOnDrop), EngineError> {
        let stream = self.connect().await?;
        let broken = |during| move |_| EngineError::Broken { during };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken("connecting"))?;
        let task = tokio::spawn(async move {
            // The call is live as long as its connection is.
            let _guard = guard;
            // How a connection ends is seen by whoever reads the body.
            let _ = connection.await;
        });
        let task = AbortOnDrop(task.abort_handle());
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "engine")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| EngineError::Malformed {
                route: "the request",
                reason: "its path is no path",
            })?;
        match timeout(first_byte, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((response, task)),
            Ok(Err(_)) => Err(EngineError::Broken {
                during: "waiting for the answer",
            }),
            Err(_) => Err(EngineError::Timeout {
                what: "answer",
                after: first_byte,
            }),
        }
    }

    async fn connect(&self) -> Result<UnixStream, EngineError> {
        let limit = self.timeouts.connect;
        let stream = timeout(limit, UnixStream::connect(&self.socket))
            .await
            .map_err(|_| EngineError::Timeout {
                what: "connection",
                after: limit,
            })?
            .map_err(EngineError::Connect)?;
        let found = stream.peer_cred().map_err(EngineError::Connect)?.uid();
        if found != self.uid {
            return Err(EngineError::Impostor {
                found,
                expected: self.uid,
            });
        }
        Ok(stream)
    }
}

/// The next bytes of a body; none at its end.
async fn next_data(incoming: &mut Incoming, idle: Duration) -> Option<Result<Bytes, EngineError>> {
    loop {
        match timeout(idle, incoming.frame()).await {
            Err(_) => {
                return Some(Err(EngineError::Timeout {
                    what: "further output",
                    after: idle,
                }));
            }
            Ok(None) => return None,
            Ok(Some(Err(_))) => {
                return Some(Err(EngineError::Broken {
                    during: "reading the answer",
                }));
            }
            Ok(Some(Ok(frame))) => {
                // Trailers hold nothing that is used.
                if let Ok(bytes) = frame.into_data() {
                    return Some(Ok(bytes));
                }
            }
        }
    }
}

/// Counts a call as live until it is dropped.
struct LiveCall(watch::Sender<u64>);

impl LiveCall {
    fn begin(live: &watch::Sender<u64>) -> Self {
        live.send_modify(|open| *open = open.saturating_add(1));
        Self(live.clone())
    }
}

impl Drop for LiveCall {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Erases a request once hyper has written it.
struct Erased(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Erased {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Ends a connection with the value that needs it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    fn connector(socket: PathBuf, uid: u32) -> Connector {
        Connector::new(
            socket,
            uid,
            Timeouts {
                control: Duration::from_millis(200),
                ..Timeouts::default()
            },
        )
    }

    #[tokio::test]
    async fn who_does_not_run_as_the_engines_user_is_no_engine() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let own = rustix::process::geteuid().as_raw();
        let other = own.wrapping_add(1);
        let error = connector(path.clone(), other)
            .get("/health")
            .await
            .err()
            .expect("refused");
        assert!(matches!(error, EngineError::Impostor { found, expected } if found == own && expected == other));
        // The same socket with the right user gets as far as waiting for an answer.
        let error = connector(path, own)
            .get("/health")
            .await
            .err()
            .expect("it never answers");
        assert!(matches!(error, EngineError::Timeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_control_answer_without_end_is_cut() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.read(&mut [0u8; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
        });
        let mut connector = connector(path, rustix::process::geteuid().as_raw());
        connector.timeouts.control = Duration::from_secs(60);
        let error = connector.get("/metrics").await.err().expect("too long");
        assert!(
            matches!(error, EngineError::Malformed { route: "/metrics", .. }),
            "{error}"
        );
    }
}
