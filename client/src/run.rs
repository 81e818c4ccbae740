//! Puts the proxy together from its configuration, and runs it.

use crate::clock;
use crate::config::ProxyConfig;
use crate::failure::{Code, Failure};
use crate::files::{self, FileError};
use crate::proxy::{self, ApiKeys, KeyFileError, ServeError, Surface};
use crate::receipts::ReceiptStore;
use crate::relying::{
    HttpUpstream, MAX_TOKEN_BYTES, MemberFiles, RelyingParty, Settings, TokenError, TokenSource, Trust, Watched,
    parse_token,
};
use cloister_attestation::policy::MAX_POLICY_LEN;
use cloister_attestation::{AppraisalPolicy, PolicyError, UnixTime};
use cloister_session::policy::{MAX_SIGNED_POLICY, SignedPolicy, SignedPolicyError};
use cloister_transport::{ClientError, ClientLimits, Http2Client, TlsError, client_config};
use http::HeaderValue;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The proxy cannot be started, or stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A part of the configuration cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The address cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A part of the configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file is unreadable, or open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// The policy is none.
    #[error("{path}: {source}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PolicyError,
    },
    /// The policy is not one that the tenant's root signed.
    #[error("{path}: {source}")]
    SignedPolicy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SignedPolicyError,
    },
    /// The policy is not text.
    #[error("{0}: not UTF-8 text")]
    NotText(PathBuf),
    /// The token file is none.
    #[error("{path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TokenError,
    },
    /// The key file is none.
    #[error(transparent)]
    ApiKeys(#[from] KeyFileError),
    /// The certificate authority cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The endpoint cannot be used.
    #[error(transparent)]
    Endpoint(#[from] ClientError),
}

/// Serves the proxy until `stop` resolves. `listening` gets the address once connections are accepted, which is before
/// the first enclave is attested: `/readyz` tells when requests will succeed.
///
/// # Errors
///
/// See [`RunError`]. A missing or expired credential is no error: it may come later.
pub async fn run<S>(config: &ProxyConfig, stop: S, listening: impl FnOnce(std::net::SocketAddr)) -> Result<(), RunError>
where
    S: Future<Output = ()> + Send + 'static,
{
    let party = Arc::new(relying_party(config)?);
    let api_keys = config
        .api_keys
        .as_deref()
        .map(ApiKeys::load)
        .transpose()
        .map_err(SetupError::from)?;
    let surface = Surface {
        backend: party.clone(),
        models: config.models.keys().cloned().collect(),
        api_keys,
        retry: config.retries,
        max_in_flight: config.max_in_flight,
    };
    let listener = proxy::bind(config.listen).await?;
    if let Ok(address) = listener.local_addr() {
        listening(address);
    }
    tokio::select! {
        served = proxy::serve(listener, proxy::router(surface), stop) => Ok(served?),
        () = party.maintain() => Ok(()),
    }
}

/// The backend of the proxy.
///
/// # Errors
///
/// See [`SetupError`].
pub fn relying_party(config: &ProxyConfig) -> Result<RelyingParty, SetupError> {
    let policy = trusted_policy(config, clock::now())?;
    if policy.danger.simulated_tee.is_some() {
        tracing::warn!(
            "the policy accepts a SIMULATED TEE: prompts are NOT protected from whoever runs the enclave's machine"
        );
    }
    let receipts = config
        .receipts
        .as_deref()
        .map(ReceiptStore::open)
        .transpose()?
        .map(Arc::new);
    let settings = Settings {
        models: config.models.clone(),
        candidates: config.candidates,
        // The configuration keeps it within 1 to 120.
        ttl: u32::try_from(config.timeouts.queue.as_secs()).unwrap_or(1),
        receipts,
        clock: clock::system(),
    };
    let upstream = Arc::new(upstream(config)?);
    Ok(RelyingParty::new(
        upstream,
        member_files(config),
        Trust::new(policy, config.collateral.clone()),
        settings,
    ))
}

/// The member's files, not yet read.
pub fn member_files(config: &ProxyConfig) -> MemberFiles {
    let (credential, key) = (config.credential.clone(), config.member_key.clone());
    MemberFiles::new(credential, key, config.cluster_id.clone(), clock::system())
}

/// The scheduler, not yet connected to.
///
/// # Errors
///
/// The certificate authority, the endpoint or the token file cannot be used.
pub fn upstream(config: &ProxyConfig) -> Result<HttpUpstream, SetupError> {
    let tls = client_config(&config.ca, None)?;
    let limits = ClientLimits {
        connect_timeout: config.timeouts.connect,
        ..ClientLimits::default()
    };
    let client = Http2Client::new(&config.endpoint, &tls, limits)?;
    outer_token(&config.outer_token)?;
    Ok(HttpUpstream::new(
        client,
        token_source(config.outer_token.clone()),
        config.timeouts,
    ))
}

/// The token, read again when its file changes.
fn token_source(path: PathBuf) -> TokenSource {
    let watched = Watched::<HeaderValue>::new(vec![path.clone()]);
    Box::new(move || {
        let token = watched.get(|| outer_token(&path), |_| true);
        token
            .map(|token| (*token).clone())
            .map_err(|error| Failure::new(Code::OuterTokenRefused, error.to_string()))
    })
}

/// The header that the token file makes.
///
/// # Errors
///
/// The file is unreadable, open to others, or holds no token.
pub fn outer_token(path: &Path) -> Result<HeaderValue, SetupError> {
    let content = files::read_secret(path, MAX_TOKEN_BYTES.saturating_add(2))?;
    parse_token(&content).map_err(|source| SetupError::Token {
        path: path.to_owned(),
        source,
    })
}

/// The policy that the configuration names: this machine's own, or one that the tenant's root signed.
///
/// # Errors
///
/// The file is unreadable or holds no policy, or `policyRoot` is set and that root did not sign it for now.
pub fn trusted_policy(config: &ProxyConfig, now: UnixTime) -> Result<AppraisalPolicy, SetupError> {
    let path = &config.policy;
    let Some(root) = &config.policy_root else {
        return policy(path);
    };
    let bytes = files::read_public(path, MAX_SIGNED_POLICY)?;
    let signed = SignedPolicy::parse(&bytes).map_err(|_| SignedPolicyError::Malformed);
    signed
        .and_then(|signed| signed.verify(root, now))
        .map_err(|source| SetupError::SignedPolicy {
            path: path.to_owned(),
            source,
        })
}

/// A policy as YAML.
///
/// # Errors
///
/// The file is unreadable or holds no policy.
pub fn policy(path: &Path) -> Result<AppraisalPolicy, SetupError> {
    let bytes = files::read_public(path, MAX_POLICY_LEN)?;
    let text = String::from_utf8(bytes).map_err(|_| SetupError::NotText(path.to_owned()))?;
    AppraisalPolicy::from_yaml(&text).map_err(|source| SetupError::Policy {
        path: path.to_owned(),
        source,
    })
}
