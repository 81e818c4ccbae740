//! QUIC variable-length integers (RFC 9000 section 16), shortest form only.

use crate::Malformed;

const WHAT: Malformed = Malformed("varint");

/// Appends the shortest form of `value`, at most 2^30 - 1.
pub(crate) fn write(value: usize, out: &mut Vec<u8>) {
    debug_assert!(value < 1 << 30, "every length is capped far below");
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        _ => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
    }
}

/// Reads a varint of at most 4 bytes: nothing here is longer than 2^30 - 1. `None`: more bytes are needed.
///
/// # Errors
/// [`Malformed`] for a longer form than needed and for the 8-byte form.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (length, least) = match first >> 6 {
        0 => return Ok(Some((usize::from(first), 1))),
        1 => (2usize, 0x40u32),
        2 => (4, 0x4000),
        _ => return Err(WHAT),
    };
    let Some(encoded) = bytes.get(..length) else {
        return Ok(None);
    };
    let joined = encoded.iter().fold(0u32, |value, byte| (value << 8) | u32::from(*byte));
    let value = joined & if length == 2 { 0x3fff } else { 0x3fff_ffff };
    if value < least {
        Err(WHAT)
    } else {
        Ok(Some((value as usize, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_round_trips_in_its_shortest_form() {
        for value in [0, 1, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff] {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            assert_eq!(read(&bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(read(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn longer_forms_and_eight_bytes_are_refused() {
        for bytes in [
            [0x40, 0x3f, 0, 0],
            [0x80, 0, 0x3f, 0xff],
            [0xc0, 0, 0, 0],
            [0x40, 0, 0, 0],
        ] {
            assert_eq!(read(&bytes), Err(WHAT));
        }
    }
}
