//! One connection: handshake, requests, leave.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::http2::Builder,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
};
use tokio_rustls::server::TlsStream;
use tower_service::Service as _;

use super::{Peer, ServeLimits, Server};
use crate::{frames, tls::ALPN_H2};

/// Runs a connection to its end. `evicted` resolves when the handshake must make room for another.
pub(super) async fn run<S>(server: Arc<Server>, stream: S, address: SocketAddr, evicted: oneshot::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(stream) = handshake(&server, stream, evicted).await else {
        return;
    };
    let Ok(_place) = Arc::clone(&server.places).try_acquire_owned() else {
        tracing::warn!(
            limit = server.limits.max_connections,
            "closed a connection above the limit"
        );
        return;
    };
    let peer = Peer {
        address,
        certificate: stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first().cloned()),
    };
    drive(&server, stream, peer).await;
}

/// The TLS handshake, or `None` when the connection ends with it.
async fn handshake<S>(server: &Server, stream: S, evicted: oneshot::Receiver<()>) -> Option<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = tokio::time::timeout(server.limits.handshake_timeout, server.tls.accept(stream));
    let finished = tokio::select! {
        biased;
        // A connection without requests has nothing to drain.
        () = server.drain.cancelled() => return None,
        _ = evicted => return None,
        finished = handshake => finished,
    };
    let stream = match finished {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            return None;
        }
    };
    // A client that names no protocol at all passes rustls' own check.
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        tracing::debug!("a client did not negotiate HTTP/2");
        return None;
    }
    Some(stream)
}

/// Serves requests until the peer leaves, is idle for too long, or the server stops.
async fn drive<S>(server: &Server, stream: TlsStream<S>, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = &server.limits;
    let active = Arc::new(watch::Sender::new(0_usize));
    let idle = idle(active.subscribe(), limits.idle_timeout);
    let service = requests(server.app.clone(), peer, active);
    let connection = builder(limits).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let told_to_leave = tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = server.drain.cancelled() => false,
        () = idle => true,
    };
    connection.as_mut().graceful_shutdown();
    // Whoever drains waits for requests as long as the server lets it; whoever idles has none to wait for.
    let linger = async {
        if told_to_leave {
            tokio::time::sleep(limits.handshake_timeout).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = connection => log_end(ended),
        () = linger => {}
        () = server.cut.cancelled() => {}
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

fn builder(limits: &ServeLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(limits.initial_stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_send_buf_size(limits.max_send_buffer)
        .max_header_list_size(limits.max_header_list_size)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// Resolves when no request has been under way for `timeout`.
async fn idle(mut active: watch::Receiver<usize>, timeout: Duration) {
    loop {
        if active.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        if tokio::time::timeout(timeout, active.changed()).await.is_err() {
            return;
        }
    }
}

/// The router as hyper's service, with the peer on each request and each request counted.
fn requests(
    app: axum::Router,
    peer: Peer,
    active: Arc<watch::Sender<usize>>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Counted>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Counted>, Infallible>> + Send + 'static,
> {
    service_fn(move |request: Request<Incoming>| {
        let guard = Active::new(&active);
        let mut app = app.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        async move {
            // A router is always ready.
            let response = app.call(request).await?;
            Ok(response.map(|inner| Counted { inner, _guard: guard }))
        }
    })
}

/// Counts a request from its headers to the end of its response.
struct Active(Arc<watch::Sender<usize>>);

// === impl Active ===

impl Active {
    fn new(active: &Arc<watch::Sender<usize>>) -> Self {
        active.send_modify(|count| *count = count.saturating_add(1));
        Active(Arc::clone(active))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// A response's body that keeps its request counted.
struct Counted {
    inner: Body,
    _guard: Active,
}

// === impl Counted ===

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        frames::poll_filled(Pin::new(&mut self.inner), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_is_not_idleness() {
        let active = Arc::new(watch::Sender::new(0));
        let mut expired = std::pin::pin!(idle(active.subscribe(), IDLE));
        let first = Active::new(&active);
        let second = Active::new(&active);
        assert!(timeout(100 * IDLE, &mut expired).await.is_err());
        drop(first);
        assert!(timeout(100 * IDLE, &mut expired).await.is_err());
        drop(second);
        let begin = Instant::now();
        expired.await;
        assert_eq!(begin.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_begins_the_idle_time_anew() {
        let active = Arc::new(watch::Sender::new(0));
        let mut expired = std::pin::pin!(idle(active.subscribe(), IDLE));
        for _ in 0..3 {
            assert!(timeout(IDLE / 2, &mut expired).await.is_err());
            drop(Active::new(&active));
        }
        let begin = Instant::now();
        expired.await;
        assert_eq!(begin.elapsed(), IDLE);
    }
}
