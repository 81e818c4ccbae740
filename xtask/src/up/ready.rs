//! Asks a proxy whether a request would succeed.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// A proxy on this machine answers at once or is not ready.
const LIMIT: Duration = Duration::from_secs(2);
/// Room for a status line and a short reason.
const MAX_ANSWER: u64 = 16 * 1024;

/// What `GET /readyz` said.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Readiness {
    Ready,
    /// With the reason that the proxy gave, or why there is none.
    NotYet(String),
}

/// Asks the proxy on `port` once.
pub(super) fn ask(port: u16) -> Readiness {
    match get(port) {
        Ok(answer) => readiness(&answer),
        Err(error) => Readiness::NotYet(error.to_string()),
    }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn readiness(answer: &str) -> Readiness {
    if answer.split(' ').nth(1) == Some("200") {
        return Readiness::Ready;
    }
    let reason = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    Readiness::NotYet(if reason.is_empty() {
        answer.lines().next().unwrap_or("no answer").to_owned()
    } else {
        reason.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn only_200_is_ready() {
        assert_eq!(readiness("HTTP/1.1 200 OK\r\n\r\nok"), Readiness::Ready);
        assert_eq!(
            readiness("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\nno key\r\n"),
            Readiness::NotYet("no key".to_owned())
        );
        assert_eq!(
            readiness("HTTP/1.1 404 Not Found\r\n\r\n"),
            Readiness::NotYet("HTTP/1.1 404 Not Found".to_owned())
        );
        assert_eq!(readiness(""), Readiness::NotYet("no answer".to_owned()));
    }

    #[test]
    fn a_server_is_asked_over_http() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 20];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            request
        });
        // The server may close before all of the request is read, which a client can see as a reset.
        ask(port);
        assert_eq!(&server.join().unwrap(), b"GET /readyz HTTP/1.1");
        assert!(matches!(ask(port), Readiness::NotYet(_)), "nobody listens any more");
    }
}
