//! The one suite: X-Wing, HKDF-SHA256, ChaCha20Poly1305, and the labels under which keys are derived.

use aws_lc_rs::hkdf;
use hpke::{
    Deserializable, HpkeError, Kem as _, OpModeR, OpModeS, Serializable,
    aead::{AeadCtxR, AeadCtxS, ChaCha20Poly1305},
    kdf::HkdfSha256,
    kem::XWing,
    setup_receiver, setup_sender,
};
use zeroize::Zeroizing;

use crate::{
    ids::{HeaderHash, KeyId, TenantRef},
    limits::{DEK_LEN, ENCAPSULATED_LEN, PUBLIC_KEY_LEN, TAG_LEN},
};

type PrivateKey = <XWing as hpke::Kem>::PrivateKey;
type PublicKey = <XWing as hpke::Kem>::PublicKey;
type EncappedKey = <XWing as hpke::Kem>::EncappedKey;

/// Key encapsulation mechanism, key derivation function and AEAD as in the HPKE registries.
pub(crate) const SUITE_ID: [u8; 6] = [0x64, 0x7a, 0x00, 0x01, 0x00, 0x03];

/// Public key bytes of a KeyConfig.
pub(crate) type PublicKeyBytes = [u8; PUBLIC_KEY_LEN];

/// Data encryption key of one request.
pub(crate) type Dek = Zeroizing<[u8; DEK_LEN]>;

/// Something did not open, derive or encode. Carries nothing: no reason may leave the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CryptoError;

impl From<HpkeError> for CryptoError {
    fn from(_: HpkeError) -> Self {
        Self
    }
}

impl From<aws_lc_rs::error::Unspecified> for CryptoError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// The key pair of a tenant in one window: derived when needed, never stored.
pub(crate) fn tenant_key_pair(
    window_secret: &[u8; 32],
    tenant: &TenantRef,
) -> Result<(PrivateKey, PublicKeyBytes), CryptoError> {
    let mut ikm = Zeroizing::new([0u8; 64]);
    expand(
        &hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, window_secret),
        &[b"cloister/v1 tenant-window", &SUITE_ID, tenant.as_bytes()],
        ikm.as_mut_slice(),
    )?;
    let (private, public) = XWing::derive_keypair(ikm.as_slice());
    let mut bytes = [0u8; PUBLIC_KEY_LEN];
    public.write_exact(&mut bytes);
    Ok((private, bytes))
}

/// Whether `bytes` are a public key of the suite.
pub(crate) fn is_public_key(bytes: &PublicKeyBytes) -> bool {
    PublicKey::from_bytes(bytes).is_ok()
}

/// HPKE context of a wrap after it was sealed or opened: what the response secret is exported from.
pub(crate) enum Exporter {
    Sender(Box<AeadCtxS<ChaCha20Poly1305, HkdfSha256, XWing>>),
    Receiver(Box<AeadCtxR<ChaCha20Poly1305, HkdfSha256, XWing>>),
}

impl Exporter {
    /// Secret of the response from the candidate of this wrap.
    pub(crate) fn response_secret(
        &self,
        header: &HeaderHash,
        key: &KeyId,
        nonce: &[u8; 32],
    ) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
        let context = [
            b"cloister/v1 response".as_slice(),
            header.as_bytes(),
            key.as_bytes(),
            nonce,
        ]
        .concat();
        let mut secret = Zeroizing::new([0u8; 32]);
        match self {
            Self::Sender(ctx) => ctx.export(&context, secret.as_mut_slice())?,
            Self::Receiver(ctx) => ctx.export(&context, secret.as_mut_slice())?,
        }
        Ok(secret)
    }
}

fn wrap_info(key_config_hash: &[u8; 32]) -> Vec<u8> {
    [b"cloister/v1 request".as_slice(), key_config_hash].concat()
}

/// Seals the DEK to one candidate: `enc || ciphertext`.
pub(crate) fn seal_wrap(
    public: &PublicKeyBytes,
    key_config_hash: &[u8; 32],
    header: &HeaderHash,
    dek: &Dek,
) -> Result<(Vec<u8>, Exporter), CryptoError> {
    let public = PublicKey::from_bytes(public)?;
    let (enc, mut context) =
        setup_sender::<ChaCha20Poly1305, HkdfSha256, XWing>(&OpModeS::Base, &public, &wrap_info(key_config_hash))?;
    let sealed = context.seal(dek.as_slice(), header.as_bytes())?;
    let mut wrap = Vec::with_capacity(ENCAPSULATED_LEN + DEK_LEN + TAG_LEN);
    wrap.extend_from_slice(&enc.to_bytes());
    wrap.extend_from_slice(&sealed);
    Ok((wrap, Exporter::Sender(Box::new(context))))
}

