//! A throw-away certificate authority, for trials, tests and installations that have none of their own.
//!
//! It is a key in a file: whoever reads `ca.key` can be any component. Certificates last [`VALIDITY`] and nothing renews
//! or revokes them. It protects the connections between components, never the sealed requests inside them.
//!
//! Files of a directory: `ca.pem`, `ca.key`, and for each certificate `<name>.pem` and `<name>.key`. Keys are ECDSA P-256
//! in PKCS#8 and are never readable by other users, not even while they are written.

mod files;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use self::files::{Names, write_certificate, write_key};
use crate::{
    crypto,
    pem::{self, PemError},
};

/// How long certificates last, the authority's own included.
pub const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// [`Existing::Keep`] keeps what will still be good in this time.
pub const RENEW_BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Certificates begin to be good this long before they are made, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// What every certificate says of its issuer.
const CA_NAME: &str = "Cloister throw-away CA, for trials and tests only";
/// Name of the authority's own files.
const CA: &str = "ca";

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Being called.
    Server,
    /// Calling.
    Client,
    /// Both.
    ServerAndClient,
}

/// What to do with files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Keep what is good for at least [`RENEW_BEFORE`] and for what is asked; repeating a call changes nothing.
    Keep,
    /// Make anew. A new authority makes all certificates of the old one useless.
    Replace,
}

/// Whether files were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are new.
    Created,
    /// Those that were there are good.
    Kept,
}

/// Why a certificate cannot be made. Never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A name that is not a plain file name.
    #[error(
        "{0:?} cannot name a certificate: use 1 to 63 of a-z, 0-9, '-' and '.', beginning with a letter or digit, and not \"ca\""
    )]
    Name(String),
    /// A subject name that is neither a DNS name nor an IP address, or none at all for a server.
    #[error("{0:?} cannot be a subject name: give DNS names or IP addresses, a server at least one")]
    SubjectName(String),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; check the directory", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the directory cannot be used.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The authority's files are not a pair that is still good.
    #[error("the authority in {dir} cannot issue: {reason}; replace it, and every certificate it issued", dir = .dir.display())]
    Authority {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Signing failed.
    #[error("cannot make a certificate: {0}")]
    Sign(#[from] rcgen::Error),
}

/// Makes the authority of `dir`, and `dir` itself if need be (mode 0700).
///
/// # Errors
///
/// When files cannot be written, or with [`Existing::Keep`] when an authority is there that is not good any more: it is
/// never replaced unasked.
pub fn create(dir: &Path, existing: Existing) -> Result<Outcome, PkiError> {
    let names = Names::new(dir, CA);
    if existing == Existing::Keep && names.certificate.exists() {
        Authority::open(dir)?;
        return Ok(Outcome::Kept);
    }
    files::make_dir(dir)?;
    let key = new_key()?;
    let certificate = ca_params().self_signed(&*key)?;
    write_key(&names.key, &Zeroizing::new(key.serialize_pem()))?;
    write_certificate(&names.certificate, &certificate.pem())?;
    Ok(Outcome::Created)
}

/// Issues `<name>.pem` and `<name>.key` from the authority of `dir`, for `subjects` (DNS names and IP addresses).
///
/// # Errors
///
/// When the directory has no authority that is still good, a name is malformed, or files cannot be written.
pub fn issue<S: AsRef<str>>(
    dir: &Path,
    name: &str,
    subjects: &[S],
    usage: Usage,
    existing: Existing,
) -> Result<Outcome, PkiError> {
    let subjects = subjects.iter().map(S::as_ref).collect::<Vec<_>>();
    if !is_plain(name) {
        return Err(PkiError::Name(name.to_owned()));
    }
    let wanted = Wanted::new(&subjects, usage)?;
    let authority = Authority::open(dir)?;
    let names = Names::new(dir, name);
    if existing == Existing::Keep && names.both_exist() && authority.is_good(&names, &wanted) {
        return Ok(Outcome::Kept);
    }
    let key = new_key()?;
    let certificate = authority.sign(&leaf_params(name, &subjects, usage)?, &key)?;
    write_key(&names.key, &Zeroizing::new(key.serialize_pem()))?;
    write_certificate(&names.certificate, &certificate.pem())?;
    Ok(Outcome::Created)
}

/// The certificate and the key of an authority, checked to belong together and to be good.
struct Authority {
    key: Zeroizing<KeyPair>,
    roots: Arc<RootCertStore>,
}

// === impl Authority ===

impl Authority {
    fn open(dir: &Path) -> Result<Self, PkiError> {
        let names = Names::new(dir, CA);
        let unusable = |reason: String| PkiError::Authority {
            dir: dir.to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        for certificate in pem::certificates("certificate authority", &names.certificate)? {
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let text = pem::read("private key", &names.key, pem::Secret::Yes)?;
        let text = std::str::from_utf8(&text).map_err(|_| unusable("ca.key is not a PEM file".to_owned()))?;
        let key = KeyPair::from_pem(text).map_err(|_| unusable("ca.key holds no supported private key".to_owned()))?;
        let authority = Authority {
            key: Zeroizing::new(key),
            roots: Arc::new(roots),
        };
        // What it would issue now is what others would check.
        let probe_key = new_key()?;
        let probe = authority.sign(&leaf_params("probe", &[], Usage::Client)?, &probe_key)?;
        authority
            .check(probe.der(), &Wanted::client())
            .map_err(|error| unusable(error.to_string()))?;
        Ok(authority)
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Result<rcgen::Certificate, rcgen::Error> {
        // Only the name and the key of the authority go into what it signs, and both are known.
        params.signed_by(key, &Issuer::new(ca_params(), &*self.key))
    }

    /// Whether the files hold a certificate that does what is wanted, and its key.
    fn is_good(&self, names: &Names, wanted: &Wanted) -> bool {
        let Ok(chain) = pem::certificates("certificate", &names.certificate) else {
            return false;
        };
        let Ok(key) = pem::private_key(&names.key) else {
            return false;
        };
        let checked = chain
            .first()
            .is_some_and(|certificate| self.check(certificate, wanted).is_ok());
        checked && rustls::sign::CertifiedKey::from_der(chain, key, &crypto::provider()).is_ok()
    }

    /// Checks a certificate as the peers of its owner will, at the end of [`RENEW_BEFORE`].
    fn check(&self, certificate: &CertificateDer<'_>, wanted: &Wanted) -> Result<(), rustls::Error> {
        let provider = crypto::shared_provider();
        let general = |error: rustls::server::VerifierBuilderError| rustls::Error::General(error.to_string());
        let now = UnixTime::now().as_secs();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now).saturating_add(RENEW_BEFORE));
        if wanted.client {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&provider))
                .build()
                .map_err(general)?
                .verify_client_cert(certificate, &[], at)?;
        }
        if !wanted.server.is_empty() {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider)
                .build()
                .map_err(general)?;
            for name in &wanted.server {
                verifier.verify_server_cert(certificate, &[], name, &[], at)?;
            }
        }
        Ok(())
    }
}

