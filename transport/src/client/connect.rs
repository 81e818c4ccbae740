//! Making the connection of a client.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Shared},
};
use http::{
    Uri,
    uri::{Authority, Scheme},
};
use hyper::client::conn::http2::{Builder, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use super::{ClientLimits, RequestBody, Sender};
use crate::tls::{ALPN_H2, ClientTls};

/// Port of an address that names none.
const HTTPS_PORT: u16 = 443;

/// One attempt, shared by all who wait for it; its result stays with it.
pub(super) type Connecting = Shared<BoxFuture<'static, Result<Sender, ConnectError>>>;

/// Why there is no connection. No request was sent on it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot connect to {authority}: {reason}")]
pub struct ConnectError {
    authority: Authority,
    reason: Reason,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Reason {
    #[error("{0}; check that the server runs there")]
    Tcp(Arc<io::Error>),
    #[error("TLS: {0}; check both sides' certificate authority, names and validity")]
    Tls(Arc<io::Error>),
    #[error("the server does not speak HTTP/2 here; check the port")]
    Protocol,
    #[error("the server closed the connection at once ({0}); check that it accepts this client's certificate")]
    Rejected(Arc<str>),
    #[error("no answer in time; check the address and the network")]
    TimedOut,
    #[error("the attempt was given up")]
    Abandoned,
}

/// A server and how to reach it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) authority: Authority,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    limits: ClientLimits,
}

// === impl Target ===

impl Target {
    /// `None` when the address is not `https://host[:port]`.
    pub(super) fn new(address: &Uri, tls: &ClientTls, limits: ClientLimits) -> Option<Self> {
        let authority = address.authority()?.clone();
        let path = address.path_and_query().map_or("/", |path| path.as_str());
        let plain = address.scheme() == Some(&Scheme::HTTPS) && path == "/" && !authority.as_str().contains('@');
        if !plain {
            return None;
        }
        let host = unbracketed(authority.host()).to_owned();
        Some(Target {
            name: ServerName::try_from(host.clone()).ok()?,
            port: authority.port_u16().unwrap_or(HTTPS_PORT),
            authority,
            host,
            tls: TlsConnector::from(Arc::clone(&tls.0)),
            limits,
        })
    }

    /// Whether an authority names this server.
    pub(super) fn is_at(&self, authority: &Authority) -> bool {
        !authority.as_str().contains('@')
            && unbracketed(authority.host()).eq_ignore_ascii_case(&self.host)
            && authority.port_u16().unwrap_or(HTTPS_PORT) == self.port
    }

    fn error(&self, reason: Reason) -> ConnectError {
        ConnectError {
            authority: self.authority.clone(),
            reason,
        }
    }
}

/// Sockets and certificates name IPv6 addresses without the brackets of a URI.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// Starts an attempt in a task of its own: whoever asked first may stop waiting without ending it for the others.
pub(super) fn start(target: Target) -> Connecting {
    let abandoned = target.error(Reason::Abandoned);
    let limit = target.limits.connect_timeout;
    let attempt = async move {
        let late = target.error(Reason::TimedOut);
        tokio::time::timeout(limit, connect(target)).await.unwrap_or(Err(late))
    };
    tokio::spawn(attempt)
        .unwrap_or_else(move |_| Err(abandoned))
        .boxed()
        .shared()
}

async fn connect(target: Target) -> Result<Sender, ConnectError> {
    let tcp = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|error| target.error(Reason::Tcp(Arc::new(error))))?;
    let tls = target
        .tls
        .connect(target.name.clone(), tcp)
        .await
        .map_err(|error| target.error(Reason::Tls(Arc::new(error))))?;
    if tls.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err(target.error(Reason::Protocol));
    }
    let (spoke, first_word) = oneshot::channel();
    let stream = Announced {
        stream: tls,
        spoke: Some(spoke),
    };
    let (sender, connection) = builder(&target.limits)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| target.error(Reason::Rejected(error.to_string().into())))?;
    usable(&target, connection, first_word).await?;
    Ok(sender)
}

/// Runs the connection, and waits until the server has said something on it.
///
/// In TLS 1.3 a client finishes before the server has looked at its certificate. Without the wait the first request
/// would be sent into a connection that may be refused, and nobody could tell whether it had been processed.
async fn usable(
    target: &Target,
    connection: Connection<TokioIo<Announced>, RequestBody, TokioExecutor>,
    first_word: oneshot::Receiver<()>,
) -> Result<(), ConnectError> {
    let (ended, end) = oneshot::channel();
    let running = AbortOnDropHandle::new(tokio::spawn(async move {
        let result = connection.await;
        if let Err(error) = &result {
            tracing::debug!(%error, "a client connection ended with an error");
        }
        // Nobody waits for it any more once the connection has been usable.
        ended.send(result).ok();
    }));
    tokio::select! {
        biased;
        Ok(()) = first_word => {
            running.detach();
            Ok(())
        }
        end = end => Err(target.error(Reason::Rejected(match end {
            Ok(Err(error)) => chain(&error).into(),
            _ => "closed".into(),
        }))),
    }
}

/// hyper's message alone does not hold the TLS alert.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn builder(limits: &ClientLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(limits.initial_stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buf_size(limits.max_send_buffer)
        .max_header_list_size(limits.max_header_list_size)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// A stream that tells when the peer's first byte of application data was read.
struct Announced {
    stream: TlsStream<TcpStream>,
    spoke: Option<oneshot::Sender<()>>,
}

// === impl Announced ===

impl AsyncRead for Announced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before
            && let Some(spoke) = self.spoke.take()
        {
            // The attempt may have run out of time.
            spoke.send(()).ok();
        }
        read
    }
}

impl AsyncWrite for Announced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
