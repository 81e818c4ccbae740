//! Accepting connections, through errors.

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// Pause after an error that is not one connection's own: descriptors or memory ran out, and connections that end
/// give some back.
const PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(super) trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // Tokens are small writes that must not wait for one another.
        stream.set_nodelay(true)?;
        Ok((stream, address))
    }
}

/// The next connection, however many errors come before it.
pub(super) async fn accept<L: Accept>(listener: &mut L) -> (L::Stream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again; raise the limit of open files if it is reached");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::NotConnected
            | ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::DuplexStream;

    use super::*;

    struct Scripted(VecDeque<io::Result<()>>);

    impl Accept for Scripted {
        type Stream = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
            match self.0.pop_front() {
                Some(Err(error)) => Err(error),
                Some(Ok(())) => Ok((tokio::io::duplex(1).0, ([127, 0, 0, 1], 7).into())),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_do_not_end_accepting() {
        const EMFILE: i32 = 24;
        let errors = [
            ErrorKind::ConnectionAborted.into(),
            io::Error::from_raw_os_error(EMFILE),
            ErrorKind::ConnectionReset.into(),
            io::Error::from_raw_os_error(EMFILE),
        ];
        let mut listener = Scripted(errors.into_iter().map(Err).collect());
        listener.0.push_back(Ok(()));
        let before = tokio::time::Instant::now();
        let (_, address) = accept(&mut listener).await;
        assert_eq!(address.port(), 7);
        // Only what is not one connection's own is waited out.
        assert_eq!(before.elapsed(), 2 * PAUSE);
    }
}
