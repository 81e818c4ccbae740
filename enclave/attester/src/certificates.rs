//! The table of certificates that a host hands to its SEV-SNP guests beside a report.
//!
//! Entries of 24 bytes (GUID 16, offset u32, length u32, little-endian), one of zeros at their end, then the certificates.
//! The GUIDs stand in the order of their text. Hosts fill the rest of a page with zeros.
//!
//! Source: GHCB (AMD 56421) 2.0, section 4.1.8.1, "SNP Extended Guest Request".

/// Most entries of a table: AMD has named five kinds of certificate.
pub const MAX_ENTRIES: usize = 16;
/// Longest table in bytes (`SEV_FW_BLOB_MAX_SIZE` of the kernel's driver is half of it).
pub const MAX_TABLE_LEN: usize = 32 * 1024;
/// Longest certificate in bytes; real ones have about 1360.
pub const MAX_CERTIFICATE_LEN: usize = 4 * 1024;

const ENTRY_LEN: usize = 24;
/// 63da758d-e664-4564-adc5-f4b93be8accd: certificate of the chip's own key.
const VCEK: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
/// a8074bc2-a25a-483e-aae6-39c045a0b8a1: certificate of a key that AMD lent to the cloud's operator.
const VLEK: [u8; 16] = *b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1";

/// The certificates of a table that sign reports. The intermediate ones are left: a verifier has its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// DER certificate of the chip's own key.
    pub vcek: Option<Vec<u8>>,
    /// DER certificate of the operator's key.
    pub vlek: Option<Vec<u8>>,
}

/// Bytes that are no table of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// More than [`MAX_TABLE_LEN`] bytes.
    #[error("the host's certificate table has {0} bytes, and at most {MAX_TABLE_LEN} are understood")]
    TooLong(usize),
    /// No entry of zeros, within the bytes and [`MAX_ENTRIES`].
    #[error("the host's certificate table has no end within {MAX_ENTRIES} entries")]
    Unterminated,
    /// An entry points into the table or behind its end.
    #[error("entry {0} of the host's certificate table points outside its certificates")]
    Outside(usize),
    /// An entry is empty or longer than [`MAX_CERTIFICATE_LEN`].
    #[error("entry {0} of the host's certificate table has {1} bytes: 1 to {MAX_CERTIFICATE_LEN} are understood")]
    Length(usize, usize),
    /// Two certificates of one kind.
    #[error("entry {0} of the host's certificate table is the second of its kind")]
    Repeated(usize),
}

/// Reads a table; no bytes at all are an empty one. Certificates of kinds that sign no report may be longer than
/// [`MAX_CERTIFICATE_LEN`], and are not copied.
///
/// # Errors
/// [`TableError`].
pub fn parse(table: &[u8]) -> Result<Certificates, TableError> {
    if table.len() > MAX_TABLE_LEN {
        return Err(TableError::TooLong(table.len()));
    }
    let mut found = Certificates::default();
    if table.is_empty() {
        return Ok(found);
    }
    let entries = entries(table)?;
    // The entry of zeros is part of the table.
    let first = entries.len().saturating_add(1).saturating_mul(ENTRY_LEN);
    for (number, (guid, offset, length)) in entries.into_iter().enumerate() {
        let end = offset.saturating_add(length);
        let bytes = table.get(offset..end).filter(|_| offset >= first);
        let bytes = bytes.ok_or(TableError::Outside(number))?;
        let place = match guid {
            VCEK => &mut found.vcek,
            VLEK => &mut found.vlek,
            _ => continue,
        };
        if bytes.is_empty() || bytes.len() > MAX_CERTIFICATE_LEN {
            return Err(TableError::Length(number, bytes.len()));
        }
        if place.replace(bytes.to_vec()).is_some() {
            return Err(TableError::Repeated(number));
        }
    }
    Ok(found)
}

type Entry = ([u8; 16], usize, usize);

