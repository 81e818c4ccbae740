//! Running hashes over what was sent: what a receipt ties itself to.

use aws_lc_rs::digest;
use cloister_attestation::Sha256Digest;

/// Hash over the bytes of one direction, as framed.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Transcript(digest::Context);

impl Transcript {
    /// Of M1: its header; the framed chunks follow.
    pub(crate) fn request(header: &[u8]) -> Self {
        Self::new(b"cloister/v1 request-hash", header)
    }

    /// Of M2: its prefix; the framed chunks before the final one follow.
    pub(crate) fn response(prefix: &[u8]) -> Self {
        Self::new(b"cloister/v1 response-hash", prefix)
    }

    fn new(label: &[u8], start: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(label);
        context.update(start);
        Self(context)
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was taken.
    pub(crate) fn finish(self) -> Sha256Digest {
        let mut out = [0u8; 32];
        out.iter_mut()
            .zip(self.0.finish().as_ref())
            .for_each(|(to, from)| *to = *from);
        Sha256Digest::from_bytes(out)
    }
}
