//! Files of a tenant: its root key, and for each member a key and a credential of at most an hour.
//!
//! A tenant's directory holds `root.key` and `token`, and `members/NAME/` a `member.key` and a `credential`. Whoever has
//! `root.key` is the tenant: keep it where requests are not made.

use crate::files::{self, FileError};
use crate::pem;
use aws_lc_rs::digest::{SHA256, digest};
use cloister_attestation::{ModelDigest, Sha256Digest, UnixTime};
use cloister_session::credential::{MemberCredential, SaltScope, TenantRoot};
use cloister_session::limits::{MAX_CREDENTIAL_LIFE, MAX_CREDENTIAL_MODELS, MAX_NAME};
use cloister_session::signing::{KeyError, SigningKey};
use cloister_session::{TenantId, TenantRef, tenant_ref};
use std::path::{Path, PathBuf};

/// Longest name of a tenant or member.
pub const MAX_DIRECTORY_NAME: usize = 63;
/// A credential is valid this long before it is made, seconds, for clocks that are behind.
pub const BACKDATED: u64 = 60;

/// A tenant that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// A name that is not a plain file name.
    #[error("{0:?} cannot name a tenant or member: use 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit")]
    Name(String),
    /// A file is unreadable, open to others, or would be overwritten.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such tenant.
    #[error("{0}: no such tenant: make it with `cloister tenant create`")]
    NotFound(PathBuf),
    /// A key file is not one.
    #[error("{0}: not an Ed25519 private key in PEM")]
    Key(PathBuf),
    /// No key could be made.
    #[error(transparent)]
    Generate(#[from] KeyError),
    /// What a credential is to say is out of bounds.
    #[error("{0}")]
    Claims(String),
}

/// The directory of one tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    directory: PathBuf,
}

/// What a credential is to say.
#[derive(Clone, Debug)]
pub struct Issue {
    /// Name of the member, for its files only.
    pub member: String,
    /// The cluster.
    pub cluster_id: String,
    /// Models that the member may use, 1 to 64.
    pub models: Vec<ModelDigest>,
    /// Life in seconds, [`BACKDATED`] of them in the past; at most 3600.
    pub life: u64,
    /// Whose prefix cache the member's requests may hit.
    pub salt_scope: SaltScope,
}

/// What was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The credential file.
    pub credential: PathBuf,
    /// The member's key file.
    pub member_key: PathBuf,
    /// When the credential ends.
    pub not_after: UnixTime,
}

/// A bearer token for a scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The token file.
    pub path: PathBuf,
    /// What the scheduler's configuration holds of it.
    pub sha256: Sha256Digest,
}

impl Tenant {
    /// The tenant of this name under a directory of tenants, whether it is there or not.
    ///
    /// # Errors
    ///
    /// The name is not a plain file name.
    pub fn at(directory: &Path, name: &str) -> Result<Self, TenantError> {
        check_name(name)?;
        Ok(Self {
            directory: directory.join(name),
        })
    }

    /// Makes the root key.
    ///
    /// # Errors
    ///
    /// There is one already: it is never overwritten, because what it signed would be orphaned and the tenant lost.
    pub fn create(&self) -> Result<TenantId, TenantError> {
        files::create_private_dir(&self.directory)?;
        let root = new_key(&self.root_key())?;
        Ok(TenantRoot::new(root).tenant_id())
    }

    /// The tenant's id.
    ///
    /// # Errors
    ///
    /// The root key cannot be read.
    pub fn id(&self) -> Result<TenantId, TenantError> {
        Ok(self.root()?.tenant_id())
    }

    /// The tenant's name in a cluster.
    ///
    /// # Errors
    ///
    /// The root key cannot be read, or the cluster id is out of bounds.
    pub fn reference(&self, cluster_id: &str) -> Result<TenantRef, TenantError> {
        check_cluster_id(cluster_id)?;
        Ok(tenant_ref(cluster_id, &self.id()?))
    }

