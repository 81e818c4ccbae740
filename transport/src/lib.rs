//! HTTP/2 over TLS between components.
//!
//! One way to listen ([`serve`]), one way to call ([`Http2Client`]), and a throw-away certificate authority ([`pki`])
//! for installations that have none. TLS 1.3 only, ALPN `h2` only, no session resumption and no early data: a
//! connection is always the result of a full handshake in which every certificate that is required was checked.
//!
//! # Guarantees
//!
//! - Flow control is end to end: a handler that does not read holds its peer at one stream window.
//! - Dropping a response, or the future that waits for it, resets the stream; the other side sees it end.
//! - A request is never sent twice unless its first attempt provably never reached the peer's application.

mod client;
mod crypto;
mod frames;
mod pem;
pub mod pki;
mod server;
mod tls;

pub use client::{ClientError, ClientLimits, ConnectError, Http2Client, ResponseBody, ResponseFuture};
pub use crypto::install_crypto;
pub use pem::PemError;
pub use server::{Peer, ServeLimits, Stopped, serve};
pub use tls::{ClientAuth, ClientTls, ServerTls, TlsError, TlsFiles, client_config, server_config};
