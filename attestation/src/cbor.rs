//! Deterministic CBOR (RFC 8949 section 4.2) for everything that is signed or hashed.

use minicbor::{Decode, Encode};

/// Bytes that are not the deterministic encoding of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the deterministic CBOR of {what}")]
pub struct NotDeterministic {
    /// Name of the object that was expected.
    pub what: &'static str,
}

/// Encodes `value`. Types derive their encoding with ascending integer keys, which makes it deterministic.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    // The only error of an encoder is that of its writer, and a `Vec` has none.
    minicbor::to_vec(value).unwrap_or_default()
}

/// Decodes `bytes` and refuses every other encoding of the same value: unknown or repeated keys, longer heads, indefinite
/// lengths, trailing bytes.
///
/// # Errors
/// [`NotDeterministic`] if `bytes` are not exactly what [`encode`] would make of the value they hold.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, NotDeterministic> {
    let value: T = minicbor::decode(bytes).map_err(|_| NotDeterministic { what })?;
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(NotDeterministic { what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Pair {
        #[n(0)]
        a: u64,
        #[n(1)]
        b: Option<u64>,
    }

    #[test]
    fn only_the_deterministic_encoding_is_taken() {
        let pair = Pair { a: 1, b: None };
        assert_eq!(encode(&pair), [0xa1, 0x00, 0x01]);
        assert_eq!(decode::<Pair>("pair", &[0xa1, 0x00, 0x01]), Ok(pair));
        let refused: [&[u8]; 6] = [
            &[0xa1, 0x00, 0x18, 0x01],       // longer head than needed
            &[0xbf, 0x00, 0x01, 0xff],       // indefinite length
            &[0xa1, 0x00, 0x01, 0x00],       // trailing byte
            &[0xa2, 0x00, 0x01, 0x09, 0x01], // unknown key
            &[0xa2, 0x01, 0x02, 0x00, 0x01], // descending keys
            &[0xa2, 0x00, 0x01, 0x00, 0x01], // repeated key
        ];
        for bytes in refused {
            assert!(decode::<Pair>("pair", bytes).is_err(), "{bytes:02x?}");
        }
    }
}