/// What a certificate must be accepted for.
struct Wanted {
    client: bool,
    server: Vec<ServerName<'static>>,
}

// === impl Wanted ===

impl Wanted {
    fn new(subjects: &[&str], usage: Usage) -> Result<Self, PkiError> {
        let server = subjects
            .iter()
            .map(|subject| {
                ServerName::try_from((*subject).to_owned()).map_err(|_| PkiError::SubjectName((*subject).to_owned()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if usage == Usage::Client {
            return Ok(Wanted::client());
        }
        if server.is_empty() {
            return Err(PkiError::SubjectName(String::new()));
        }
        Ok(Wanted {
            client: usage == Usage::ServerAndClient,
            server,
        })
    }

    fn client() -> Self {
        Wanted {
            client: true,
            server: Vec::new(),
        }
    }
}

fn new_key() -> Result<Zeroizing<KeyPair>, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Zeroizing::new)
}

fn ca_params() -> CertificateParams {
    let mut params = valid_now(CertificateParams::default());
    params.distinguished_name = named(CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf_params(name: &str, subjects: &[&str], usage: Usage) -> Result<CertificateParams, rcgen::Error> {
    let subjects = subjects.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut params = valid_now(CertificateParams::new(subjects)?);
    params.distinguished_name = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if usage != Usage::Client {
        params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if usage != Usage::Server {
        params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
    }
    Ok(params)
}

fn valid_now(mut params: CertificateParams) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + VALIDITY;
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// A name that stays within its directory on every file system.
fn is_plain(name: &str) -> bool {
    name != CA
        && (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}
