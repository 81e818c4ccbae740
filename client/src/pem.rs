//! Text form of a tenant's keys and credentials: PEM (RFC 7468), strict, one object a file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Label of private keys, PKCS#8 as everywhere.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Label of member credentials.
pub const CREDENTIAL: &str = "CLOISTER MEMBER CREDENTIAL";
/// Largest file, bytes: a credential of 64 models is under 4 KiB.
pub const MAX_PEM_BYTES: usize = 16 * 1024;

const LINE: usize = 64;

/// Text that is not the PEM that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PEM file with exactly one \"{0}\"")]
pub struct PemError(&'static str);

/// Encodes one object.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    let body_capacity = der.len().div_ceil(3).saturating_mul(4);
    let lines = body_capacity.div_ceil(LINE);
    // Reserved once, so that no copy of a key is left behind by a move.
    let mut base64 = Zeroizing::new(vec![0; body_capacity]);
    let written = STANDARD.encode_slice(der, &mut base64).unwrap_or(0);
    let mut text = Zeroizing::new(Vec::with_capacity(body_capacity + lines + 2 * (label.len() + 18)));
    text.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in base64.get(..written).unwrap_or_default().chunks(LINE) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    text
}

/// Decodes a file that holds one object of this label and nothing else.
///
/// # Errors
///
/// [`PemError`], which says nothing of the content.
pub fn decode(label: &'static str, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let error = PemError(label);
    let body = text
        .trim_ascii()
        .strip_prefix(format!("-----BEGIN {label}-----").as_bytes())
        .and_then(|rest| rest.strip_suffix(format!("-----END {label}-----").as_bytes()))
        .ok_or(error)?;
    let mut base64 = Zeroizing::new(Vec::with_capacity(body.len()));
    base64.extend(body.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; base64.len()]);
    let length = STANDARD.decode_slice(&base64[..], &mut der).map_err(|_| error)?;
    der.truncate(length);
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_every_length() {
        for length in 0..200 {
            let der = vec![0xab; length];
            let text = encode(CREDENTIAL, &der);
            assert!(text.split(|byte| *byte == b'\n').all(|line| line.len() <= LINE));
            assert_eq!(*decode(CREDENTIAL, &text).unwrap(), der, "{length}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let text = encode(PRIVATE_KEY, b"key");
        assert!(decode(CREDENTIAL, &text).is_err(), "another label");
        assert!(
            decode(PRIVATE_KEY, &[&text[..], &text[..]].concat()).is_err(),
            "two objects"
        );
        assert!(decode(PRIVATE_KEY, b"").is_err());
        assert!(
            decode(
                PRIVATE_KEY,
                b"-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----"
            )
            .is_err()
        );
        assert!(
            decode(PRIVATE_KEY, &[b"x", &text[..]].concat()).is_err(),
            "text before it"
        );
    }
}
