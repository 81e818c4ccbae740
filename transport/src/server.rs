//! The listening side: accept, handshake, serve, drain.

mod connection;
mod listener;

use std::{collections::VecDeque, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use rustls_pki_types::CertificateDer;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::tls::ServerTls;

use self::listener::{Accept, accept};

/// What a server allows its peers. The memory that peers can make it hold is at most `max_connections` x
/// (`connection_window` + `max_concurrent_streams` x (`max_send_buffer` + `max_header_list_size`)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections after their handshake; more are closed.
    pub max_connections: usize,
    /// Handshakes under way; one more ends the oldest of them, so that peers who do not go on cannot keep others out.
    pub max_handshakes: usize,
    /// Requests at once on a connection; more wait at the client.
    pub max_concurrent_streams: u32,
    /// Bytes of a request's body that arrive before the handler reads any.
    pub initial_stream_window: u32,
    /// Bytes of all request bodies of a connection that arrive before handlers read them. Below `max_concurrent_streams`
    /// x `initial_stream_window`, requests that are not read hold up others of the same connection.
    pub connection_window: u32,
    /// Bytes of a response that are buffered for a peer that does not read; then its body is not polled.
    pub max_send_buffer: usize,
    /// Cap on the headers of a request, bytes as HTTP/2 counts them (32 more per field).
    pub max_header_list_size: u32,
    /// Time for the TLS handshake; also how long a connection that is told to leave for idleness has to do so.
    pub handshake_timeout: Duration,
    /// A peer from which nothing came for this long is pinged.
    pub keepalive_interval: Duration,
    /// A peer that does not answer the ping for this long is dropped.
    pub keepalive_timeout: Duration,
    /// A connection without a request for this long is told to leave.
    pub idle_timeout: Duration,
    /// After the shutdown signal, requests under way have this long to finish.
    pub drain_deadline: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        let max_concurrent_streams = 128;
        let initial_stream_window = 64 * 1024;
        ServeLimits {
            max_connections: 1024,
            max_handshakes: 256,
            max_concurrent_streams,
            initial_stream_window,
            connection_window: max_concurrent_streams * initial_stream_window,
            max_send_buffer: 64 * 1024,
            max_header_list_size: 16 * 1024,
            handshake_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            drain_deadline: Duration::from_secs(30),
        }
    }
}

/// The other end of a connection, an extension of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its socket.
    pub address: SocketAddr,
    /// Its certificate, checked in the handshake; `None` where none is asked for.
    pub certificate: Option<CertificateDer<'static>>,
}

/// How [`serve`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every request that was under way finished.
    Drained,
    /// The drain deadline passed, and this many connections were cut.
    Cut {
        /// Connections that still had requests.
        connections: usize,
    },
}

/// Serves `app` over TLS and HTTP/2 until `shutdown` resolves, then drains: no connection is accepted any more, peers are
/// sent GOAWAY, requests under way may finish until `limits.drain_deadline`, and what is left is cut.
///
/// Never ends by itself: errors of accepting (out of descriptors, say) are logged and waited out, errors of a
/// connection end that connection. Requests carry a [`Peer`] extension. gRPC services join by
/// `tonic::service::Routes::into_axum_router()` and `Router::merge`.
pub async fn serve(
    listener: TcpListener,
    tls: ServerTls,
    app: axum::Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()>,
) -> Stopped {
    serve_on(listener, tls, app, limits, shutdown).await
}

async fn serve_on<L: Accept>(
    mut listener: L,
    tls: ServerTls,
    app: axum::Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()>,
) -> Stopped {
    let server = Arc::new(Server {
        tls: TlsAcceptor::from(tls.0),
        app,
        places: Arc::new(Semaphore::new(limits.max_connections)),
        drain: CancellationToken::new(),
        cut: CancellationToken::new(),
        limits,
    });
    let tasks = TaskTracker::new();
    let mut handshakes = Handshakes::default();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, address) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&mut listener) => accepted,
        };
        let evicted = handshakes.admit(server.limits.max_handshakes);
        tasks.spawn(connection::run(Arc::clone(&server), stream, address, evicted));
    }
    drop(listener);
    server.drain(&tasks).await
}

/// What all connections of a server share.
struct Server {
    tls: TlsAcceptor,
    app: axum::Router,
    limits: ServeLimits,
    places: Arc<Semaphore>,
    /// Finish what is under way.
    drain: CancellationToken,
    /// Stop at once.
    cut: CancellationToken,
}

/// The handshakes under way, oldest first. A sender whose receiver is gone belongs to one that ended.
#[derive(Default)]
struct Handshakes(VecDeque<oneshot::Sender<()>>);

// === impl Handshakes ===

impl Handshakes {
    /// Makes room for a handshake; what is returned resolves when the handshake must make room for a later one.
    fn admit(&mut self, max: usize) -> oneshot::Receiver<()> {
        if self.0.len() >= max {
            self.0.retain(|handshake| !handshake.is_closed());
        }
        if self.0.len() >= max && self.0.pop_front().is_some() {
            tracing::debug!("too many handshakes under way, ended the oldest");
        }
        let (handshake, evicted) = oneshot::channel();
        self.0.push_back(handshake);
        evicted
    }
}

// === impl Server ===

impl Server {
    async fn drain(&self, tasks: &TaskTracker) -> Stopped {
        tasks.close();
        self.drain.cancel();
        if tokio::time::timeout(self.limits.drain_deadline, tasks.wait())
            .await
            .is_ok()
        {
            return Stopped::Drained;
        }
        let connections = tasks.len();
        tracing::warn!(connections, "the drain deadline passed, cutting connections");
        self.cut.cancel();
        tasks.wait().await;
        Stopped::Cut { connections }
    }
}
