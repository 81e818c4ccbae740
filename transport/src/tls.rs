//! TLS configurations: 1.3 only, ALPN `h2` only, full handshakes only.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};

use crate::{
    crypto,
    pem::{self, PemError},
};

/// The only application protocol that is negotiated.
pub(crate) const ALPN_H2: &[u8] = b"h2";

/// Where a component finds its certificate authority, its certificate and its key: the `tls` section of every
/// configuration file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM of the authorities whose certificates are accepted from peers.
    pub ca: PathBuf,
    /// PEM of this component's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM of the key of `certificate`; only its owner may be able to read it.
    pub key: PathBuf,
}

/// Whether a server asks for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients must show a certificate for client authentication that the authority issued; others are refused in
    /// the handshake.
    Required,
    /// Clients are not asked; something above TLS must authenticate them.
    None,
}

/// A server's TLS configuration, made by [`server_config`] only.
#[derive(Clone, Debug)]
pub struct ServerTls(pub(crate) Arc<ServerConfig>);

/// A client's TLS configuration, made by [`client_config`] only.
#[derive(Clone, Debug)]
pub struct ClientTls(pub(crate) Arc<ClientConfig>);

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, exposed or malformed.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate of the authority file cannot be a trust anchor.
    #[error("certificate authority {path} holds a certificate that cannot be an authority: {source}; give the PEM of the authority", path = .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why it was refused.
        source: rustls::Error,
    },
    /// The certificate and the key do not belong together, or their algorithm is not supported.
    #[error("certificate {certificate} cannot be used with key {key}: {source}; issue both together", certificate = .certificate.display(), key = .key.display())]
    Identity {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Why they were refused.
        source: rustls::Error,
    },
    /// The verifier of client certificates cannot be built.
    #[error("client certificates cannot be checked against {path}: {source}", path = .path.display())]
    ClientVerifier {
        /// The authority file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// The provider cannot do TLS 1.3: a build without it.
    #[error("the cryptographic provider cannot do TLS 1.3: {0}; rebuild with the aws_lc_rs feature of rustls")]
    Provider(rustls::Error),
}

/// A server's configuration from its files.
///
/// With [`ClientAuth::Required`] the certificates of clients are checked against `files.ca`, at every handshake anew.
/// There is no revocation: certificates are meant to be short-lived.
///
/// # Errors
///
/// When a file cannot be read, is malformed, the key is reachable by other users, or key and certificate do not match.
pub fn server_config(files: &TlsFiles, clients: ClientAuth) -> Result<ServerTls, TlsError> {
    let provider = crypto::shared_provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Provider)?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Required => {
            let roots = Arc::new(roots(&files.ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|source| TlsError::ClientVerifier {
                    path: files.ca.clone(),
                    source,
                })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = pem::certificates("certificate", &files.certificate)?;
    let key = pem::private_key(&files.key)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|source| identity_error(&files.certificate, &files.key, source))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed session would skip the check of the client's certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(ServerTls(Arc::new(config)))
}

/// A client's configuration: the authorities it accepts servers from, and its own certificate and key files for servers
/// that require one. The machine's own trust store is not consulted.
///
/// # Errors
///
/// As [`server_config`].
pub fn client_config(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<ClientTls, TlsError> {
    let builder = ClientConfig::builder_with_provider(crypto::shared_provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Provider)?
        .with_root_certificates(roots(ca)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(pem::certificates("certificate", certificate)?, pem::private_key(key)?)
            .map_err(|source| identity_error(certificate, key, source))?,
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(ClientTls(Arc::new(config)))
}

fn roots(ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in pem::certificates("certificate authority", ca)? {
        store.add(certificate).map_err(|source| TlsError::Authority {
            path: ca.to_owned(),
            source,
        })?;
    }
    Ok(store)
}

fn identity_error(certificate: &Path, key: &Path, source: rustls::Error) -> TlsError {
    TlsError::Identity {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    }
}
