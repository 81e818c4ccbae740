//! Chains of certificates as PEM (RFC 7468), strictly: nothing between the certificates, nothing around them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::refusal::TdxRefusal;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// Exactly `count` certificates as DER, in their order. Intel's tools end a chain with one zero byte: that is taken.
pub(crate) fn certificates(text: &[u8], count: usize, what: &'static str) -> Result<Vec<Vec<u8>>, TdxRefusal> {
    let malformed = || TdxRefusal::Pem(what);
    let mut rest = text.strip_suffix(&[0]).unwrap_or(text);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let body = rest.strip_prefix(BEGIN).ok_or_else(malformed)?;
        let end = body
            .windows(END.len())
            .position(|part| part == END)
            .ok_or_else(malformed)?;
        let (body, after) = body.split_at_checked(end).ok_or_else(malformed)?;
        all.push(decode(body).ok_or_else(malformed)?);
        rest = after.strip_prefix(END).ok_or_else(malformed)?;
        while let Some(next) = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n")) {
            rest = next;
        }
    }
    if all.len() == count { Ok(all) } else { Err(malformed()) }
}

fn decode(body: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\n' | b'\r'))
        .collect();
    STANDARD.decode(digits).ok().filter(|der| !der.is_empty())
}
