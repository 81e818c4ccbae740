//! A throw-away authority, a server and clients of it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::Router;
use bytes::Bytes;
use cloister_transport::{
    ClientAuth, ClientLimits, ClientTls, Http2Client, ServeLimits, Stopped, TlsFiles, client_config,
    pki::{self, Existing, Usage},
    serve, server_config,
};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// A directory with an authority, a server's certificate and a client's.
pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::create(dir.path(), Existing::Keep).unwrap();
        let authority = Authority(dir);
        authority.issue("server", &["localhost", "127.0.0.1"], Usage::Server);
        authority.issue("client", &[], Usage::Client);
        authority
    }

    pub fn issue(&self, name: &str, subjects: &[&str], usage: Usage) {
        pki::issue(self.0.path(), name, subjects, usage, Existing::Keep).unwrap();
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.path("ca.pem"),
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        }
    }

    /// A client's configuration with the named certificate.
    pub fn client(&self, name: &str) -> ClientTls {
        let files = self.files(name);
        client_config(&files.ca, Some((&files.certificate, &files.key))).unwrap()
    }

    /// A client's configuration without a certificate.
    pub fn anonymous(&self) -> ClientTls {
        client_config(&self.path("ca.pem"), None).unwrap()
    }

    pub fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.path(&format!("{name}.pem")))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    }

    pub fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap()
    }

    pub fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in self.chain("ca") {
            roots.add(certificate).unwrap();
        }
        Arc::new(roots)
    }

    /// Serves `app` to clients with certificates.
    pub async fn serve(&self, app: Router, limits: ServeLimits) -> Running {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        self.serve_on(listener, app, limits, ClientAuth::Required)
    }

    pub fn serve_on(&self, listener: TcpListener, app: Router, limits: ServeLimits, clients: ClientAuth) -> Running {
        let address = listener.local_addr().unwrap();
        let tls = server_config(&self.files("server"), clients).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, tls, app, limits, async {
            stopped.await.ok();
        }));
        Running { address, stop, task }
    }
}

/// A server under way.
pub struct Running {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Stopped>,
}

impl Running {
    /// Tells the server to stop; what is returned is its end.
    pub fn stop(self) -> JoinHandle<Stopped> {
        self.stop.send(()).unwrap();
        self.task
    }

    pub fn client(&self, tls: &ClientTls) -> Http2Client {
        self.client_with(tls, ClientLimits::default())
    }

    pub fn client_with(&self, tls: &ClientTls, limits: ClientLimits) -> Http2Client {
        Http2Client::new(&address(self.address), tls, limits).unwrap()
    }
}

pub fn address(address: SocketAddr) -> Uri {
    format!("https://{address}").parse().unwrap()
}

pub fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

/// Sends a GET and reads the answer as text.
pub async fn text(client: &Http2Client, path: &str) -> String {
    let response = client.send(get(path)).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Resolves the receiver when it is dropped.
pub struct Watched(Option<oneshot::Sender<()>>);

impl Watched {
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Watched(Some(sender)), receiver)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            sender.send(()).ok();
        }
    }
}
