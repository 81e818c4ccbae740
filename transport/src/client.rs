//! The calling side: one authority, one connection at a time, many requests.

mod body;
mod connect;

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, Uri, uri::Scheme};
use http_body::Body;
use hyper::client::conn::http2::SendRequest;

use crate::tls::ClientTls;

pub use self::{body::ResponseBody, connect::ConnectError};
use self::{
    body::{BoxError, RequestBody},
    connect::{Connecting, Target},
};

/// Connections that are tried for a request that none of them took.
const MAX_ATTEMPTS: usize = 3;

type Sender = SendRequest<RequestBody>;

/// What a client allows its peer, and how it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Time for the name's resolution, TCP, TLS and the server's first word.
    pub connect_timeout: Duration,
    /// Bytes of a response that arrive before they are read. Small windows let a server feel a slow reader early.
    pub initial_stream_window: u32,
    /// Bytes of all responses of the connection that arrive before they are read.
    pub connection_window: u32,
    /// Bytes of a request's body that are buffered for a server that does not read; then the body is not polled.
    pub max_send_buffer: usize,
    /// Cap on the headers of a response, bytes as HTTP/2 counts them (32 more per field).
    pub max_header_list_size: u32,
    /// While requests are under way, a server from which nothing came for this long is pinged.
    pub keepalive_interval: Duration,
    /// A server that does not answer the ping for this long is given up, and the requests with it.
    pub keepalive_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        ClientLimits {
            connect_timeout: Duration::from_secs(10),
            initial_stream_window: 64 * 1024,
            connection_window: 8 * 1024 * 1024,
            max_send_buffer: 64 * 1024,
            max_header_list_size: 16 * 1024,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not `https://host[:port]`.
    #[error("{0} is not an address of the form https://host:port; correct it")]
    Address(Uri),
    /// The request names another server than the client's; it was not sent.
    #[error("a request for another server was given to the client of {authority}; it was not sent")]
    WrongAuthority {
        /// The client's server.
        authority: String,
    },
    /// There is no connection; the request was not sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server said, or never had the chance to see, that the request was not processed.
    #[error("{authority} did not take the request: {source}; it is safe to send it again")]
    NotProcessed {
        /// The client's server.
        authority: String,
        /// What happened.
        source: hyper::Error,
    },
    /// The request failed after it was sent; the server may have acted on it.
    #[error("the request to {authority} broke off: {source}; the server may have acted on it")]
    Interrupted {
        /// The client's server.
        authority: String,
        /// What happened.
        source: hyper::Error,
    },
}

// === impl ClientError ===

impl ClientError {
    /// Whether the server's application provably never saw the request, so that sending it again cannot run it twice.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        !matches!(self, ClientError::Interrupted { .. })
    }

    fn sent(authority: String, source: hyper::Error) -> Self {
        if is_refusal(&source) {
            ClientError::NotProcessed { authority, source }
        } else {
            ClientError::Interrupted { authority, source }
        }
    }
}

/// Whether the server itself said that it did not process the stream: REFUSED_STREAM, or a GOAWAY whose last stream came
/// before it (RFC 9113, section 8.7). h2 reports a GOAWAY from the peer to such streams only.
fn is_refusal(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return false;
    };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// A client of one server. Connects when the first request needs it and again when the connection is gone; requests
/// share the connection. Clones share everything.
///
/// A request is sent once. It is taken to another connection only when the first never took it; what else to repeat is
/// the caller's decision, see [`ClientError::is_unprocessed`]. Failed connection attempts are not repeated either: all
/// requests that wait for one attempt share its error, and the next request makes the next attempt.
#[derive(Clone)]
pub struct Http2Client {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    current: Mutex<Option<Connecting>>,
}

/// What [`tower_service::Service::call`] of [`Http2Client`] returns.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, ClientError>> + Send>>;

// === impl Http2Client ===

impl Http2Client {
    /// A client of the server at `address`, `https://host[:port]` with port 443 when none is given. Connects nowhere yet.
    ///
    /// # Errors
    ///
    /// When the address has another scheme, a path, user information, or a host that no certificate can name.
    pub fn new(address: &Uri, tls: &ClientTls, limits: ClientLimits) -> Result<Self, ClientError> {
        let target = Target::new(address, tls, limits).ok_or_else(|| ClientError::Address(address.clone()))?;
        Ok(Http2Client {
            inner: Arc::new(Inner {
                target,
                current: Mutex::new(None),
            }),
        })
    }

    /// The server, `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.inner.target.authority.as_str()
    }

    /// Sends a request and waits for the headers of its response. The request's URI may leave out scheme and authority.
    ///
    /// Dropping the future or the response resets the stream, and the server's handler is dropped (see [`ResponseBody`]
    /// for uploads that are still under way). A request body that fails resets the stream, too.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; a response of whatever status is no error.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<ResponseBody>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = self.address(request)?.into_parts();
        let (body, upload) = body::tie(body);
        let mut request = Request::from_parts(parts, body);
        let mut attempt = 1;
        loop {
            let mut sender = self.connection().await?;
            let mut error = match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| ResponseBody::new(body, upload))),
                Err(error) => error,
            };
            let taken_back = error.take_message();
            let source = error.into_error();
            let authority = self.authority().to_owned();
            match taken_back {
                // The connection ended before it took the request.
                Some(message) if attempt < MAX_ATTEMPTS => request = message,
                Some(_) => return Err(ClientError::NotProcessed { authority, source }),
                None => return Err(ClientError::sent(authority, source)),
            }
            attempt += 1;
        }
    }

    /// Fills in the server; refuses requests that are meant for another.
    fn address<B>(&self, mut request: Request<B>) -> Result<Request<B>, ClientError> {
        let target = &self.inner.target;
        let uri = request.uri();
        let other_scheme = uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTPS);
        let other_server = uri.authority().is_some_and(|authority| !target.is_at(authority));
        if other_scheme || other_server {
            return Err(ClientError::WrongAuthority {
                authority: self.authority().to_owned(),
            });
        }
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(target.authority.clone());
        parts.path_and_query = parts
            .path_and_query
            .or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
        // Scheme, authority and path are all there, so this cannot fail; if it did, nothing would be sent.
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| ClientError::WrongAuthority {
            authority: self.authority().to_owned(),
        })?;
        Ok(request)
    }

    /// The connection, or the one attempt at it that all requests wait for.
    async fn connection(&self) -> Result<Sender, ConnectError> {
        let connecting = {
            let mut current = self.inner.current.lock().unwrap_or_else(PoisonError::into_inner);
            match current.as_ref().filter(|connecting| is_usable(connecting)) {
                Some(connecting) => connecting.clone(),
                None => current.insert(connect::start(self.inner.target.clone())).clone(),
            }
        };
        connecting.await
    }
}

/// Under way, or there and open.
fn is_usable(connecting: &Connecting) -> bool {
    match connecting.peek() {
        None => true,
        Some(Ok(sender)) => !sender.is_closed(),
        Some(Err(_)) => false,
    }
}

impl fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Client")
            .field("authority", &self.authority())
            .finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<Request<B>> for Http2Client
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = ClientError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let client = self.clone();
        async move { client.send(request).await }.boxed()
    }
}
