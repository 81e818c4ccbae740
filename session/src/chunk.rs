//! Chunk framing and sealing after draft-ietf-ohai-chunked-ohttp: the same for requests and responses.

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Malformed,
    limits::{MAX_CHUNK, TAG_LEN},
    suite::{CryptoError, expand},
    varint,
};

/// AAD of the final chunk; every other chunk's is empty.
const FINAL: &[u8] = b"final";

/// Key and nonce sequence of one direction.
pub(crate) struct ChunkCipher {
    key: LessSafeKey,
    base_nonce: [u8; NONCE_LEN],
    counter: u64,
}

impl ChunkCipher {
    /// Derives key and base nonce under two labels.
    pub(crate) fn new(prk: &hkdf::Prk, key_label: &[u8], nonce_label: &[u8]) -> Result<Self, CryptoError> {
        let mut key = Zeroizing::new([0u8; 32]);
        expand(prk, &[key_label], key.as_mut_slice())?;
        let mut base_nonce = [0u8; NONCE_LEN];
        expand(prk, &[nonce_label], &mut base_nonce)?;
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_slice())?);
        Ok(Self {
            key,
            base_nonce,
            counter: 0,
        })
    }

    /// Nonce of the next chunk. A counter that would wrap ends the direction.
    fn next_nonce(&mut self) -> Result<Nonce, CryptoError> {
        let mut nonce = self.base_nonce;
        nonce
            .iter_mut()
            .rev()
            .zip(self.counter.to_be_bytes().iter().rev())
            .for_each(|(byte, count)| *byte ^= count);
        self.counter = self.counter.checked_add(1).ok_or(CryptoError)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Appends the framed chunk of `plaintext` to `out`. `plaintext` is sealed in place and left as ciphertext.
    pub(crate) fn seal(&mut self, plaintext: &mut [u8], last: bool, out: &mut Vec<u8>) -> Result<(), CryptoError> {
        if plaintext.is_empty() || plaintext.len() > MAX_CHUNK {
            plaintext.zeroize();
            return Err(CryptoError);
        }
        self.seal_any(plaintext, last, out)
    }

    /// As [`seal`](Self::seal) for any length, which the tests need to make chunks that have to be refused.
    pub(crate) fn seal_any(&mut self, plaintext: &mut [u8], last: bool, out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let nonce = self.next_nonce()?;
        let aad = Aad::from(if last { FINAL } else { &[] });
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, plaintext)?;
        varint::write(
            if last {
                0
            } else {
                plaintext.len().saturating_add(TAG_LEN)
            },
            out,
        );
        out.extend_from_slice(plaintext);
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens the ciphertext of one chunk.
    pub(crate) fn open(&mut self, ciphertext: &[u8], last: bool) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let nonce = self.next_nonce()?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let aad = Aad::from(if last { FINAL } else { &[] });
        let length = self.key.open_in_place(nonce, aad, &mut buffer)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// A chunk as framed on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Varint and ciphertext as received: what the request and response hashes cover.
    pub(crate) bytes: Vec<u8>,
    ciphertext_at: usize,
}

impl Frame {
    /// Sealed bytes with their tag.
    pub(crate) fn ciphertext(&self) -> &[u8] {
        self.bytes.get(self.ciphertext_at..).unwrap_or_default()
    }
}

/// Splits a byte stream into chunks. Holds at most one chunk and one read of bytes.
#[derive(Default)]
pub(crate) struct Deframer {
    buffer: Vec<u8>,
    /// How much of the buffer was handed out; dropped with the next read, so that many chunks in one read cost one move.
    taken: usize,
    in_final: bool,
}

/// Longest ciphertext of a chunk.
const MAX_CIPHERTEXT: usize = MAX_CHUNK + TAG_LEN;
const WHAT: Malformed = Malformed("chunk");

