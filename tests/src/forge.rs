//! Requests that no honest client makes: each part can be made wrong, and every other part is right.
//!
//! Written from `session/WIRE.md`, independently of the session crate's own sealing.

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use cloister_attestation::identity::sha256;
use cloister_session::{
    RequestId, TenantId,
    limits::{DEK_LEN, MAX_CHUNK},
    outer::Header,
    signing::{SignedObject, SigningKey},
};
use hpke::{Deserializable, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256, kem::XWing, setup_sender};
use serde_json::Value;

use crate::tenant::{Client, inner, now, random};

/// The first chunk's plaintext is a multiple of this.
const FIRST_CHUNK_UNIT: usize = 1024;

/// A request in its parts.
pub struct Draft {
    /// The header.
    pub header: Header,
    /// Key of the chunks.
    pub dek: [u8; DEK_LEN],
    /// Key that the wrap holds, if another.
    pub wrapped: [u8; DEK_LEN],
    /// Tenant that the first chunk names.
    pub tenant: TenantId,
    /// Credential in the first chunk.
    pub credential: Vec<u8>,
    /// Who signs.
    pub signer: SigningKey,
    /// The padded message.
    pub message: Vec<u8>,
    /// Policy that is stated.
    pub policy: [u8; 32],
    public_key: Vec<u8>,
    config_hash: [u8; 32],
}

impl Draft {
    /// A good request of `client`.
    #[must_use]
    pub fn new(client: &Client, body: &Value) -> Self {
        let (message, bucket) = inner(body).encode().expect("a message");
        let dek = random();
        let key = client.key();
        let config = key.verified.config();
        let signed = SignedObject::parse(&key.signed.to_bytes()).expect("a signed key");
        let mut request_id = [0; 16];
        request_id.copy_from_slice(&random()[..16]);
        Self {
            header: Header {
                request_id: RequestId::from_bytes(request_id),
                created: now(),
                ttl: 120,
                tenant_ref: client.reference(),
                model: config.model,
                bucket,
                dek_commit: commitment(&dek),
                candidates: vec![config.key_id],
            },
            dek,
            wrapped: dek,
            tenant: client.tenant.id(),
            credential: client.tenant.credential.to_bytes(),
            signer: copy(&client.tenant.member),
            message: message.to_vec(),
            policy: *client.policy.as_bytes(),
            public_key: config.public_key.to_vec(),
            config_hash: *sha256(&[signed.payload()]).as_bytes(),
        }
    }

    /// The bytes of the request.
    #[must_use]
    pub fn m1(&self) -> Vec<u8> {
        let mut m1 = self.outer();
        for chunk in self.chunks() {
            m1.extend_from_slice(&chunk);
        }
        m1
    }

    /// Version, header and wrap.
    #[must_use]
    pub fn outer(&self) -> Vec<u8> {
        let header = self.header.to_bytes();
        let mut outer = vec![1];
        outer.extend_from_slice(&(header.len() as u16).to_be_bytes());
        outer.extend_from_slice(&header);
        outer.push(1);
        outer.extend_from_slice(self.header.candidates[0].as_bytes());
        outer.extend_from_slice(&self.wrap());
        outer
    }

    /// The framed chunks, the last one final.
    #[must_use]
    pub fn chunks(&self) -> Vec<Vec<u8>> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, self.header.hash().as_bytes());
        let prk = salt.extract(&self.dek);
        let key: [u8; 32] = expand(&prk, b"cloister/v1 request key");
        let nonce: [u8; 12] = expand(&prk, b"cloister/v1 request nonce");
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key"));
        let pieces = self.message.chunks(MAX_CHUNK);
        let last = pieces.len();
        let plaintexts = std::iter::once(self.first()).chain(pieces.map(<[u8]>::to_vec));
        let seal = |(number, mut plaintext): (usize, Vec<u8>)| {
            let mut nonce = nonce;
            let counter = (number as u64).to_be_bytes();
            nonce[4..]
                .iter_mut()
                .zip(counter)
                .for_each(|(byte, count)| *byte ^= count);
            let aad = Aad::from(if number == last { b"final".as_slice() } else { b"" });
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut plaintext)
                .expect("sealed");
            let mut framed = varint(if number == last { 0 } else { plaintext.len() });
            framed.extend_from_slice(&plaintext);
            framed
        };
        plaintexts.enumerate().map(seal).collect()
    }

    fn first(&self) -> Vec<u8> {
        let hash = self.header.hash();
        let proof = [hash.as_bytes().as_slice(), sha256(&[&self.message]).as_bytes()].concat();
        let mut first = self.tenant.as_bytes().to_vec();
        first.extend_from_slice(&(self.credential.len() as u16).to_be_bytes());
        first.extend_from_slice(&self.credential);
        first.extend_from_slice(&self.policy);
        first.extend_from_slice(&self.signer.sign("request", &proof));
        first.resize(first.len().next_multiple_of(FIRST_CHUNK_UNIT), 0);
        first
    }

    fn wrap(&self) -> Vec<u8> {
        let public = <XWing as hpke::Kem>::PublicKey::from_bytes(&self.public_key).expect("a public key");
        let info = [b"cloister/v1 request".as_slice(), &self.config_hash].concat();
        let (enc, mut context) =
            setup_sender::<ChaCha20Poly1305, HkdfSha256, XWing>(&OpModeS::Base, &public, &info).expect("a context");
        let sealed = context
            .seal(&self.wrapped, self.header.hash().as_bytes())
            .expect("sealed");
        [enc.to_bytes().as_slice(), &sealed].concat()
    }
}

/// What the header commits to a key with.
#[must_use]
pub fn commitment(dek: &[u8; DEK_LEN]) -> [u8; 32] {
    expand(
        &hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, dek),
        b"cloister/v1 dek-commit",
    )
}

/// The same key once more.
#[must_use]
pub fn copy(key: &SigningKey) -> SigningKey {
    SigningKey::from_pkcs8(&key.to_pkcs8().expect("a key")).expect("a key")
}

fn expand<const N: usize>(prk: &hkdf::Prk, label: &[u8]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = [0; N];
    prk.expand(&[label], Length(N))
        .and_then(|okm| okm.fill(&mut out))
        .expect("expanded");
    out
}

/// QUIC's variable-length integer, up to the longest chunk.
fn varint(value: usize) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        _ => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
    }
}
