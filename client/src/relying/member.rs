//! Who this party is: a member of a tenant.

use super::watched::Watched;
use crate::clock::Clock;
use crate::failure::{Code, Failure};
use crate::files::{self, FileError};
use crate::pem;
use cloister_attestation::{ModelDigest, UnixTime};
use cloister_session::credential::{CredentialError, SignedCredential, VerifiedCredential};
use cloister_session::signing::SigningKey;
use cloister_session::{TenantId, TenantRef, tenant_ref};
use std::path::PathBuf;
use std::sync::Arc;

/// A credential that is about to end is looked for anew this long before, seconds.
const RENEW_BEFORE: u64 = 60;

/// A member with a valid credential and the key that it names.
pub struct Member {
    /// The credential as signed.
    pub credential: SignedCredential,
    /// What it says, verified when it was loaded.
    pub verified: VerifiedCredential,
    /// The member's key.
    pub key: SigningKey,
    /// The tenant's name outside the seal.
    pub tenant_ref: TenantRef,
}

/// A member that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// A file is unreadable, or open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not in its format.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::PemError,
    },
    /// The key file holds no usable key.
    #[error("{0}: not an Ed25519 private key: issue the credential again with `cloister tenant issue`")]
    Key(PathBuf),
    /// The credential does not count now.
    #[error("{path}: {source}: issue a new one with `cloister tenant issue`")]
    Credential {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CredentialError,
    },
    /// The credential names another key.
    #[error("{credential}: is not for the key in {key}: issue both together with `cloister tenant issue`")]
    OtherKey {
        /// The credential file.
        credential: PathBuf,
        /// The key file.
        key: PathBuf,
    },
}

/// Where a member's files are, and what was read from them.
pub struct MemberFiles {
    credential: PathBuf,
    key: PathBuf,
    cluster_id: String,
    clock: Clock,
    watched: Watched<Member>,
}

// === impl Member ===

impl Member {
    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        self.verified.tenant()
    }

    /// When the credential ends.
    pub fn not_after(&self) -> UnixTime {
        self.verified.claims().not_after
    }

    /// Whether the credential is for a model.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn check_model(&self, model: &ModelDigest) -> Result<(), Failure> {
        if self.verified.allows(model) {
            return Ok(());
        }
        Err(Failure::new(
            Code::CredentialUnusable,
            "the member credential does not cover this model: issue one that does with `cloister tenant issue --models`",
        )
        .with_param("model"))
    }
}

// === impl MemberFiles ===

impl MemberFiles {
    /// Files of a member of a cluster. Nothing is read yet.
    pub fn new(credential: PathBuf, key: PathBuf, cluster_id: String, clock: Clock) -> Self {
        let watched = Watched::new(vec![credential.clone(), key.clone()]);
        Self {
            credential,
            key,
            cluster_id,
            clock,
            watched,
        }
    }

    /// Reads and verifies the files.
    ///
    /// # Errors
    ///
    /// See [`MemberError`].
    pub fn load(&self) -> Result<Member, MemberError> {
        let format = |path: &PathBuf| {
            let path = path.clone();
            move |source| MemberError::Format { path, source }
        };
        let text = files::read_secret(&self.key, pem::MAX_PEM_BYTES)?;
        let der = pem::decode(pem::PRIVATE_KEY, &text).map_err(format(&self.key))?;
        let key = SigningKey::from_pkcs8(&der).map_err(|_| MemberError::Key(self.key.clone()))?;

        let text = files::read_secret(&self.credential, pem::MAX_PEM_BYTES)?;
        let bytes = pem::decode(pem::CREDENTIAL, &text).map_err(format(&self.credential))?;
        let refused = |source| MemberError::Credential {
            path: self.credential.clone(),
            source,
        };
        let credential = SignedCredential::parse(&bytes).map_err(|_| refused(CredentialError::Malformed))?;
        let verified = credential.verify((self.clock)(), &self.cluster_id).map_err(refused)?;
        if verified.claims().member != key.public() {
            return Err(MemberError::OtherKey {
                credential: self.credential.clone(),
                key: self.key.clone(),
            });
        }
        let tenant_ref = tenant_ref(&self.cluster_id, &verified.tenant());
        Ok(Member {
            credential,
            verified,
            key,
            tenant_ref,
        })
    }

    /// The member as of now: read again when a file changed, and when the credential is about to end.
    ///
    /// # Errors
    ///
    /// There is no usable credential.
    pub fn current(&self) -> Result<Arc<Member>, Failure> {
        let now = (self.clock)();
        let member = self.watched.get(
            || self.load(),
            |member| now >= member.verified.claims().not_before && now.plus(RENEW_BEFORE) < member.not_after(),
        );
        member.map_err(|error| Failure::new(Code::CredentialUnusable, error.to_string()))
    }
}