    /// Issues a credential to a member, whose key is made the first time. The old credential is replaced in one step, so a proxy
    /// that uses it goes on.
    ///
    /// # Errors
    ///
    /// The root key cannot be read, the claims are out of bounds, or a file cannot be written.
    pub fn issue(&self, issue: &Issue, now: UnixTime) -> Result<Issued, TenantError> {
        check_name(&issue.member)?;
        check_claims(issue)?;
        let root = self.root()?;
        let directory = self.directory.join("members").join(&issue.member);
        files::create_private_dir(&directory)?;
        let (credential_path, key_path) = (directory.join("credential"), directory.join("member.key"));
        let key = if key_path.exists() {
            read_key(&key_path)?
        } else {
            new_key(&key_path)?
        };
        let not_before = UnixTime(now.0.saturating_sub(BACKDATED));
        let claims = MemberCredential {
            root: root.key().public(),
            member: key.public(),
            not_before,
            not_after: not_before.plus(issue.life),
            models: issue.models.clone(),
            audience: issue.cluster_id.clone(),
            salt_scope: issue.salt_scope,
        };
        let text = pem::encode(pem::CREDENTIAL, &root.issue(&claims).to_bytes());
        files::replace_secret(&credential_path, &text)?;
        Ok(Issued {
            credential: credential_path,
            member_key: key_path,
            not_after: claims.not_after,
        })
    }

    /// Makes a random bearer token. It protects the scheduler's resources, never a prompt.
    ///
    /// # Errors
    ///
    /// There is one already, or it cannot be written.
    pub fn token(&self) -> Result<Token, TenantError> {
        if !self.directory.is_dir() {
            return Err(TenantError::NotFound(self.directory.clone()));
        }
        let path = self.directory.join("token");
        let secret = zeroize::Zeroizing::new(crate::random::bytes::<32>());
        let mut token = zeroize::Zeroizing::new([0; 64]);
        // The buffer is twice as long as the bytes, which is all that can be wrong.
        let _ = hex::encode_to_slice(&secret[..], &mut token[..]);
        files::create_secret(&path, &token[..])?;
        Ok(Token {
            path,
            sha256: sha256(&token[..]),
        })
    }

    fn root(&self) -> Result<TenantRoot, TenantError> {
        let path = self.root_key();
        if !path.exists() {
            return Err(TenantError::NotFound(self.directory.clone()));
        }
        read_key(&path).map(TenantRoot::new)
    }

    fn root_key(&self) -> PathBuf {
        self.directory.join("root.key")
    }
}

/// SHA-256 of a token, as the scheduler's configuration holds it.
pub fn sha256(token: &[u8]) -> Sha256Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token).as_ref());
    Sha256Digest::from_bytes(out)
}

fn new_key(path: &Path) -> Result<SigningKey, TenantError> {
    let key = SigningKey::generate()?;
    files::create_secret(path, &pem::encode(pem::PRIVATE_KEY, &key.to_pkcs8()?))?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<SigningKey, TenantError> {
    let text = files::read_secret(path, pem::MAX_PEM_BYTES)?;
    let der = pem::decode(pem::PRIVATE_KEY, &text).map_err(|_| TenantError::Key(path.to_owned()))?;
    SigningKey::from_pkcs8(&der).map_err(|_| TenantError::Key(path.to_owned()))
}

fn check_name(name: &str) -> Result<(), TenantError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let sound = (1..=MAX_DIRECTORY_NAME).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-');
    if sound {
        Ok(())
    } else {
        Err(TenantError::Name(name.to_owned()))
    }
}

fn check_cluster_id(cluster_id: &str) -> Result<(), TenantError> {
    if (1..=MAX_NAME).contains(&cluster_id.len()) {
        return Ok(());
    }
    Err(TenantError::Claims(format!("a cluster id has 1 to {MAX_NAME} bytes")))
}

fn check_claims(issue: &Issue) -> Result<(), TenantError> {
    check_cluster_id(&issue.cluster_id)?;
    if !(1..=MAX_CREDENTIAL_MODELS).contains(&issue.models.len()) {
        return Err(TenantError::Claims(format!(
            "a credential is for 1 to {MAX_CREDENTIAL_MODELS} models"
        )));
    }
    if issue.life <= BACKDATED || issue.life > MAX_CREDENTIAL_LIFE {
        let message = format!(
            "a credential lives {} to {MAX_CREDENTIAL_LIFE} seconds",
            BACKDATED.saturating_add(1)
        );
        return Err(TenantError::Claims(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