/// Opens a wrap: `enc || ciphertext`.
pub(crate) fn open_wrap(
    private: &PrivateKey,
    key_config_hash: &[u8; 32],
    header: &HeaderHash,
    wrap: &[u8],
) -> Result<(Dek, Exporter), CryptoError> {
    let (enc, sealed) = wrap.split_at_checked(ENCAPSULATED_LEN).ok_or(CryptoError)?;
    let enc = EncappedKey::from_bytes(enc)?;
    let mut context = setup_receiver::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeR::Base,
        private,
        &enc,
        &wrap_info(key_config_hash),
    )?;
    let opened = Zeroizing::new(context.open(sealed, header.as_bytes())?);
    let mut dek: Dek = Zeroizing::new([0; DEK_LEN]);
    if opened.len() != dek.len() {
        return Err(CryptoError);
    }
    dek.copy_from_slice(&opened);
    Ok((dek, Exporter::Receiver(Box::new(context))))
}

/// The commitment of the header to its DEK: the AEAD itself does not commit to its key.
pub(crate) fn dek_commit(dek: &Dek) -> Result<[u8; 32], CryptoError> {
    let mut commit = [0u8; 32];
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, dek.as_slice());
    expand(&prk, &[b"cloister/v1 dek-commit"], &mut commit)?;
    Ok(commit)
}

/// Pseudo-random key of the request's chunks.
pub(crate) fn request_prk(header: &HeaderHash, dek: &Dek) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, header.as_bytes()).extract(dek.as_slice())
}

/// HKDF-Expand of the concatenation of `info` into all of `out`.
pub(crate) fn expand(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    prk.expand(info, Len(out.len()))?.fill(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[allow(non_snake_case)]
    struct Vector {
        kem_id: u16,
        kdf_id: u16,
        aead_id: u16,
        info: String,
        ikmR: String,
        skRm: String,
        pkRm: String,
        enc: String,
        encryptions: Vec<Encryption>,
        exports: Vec<Export>,
    }

    #[derive(Deserialize)]
    struct Encryption {
        aad: String,
        ct: String,
        pt: String,
    }

    #[derive(Deserialize)]
    struct Export {
        exporter_context: String,
        #[serde(rename = "L")]
        length: usize,
        exported_value: String,
    }

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    /// The published X-Wing vector of draft-ietf-hpke-pq for our suite; see `testdata/README.md`.
    #[test]
    fn published_vector() {
        let vectors: Vec<Vector> = serde_json::from_str(include_str!("../testdata/hpke-xwing.json")).unwrap();
        let ours: Vec<_> = vectors
            .iter()
            .filter(|v| [v.kem_id, v.kdf_id, v.aead_id] == [0x647a, 1, 3])
            .collect();
        assert_eq!(ours.len(), 1);
        let vector = ours[0];
        let (private, public) = XWing::derive_keypair(&bytes(&vector.ikmR));
        assert_eq!(private.to_bytes().as_slice(), bytes(&vector.skRm));
        assert_eq!(public.to_bytes().as_slice(), bytes(&vector.pkRm));
        let enc = EncappedKey::from_bytes(&bytes(&vector.enc)).unwrap();
        let mut context =
            setup_receiver::<ChaCha20Poly1305, HkdfSha256, XWing>(&OpModeR::Base, &private, &enc, &bytes(&vector.info))
                .unwrap();
        assert!(!vector.encryptions.is_empty() && !vector.exports.is_empty());
        for message in &vector.encryptions {
            assert_eq!(
                context.open(&bytes(&message.ct), &bytes(&message.aad)).unwrap(),
                bytes(&message.pt)
            );
        }
        for export in &vector.exports {
            let mut out = vec![0; export.length];
            context.export(&bytes(&export.exporter_context), &mut out).unwrap();
            assert_eq!(out, bytes(&export.exported_value));
        }
    }

    #[test]
    fn a_wrap_opens_only_with_its_key_its_key_config_and_its_header() {
        let (private, public) = tenant_key_pair(&[1; 32], &TenantRef::from_bytes([2; 16])).unwrap();
        let (other, _) = tenant_key_pair(&[1; 32], &TenantRef::from_bytes([3; 16])).unwrap();
        let header = HeaderHash::from_bytes([4; 32]);
        let dek = Zeroizing::new([5; 32]);
        let (wrap, sender) = seal_wrap(&public, &[6; 32], &header, &dek).unwrap();
        let (opened, receiver) = open_wrap(&private, &[6; 32], &header, &wrap).unwrap();
        assert_eq!(opened, dek);
        let key = KeyId::from_bytes([7; 16]);
        let secret = sender.response_secret(&header, &key, &[8; 32]).unwrap();
        assert_eq!(secret, receiver.response_secret(&header, &key, &[8; 32]).unwrap());
        assert_ne!(secret, receiver.response_secret(&header, &key, &[9; 32]).unwrap());
        let other_key = KeyId::from_bytes([8; 16]);
        assert_ne!(secret, receiver.response_secret(&header, &other_key, &[8; 32]).unwrap());
        let other_header = HeaderHash::from_bytes([5; 32]);
        assert_ne!(secret, receiver.response_secret(&other_header, &key, &[8; 32]).unwrap());
        assert!(open_wrap(&other, &[6; 32], &header, &wrap).is_err());
        assert!(open_wrap(&private, &[0; 32], &header, &wrap).is_err());
        assert!(open_wrap(&private, &[6; 32], &HeaderHash::from_bytes([0; 32]), &wrap).is_err());
    }
}