/// The entries before the one of zeros.
fn entries(table: &[u8]) -> Result<Vec<Entry>, TableError> {
    let mut entries = Vec::new();
    for chunk in table.chunks_exact(ENTRY_LEN).take(MAX_ENTRIES.saturating_add(1)) {
        let (guid, offset, length) = entry(chunk).ok_or(TableError::Unterminated)?;
        if guid == [0; 16] {
            return Ok(entries);
        }
        entries.push((guid, offset, length));
    }
    Err(TableError::Unterminated)
}

fn entry(chunk: &[u8]) -> Option<Entry> {
    let (guid, rest) = chunk.split_first_chunk::<16>()?;
    let (offset, rest) = rest.split_first_chunk::<4>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    let size = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
    Some((*guid, size(offset)?, size(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: [u8; 16] = [0x4a; 16];

    fn table(entries: &[([u8; 16], u32, u32)], certificates: &[u8]) -> Vec<u8> {
        let mut table = Vec::new();
        for (guid, offset, length) in entries {
            table.extend_from_slice(guid);
            table.extend_from_slice(&offset.to_le_bytes());
            table.extend_from_slice(&length.to_le_bytes());
        }
        table.extend_from_slice(&[0; ENTRY_LEN]);
        table.extend_from_slice(certificates);
        table
    }

    #[test]
    fn certificates_are_found_by_kind() {
        let text = table(&[(ASK, 96, 2), (VLEK, 98, 1), (VCEK, 96, 3)], b"abc");
        let found = parse(&text).unwrap();
        assert_eq!(found.vcek.as_deref(), Some(b"abc".as_slice()));
        assert_eq!(found.vlek.as_deref(), Some(b"c".as_slice()));
        let mut padded = text;
        padded.resize(4096, 0);
        assert_eq!(parse(&padded).unwrap(), found, "a host fills its page");
        assert_eq!(parse(&[]).unwrap(), Certificates::default());
        assert_eq!(parse(&[0; 4096]).unwrap(), Certificates::default());
    }

    #[test]
    fn guids_stand_in_the_order_of_their_text() {
        assert_eq!(hex::encode(VCEK), "63da758de6644564adc5f4b93be8accd");
        assert_eq!(hex::encode(VLEK), "a8074bc2a25a483eaae639c045a0b8a1");
    }

    #[test]
    fn a_table_without_end_is_refused() {
        let text = table(&[(VCEK, 48, 1)], b"x");
        assert_eq!(parse(&text[..24]), Err(TableError::Unterminated));
        assert_eq!(parse(&text[..47]), Err(TableError::Unterminated));
        let many = table(&[(ASK, 0, 0); MAX_ENTRIES + 1], b"");
        assert_eq!(parse(&many), Err(TableError::Unterminated));
    }

    #[test]
    fn entries_outside_the_certificates_are_refused() {
        for (offset, length) in [(48, 2), (49, 1), (0, 1), (47, 1), (u32::MAX, 1), (48, u32::MAX)] {
            let text = table(&[(VCEK, offset, length)], b"x");
            assert_eq!(parse(&text), Err(TableError::Outside(0)), "{offset} {length}");
        }
        assert!(parse(&table(&[(VCEK, 48, 1)], b"x")).is_ok());
    }

    #[test]
    fn lengths_have_bounds() {
        assert_eq!(parse(&table(&[(VCEK, 48, 0)], b"x")), Err(TableError::Length(0, 0)));
        let long = vec![1; MAX_CERTIFICATE_LEN + 1];
        let text = table(&[(VCEK, 48, long.len() as u32)], &long);
        assert_eq!(parse(&text), Err(TableError::Length(0, long.len())));
        let text = vec![0; MAX_TABLE_LEN + 1];
        assert_eq!(parse(&text), Err(TableError::TooLong(text.len())));
    }

    #[test]
    fn a_kind_stands_there_once() {
        let text = table(&[(VCEK, 72, 1), (VCEK, 73, 1)], b"xy");
        assert_eq!(parse(&text), Err(TableError::Repeated(1)));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let text = table(&[(ASK, 96, 2), (VLEK, 98, 1), (VCEK, 96, 3)], b"abc");
        for at in 0..text.len() {
            drop(parse(&text[..at]));
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = text.clone();
                changed[at] = value;
                drop(parse(&changed));
            }
        }
    }
}
