//! Ed25519 identities: the one form of public key and the one way of signing.

use aws_lc_rs::{digest, signature};

use crate::ids::Sha256Digest;

/// DER of an Ed25519 SubjectPublicKeyInfo before the 32 bytes of the key (RFC 8410 section 4): there is no other form.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Length in bytes of an Ed25519 SubjectPublicKeyInfo.
pub const SPKI_LEN: usize = 44;
/// Length in bytes of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;

/// Public half of a signing key: of an enclave, a tenant root or a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdentityKey([u8; 32]);

/// Not the DER of an Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the SubjectPublicKeyInfo of an Ed25519 key")]
pub struct NotEd25519;

/// The signature is not one of this key over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub struct BadSignature;

impl IdentityKey {
    /// Takes the raw 32-byte public key.
    #[must_use]
    pub const fn from_raw(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Parses the 44-byte DER form.
    ///
    /// # Errors
    /// [`NotEd25519`] for any other length or algorithm.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, NotEd25519> {
        let key = der.strip_prefix(&SPKI_PREFIX).ok_or(NotEd25519)?;
        <[u8; 32]>::try_from(key).map(Self).map_err(|_| NotEd25519)
    }

    /// The 44-byte DER form.
    #[must_use]
    pub fn spki_der(&self) -> [u8; SPKI_LEN] {
        let mut der = [0u8; SPKI_LEN];
        let (prefix, key) = der.split_at_mut(SPKI_PREFIX.len());
        prefix.copy_from_slice(&SPKI_PREFIX);
        key.copy_from_slice(&self.0);
        der
    }

    /// SHA-256 of the DER form.
    #[must_use]
    pub fn spki_digest(&self) -> Sha256Digest {
        sha256(&[&self.spki_der()])
    }

    /// Checks a signature over `payload` as an object of `kind`; see [`signed_bytes`].
    ///
    /// # Errors
    /// [`BadSignature`] if it is any other key's, kind's or payload's.
    pub fn verify(&self, kind: &str, payload: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.verify_raw(&signed_bytes(kind, payload), signature)
    }

    /// Checks a signature over bytes that another standard separates by domain (COSE, RFC 9052 section 4.4).
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify_raw(&self, bytes: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        signature::UnparsedPublicKey::new(&signature::ED25519, self.0)
            .verify(bytes, signature)
            .map_err(|_| BadSignature)
    }
}

impl std::fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdentityKey({})", self.spki_digest())
    }
}

/// What is signed for an object: the kind is inside, so that a signature over one kind is none over another.
#[must_use]
pub fn signed_bytes(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len().saturating_add(kind.len()).saturating_add(13));
    bytes.extend_from_slice(b"cloister/v1 ");
    bytes.extend_from_slice(kind.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(payload);
    bytes
}

/// SHA-256 of the concatenation of `parts`.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Sha256Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0u8; 32];
    out.copy_from_slice(context.finish().as_ref());
    Sha256Digest::from_bytes(out)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn pair() -> (Ed25519KeyPair, IdentityKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let public = <[u8; 32]>::try_from(pair.public_key().as_ref()).unwrap();
        (pair, IdentityKey::from_raw(public))
    }

    #[test]
    fn spki_round_trip_and_refusals() {
        let (_, key) = pair();
        let der = key.spki_der();
        assert_eq!(IdentityKey::from_spki_der(&der), Ok(key));
        assert_eq!(IdentityKey::from_spki_der(&der[..43]), Err(NotEd25519));
        let mut other = der;
        other[8] ^= 1;
        assert_eq!(IdentityKey::from_spki_der(&other), Err(NotEd25519));
        assert_eq!(
            IdentityKey::from_spki_der(&[der.as_slice(), &[0]].concat()),
            Err(NotEd25519)
        );
    }

    #[test]
    fn a_signature_over_one_kind_is_none_over_another() {
        let (pair, key) = pair();
        let signature = pair.sign(&signed_bytes("receipt", b"x"));
        assert_eq!(key.verify("receipt", b"x", signature.as_ref()), Ok(()));
        assert_eq!(key.verify("key-config", b"x", signature.as_ref()), Err(BadSignature));
        assert_eq!(key.verify("receipt", b"y", signature.as_ref()), Err(BadSignature));
        assert_eq!(
            IdentityKey::from_raw([9; 32]).verify("receipt", b"x", signature.as_ref()),
            Err(BadSignature)
        );
    }
}
