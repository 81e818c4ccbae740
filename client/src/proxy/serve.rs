//! The listener.

use axum::Router;
use axum::serve::ListenerExt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// Time that calls in flight have to end after the signal to stop.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// The surface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is not a loopback address.
    #[error(
        "listen: {0} is not a loopback address: prompts cross this connection in the clear, so it must not leave the machine"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be bound.
    #[error("listen: cannot bind {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Accepting failed.
    #[error("the listener failed: {0}")]
    Accept(#[source] std::io::Error),
}

/// Binds a loopback address.
///
/// # Errors
///
/// The address is not a loopback address, or is taken.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })
}

/// Serves until `stop` resolves, and a little longer for calls in flight.
///
/// # Errors
///
/// Accepting connections failed.
pub async fn serve<S>(listener: TcpListener, router: Router, stop: S) -> Result<(), ServeError>
where
    S: Future<Output = ()> + Send + 'static,
{
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    // Tokens are small writes that must not wait for one another. Without it they are only later.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        let _ = stopping.send(true);
    });
    let deadline = async move {
        if stopped.wait_for(|stopping| *stopping).await.is_ok() {
            tokio::time::sleep(STOP_WITHIN).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = server => served.map_err(ServeError::Accept),
        () = deadline => Ok(()),
    }
}
