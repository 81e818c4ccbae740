//! Ed25519 signing keys and the signed objects that they make.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use cloister_attestation::{
    IdentityKey, cbor,
    identity::{SIGNATURE_LEN, signed_bytes},
};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::{Malformed, limits::MAX_SIGNED_OBJECT};

/// Private half of an Ed25519 key. Never printed.
pub struct SigningKey(Ed25519KeyPair);

/// A key that cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no randomness.
    #[error("no randomness for a new key")]
    Random,
    /// Not the PKCS#8 document of an Ed25519 key.
    #[error("not a PKCS#8 Ed25519 private key")]
    Pkcs8,
}

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| KeyError::Random)
    }

    /// Reads a PKCS#8 document (RFC 8410).
    ///
    /// # Errors
    /// [`KeyError::Pkcs8`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| KeyError::Pkcs8)
    }

    /// The PKCS#8 document of this key.
    ///
    /// # Errors
    /// [`KeyError::Pkcs8`] if it cannot be encoded.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.0.to_pkcs8().map_err(|_| KeyError::Pkcs8)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> IdentityKey {
        let mut raw = [0u8; 32];
        raw.iter_mut()
            .zip(self.0.public_key().as_ref())
            .for_each(|(to, from)| *to = *from);
        IdentityKey::from_raw(raw)
    }

    /// Signs `payload` as an object of `kind`.
    #[must_use]
    pub fn sign(&self, kind: &str, payload: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.sign_raw(&signed_bytes(kind, payload))
    }

    /// Signs bytes that are already separated by domain.
    pub(crate) fn sign_raw(&self, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut out = [0u8; SIGNATURE_LEN];
        out.iter_mut()
            .zip(self.0.sign(bytes).as_ref())
            .for_each(|(to, from)| *to = *from);
        out
    }

    /// Encodes and signs an object of `kind`.
    #[must_use]
    pub fn sign_object<T: Encode<()>>(&self, kind: &str, object: &T) -> SignedObject {
        let payload = cbor::encode(object);
        let signature = self.sign(kind, &payload);
        SignedObject { payload, signature }
    }
}

/// A payload as received, with its signature. The payload is parsed only after the signature was checked, by the types
/// that wrap this one.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedObject {
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: [u8; SIGNATURE_LEN],
}

#[derive(Encode, Decode)]
struct Wire<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    payload: std::borrow::Cow<'a, [u8]>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; SIGNATURE_LEN],
}

impl SignedObject {
    /// Parses `[payload, signature]`.
    ///
    /// # Errors
    /// [`Malformed`] for more than [`MAX_SIGNED_OBJECT`] bytes and for anything but the deterministic encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::parse_up_to(bytes, MAX_SIGNED_OBJECT)
    }

    /// The same for kinds of objects that may be longer, or are always shorter.
    pub(crate) fn parse_up_to(bytes: &[u8], most: usize) -> Result<Self, Malformed> {
        const WHAT: &str = "signed object";
        if bytes.len() > most {
            return Err(Malformed(WHAT));
        }
        let wire: Wire<'_> = cbor::decode(WHAT, bytes).map_err(|_| Malformed(WHAT))?;
        Ok(Self {
            payload: wire.payload.into_owned(),
            signature: wire.signature,
        })
    }

    /// The encoding of `[payload, signature]`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(&Wire {
            payload: self.payload.as_slice().into(),
            signature: self.signature,
        })
    }

    /// The signed bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}