impl Deframer {
    /// Takes bytes as they arrive.
    ///
    /// # Errors
    /// [`Malformed`] when the final chunk, which has no length of its own, grows beyond [`MAX_CHUNK`].
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.drop_taken();
        self.buffer.extend_from_slice(bytes);
        self.check_final()
    }

    /// The final chunk has begun: no other follows.
    pub(crate) const fn in_final(&self) -> bool {
        self.in_final
    }

    fn check_final(&self) -> Result<(), Malformed> {
        // The final chunk's varint is one byte.
        let longest = MAX_CIPHERTEXT.saturating_add(1);
        if self.in_final && self.buffer.len().saturating_sub(self.taken) > longest {
            Err(WHAT)
        } else {
            Ok(())
        }
    }

    fn drop_taken(&mut self) {
        self.buffer.drain(..self.taken.min(self.buffer.len()));
        self.taken = 0;
    }

    /// The next whole chunk that is not the final one.
    ///
    /// # Errors
    /// [`Malformed`] for a length below 17 or above the cap, and for a varint that is not the shortest.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        if self.in_final {
            return Ok(None);
        }
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((length, head)) = varint::read(waiting)? else {
            return Ok(None);
        };
        if length == 0 {
            self.in_final = true;
            return self.check_final().map(|()| None);
        }
        if length <= TAG_LEN || length > MAX_CIPHERTEXT {
            return Err(WHAT);
        }
        let end = head.saturating_add(length);
        let Some(frame) = waiting.get(..end) else {
            return Ok(None);
        };
        let bytes = frame.to_vec();
        self.taken = self.taken.saturating_add(end);
        Ok(Some(Frame {
            bytes,
            ciphertext_at: head,
        }))
    }

    /// The final chunk, once the stream has ended.
    ///
    /// # Errors
    /// [`Malformed`] when the stream ended before the final chunk, or inside it.
    pub(crate) fn finish(mut self) -> Result<Frame, Malformed> {
        self.drop_taken();
        let long_enough = self.buffer.len() > 1 + TAG_LEN;
        if !self.in_final || !long_enough {
            return Err(WHAT);
        }
        Ok(Frame {
            bytes: self.buffer,
            ciphertext_at: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> ChunkCipher {
        ChunkCipher::new(&hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &[1; 32]), b"k", b"n").unwrap()
    }

    fn stream(chunks: &[&[u8]]) -> Vec<u8> {
        let mut cipher = cipher();
        let mut out = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            cipher
                .seal(&mut chunk.to_vec(), i + 1 == chunks.len(), &mut out)
                .unwrap();
        }
        out
    }

    /// Opens a whole stream, fed `step` bytes at a time.
    fn open(bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, ()> {
        let (mut cipher, mut deframer, mut out) = (cipher(), Deframer::default(), Vec::new());
        for part in bytes.chunks(step) {
            deframer.push(part).map_err(|_| ())?;
            while let Some(frame) = deframer.next().map_err(|_| ())? {
                out.push(cipher.open(frame.ciphertext(), false).map_err(|_| ())?.to_vec());
            }
        }
        let last = deframer.finish().map_err(|_| ())?;
        out.push(cipher.open(last.ciphertext(), true).map_err(|_| ())?.to_vec());
        Ok(out)
    }

    #[test]
    fn round_trip_at_every_split() {
        let bytes = stream(&[b"one", &[2; MAX_CHUNK], b"three"]);
        for step in [1, 7, 1000, bytes.len()] {
            assert_eq!(
                open(&bytes, step).unwrap(),
                [b"one".to_vec(), vec![2; MAX_CHUNK], b"three".to_vec()]
            );
        }
    }

    #[test]
    fn reordered_dropped_duplicated_and_relabelled_chunks_are_refused() {
        let (a, b) = (3 + TAG_LEN + 1, 5 + TAG_LEN + 1);
        let bytes = stream(&[b"one", b"2two2", b"end"]);
        let (first, rest) = bytes.split_at(a);
        let (second, last) = rest.split_at(b);
        assert!(open(&[first, second, last].concat(), 9).is_ok());
        assert!(open(&[second, first, last].concat(), 9).is_err());
        assert!(open(&[first, last].concat(), 9).is_err());
        assert!(open(&[first, second, second, last].concat(), 9).is_err());
        assert!(open(&[first, second].concat(), 9).is_err());
        // The second chunk relabelled final, the final one relabelled as one before it.
        assert!(open(&[first, &[0], &second[1..]].concat(), 9).is_err());
        let relabelled = [&[(last.len() - 1) as u8], &last[1..]].concat();
        assert!(open(&[first, second, &relabelled].concat(), 9).is_err());
        assert!(open(&[first, second, last, b"x"].concat(), 9).is_err());
        assert!(open(&[first, second, &last[..last.len() - 1]].concat(), 9).is_err());
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_opened() {
        let refused = |bytes: &[u8]| {
            let mut deframer = Deframer::default();
            deframer.push(bytes).and_then(|()| deframer.next().map(|_| ())).is_err()
        };
        assert!(refused(&[TAG_LEN as u8]), "empty chunk that is not the final one");
        assert!(refused(&[0x80, 0, 0x40, 0x11]), "one byte above the cap");
        assert!(!refused(&[0x80, 0, 0x40, 0x10]), "at the cap");
        assert!(refused(&[0x40, 0x20]), "varint that is not the shortest");
        let mut deframer = Deframer::default();
        deframer.push(&[0]).unwrap();
        assert!(deframer.next().unwrap().is_none());
        assert!(deframer.push(&vec![0; MAX_CIPHERTEXT]).is_ok());
        assert!(deframer.push(&[0]).is_err(), "final chunk above the cap");
        assert!(Deframer::default().finish().is_err());
    }

    #[test]
    fn an_empty_final_chunk_is_refused() {
        let mut deframer = Deframer::default();
        deframer.push(&[0; 1 + TAG_LEN]).unwrap();
        assert!(deframer.next().unwrap().is_none());
        assert!(deframer.finish().is_err());
        assert!(cipher().seal(&mut [], true, &mut Vec::new()).is_err());
        assert!(cipher().seal(&mut [0; MAX_CHUNK + 1], false, &mut Vec::new()).is_err());
    }
}
