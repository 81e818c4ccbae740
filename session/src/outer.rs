//! The outer part of M1: header and wraps. All of it that a router can, and has to, read.

use cloister_attestation::{ModelDigest, UnixTime, identity::sha256};

use crate::{
    Malformed,
    ids::{HeaderHash, KeyId, RequestId, TenantRef},
    limits::{MAX_BODY, MAX_CLOCK_SKEW, MAX_HEADER, MAX_TTL, MAX_WRAPS, MIN_BUCKET, VERSION, WRAP_LEN},
};

/// Bytes of the header before the list of candidates.
const FIXED_HEADER: usize = 16 + 8 + 4 + 16 + 32 + 4 + 32 + 1;

/// Size of a padded inner request: a power of two from 1 KiB to 8 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaddingBucket(u32);

impl PaddingBucket {
    /// The smallest bucket that holds `length` bytes; `None` above 8 MiB.
    #[must_use]
    pub fn for_length(length: usize) -> Option<Self> {
        let size = length.max(MIN_BUCKET).checked_next_power_of_two()?;
        if size > MAX_BODY {
            None
        } else {
            u32::try_from(size).ok().map(Self)
        }
    }

    /// Takes a size only if it is one of the buckets.
    #[must_use]
    pub fn from_size(size: u32) -> Option<Self> {
        Self::for_length(usize::try_from(size).ok()?).filter(|bucket| bucket.0 == size)
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        self.0 as usize
    }
}

/// Header of M1, visible outside the seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Random name of the request.
    pub request_id: RequestId,
    /// When the client made it.
    pub created: UnixTime,
    /// Seconds after `created` in which it may be opened, 1 to 120.
    pub ttl: u32,
    /// Whose it is.
    pub tenant_ref: TenantRef,
    /// Model that is asked for.
    pub model: ModelDigest,
    /// Size of the padded inner request.
    pub bucket: PaddingBucket,
    /// Commitment to the data encryption key.
    pub dek_commit: [u8; 32],
    /// Candidates in order of preference, 1 to 4, all different.
    pub candidates: Vec<KeyId>,
}

impl Header {
    /// First second in which the request may not be opened any more.
    #[must_use]
    pub const fn expires(&self) -> UnixTime {
        self.created.plus(self.ttl as u64)
    }

    /// Whether the request may be opened at `now`: not before it was made (30 s of skew are allowed), not after it expired.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.created <= now.plus(MAX_CLOCK_SKEW) && now < self.expires()
    }

    /// Encoding on the wire, without its length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_HEADER + 16 * self.candidates.len());
        out.extend_from_slice(self.request_id.as_bytes());
        out.extend_from_slice(&self.created.0.to_be_bytes());
        out.extend_from_slice(&self.ttl.to_be_bytes());
        out.extend_from_slice(self.tenant_ref.as_bytes());
        out.extend_from_slice(self.model.as_bytes());
        out.extend_from_slice(&self.bucket.0.to_be_bytes());
        out.extend_from_slice(&self.dek_commit);
        out.push(self.candidates.len() as u8);
        self.candidates
            .iter()
            .for_each(|key| out.extend_from_slice(key.as_bytes()));
        out
    }

    /// Hash of the encoding.
    #[must_use]
    pub fn hash(&self) -> HeaderHash {
        header_hash(&self.to_bytes())
    }
}

pub(crate) fn header_hash(bytes: &[u8]) -> HeaderHash {
    HeaderHash::from_bytes(*sha256(&[bytes]).as_bytes())
}

/// A wrap as received: the DEK, sealed to one candidate.
#[derive(Clone, PartialEq, Eq)]
pub struct Wrap {
    key_id: KeyId,
    bytes: Vec<u8>,
}

impl Wrap {
    /// Whose it is.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Encapsulated key and sealed DEK.
    pub(crate) fn sealed(&self) -> &[u8] {
        &self.bytes
    }
}

/// The outer part of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct OuterRequest {
    header: Header,
    header_bytes: Vec<u8>,
    wraps: Vec<Wrap>,
}

/// Outcome of reading the outer part from what has arrived.
pub enum Parsed {
    /// More bytes are needed; never more than [`MAX_OUTER`](crate::limits::MAX_OUTER) in all.
    Incomplete,
    /// Complete.
    Complete {
        /// The outer part.
        outer: Box<OuterRequest>,
        /// How many bytes it took; the chunks follow.
        consumed: usize,
    },
}

const WHAT: Malformed = Malformed("request");

impl OuterRequest {
    /// Reads the outer part from the first bytes of M1.
    ///
    /// # Errors
    /// [`Malformed`] as soon as the bytes cannot become an outer part: version, lengths, counts, time to live, bucket,
    /// repeated candidates, wraps in another order than the candidates.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
        let mut reader = Reader(bytes);
        match Self::read(&mut reader) {
            Ok(outer) => Ok(Parsed::Complete {
                outer: Box::new(outer),
                consumed: bytes.len() - reader.0.len(),
            }),
            Err(Stop::Incomplete) => Ok(Parsed::Incomplete),
            Err(Stop::Malformed) => Err(WHAT),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Stop> {
        if reader.array::<1>()? != [VERSION] {
            return Err(Stop::Malformed);
        }
        let length = usize::from(u16::from_be_bytes(reader.array()?));
        if !(FIXED_HEADER..=MAX_HEADER).contains(&length) {
            return Err(Stop::Malformed);
        }
        let header_bytes = reader.take(length)?.to_vec();
        let header = read_header(&header_bytes).map_err(|_| Stop::Malformed)?;
        let count = usize::from(reader.array::<1>()?[0]);
        if count != header.candidates.len() {
            return Err(Stop::Malformed);
        }
        let mut wraps = Vec::with_capacity(count);
        for candidate in &header.candidates {
            let key_id = KeyId::from_bytes(reader.array()?);
            if key_id != *candidate {
                return Err(Stop::Malformed);
            }
            wraps.push(Wrap {
                key_id,
                bytes: reader.take(WRAP_LEN - 16)?.to_vec(),
            });
        }
        Ok(Self {
            header,
            header_bytes,
            wraps,
        })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Hash of the header as received.
    #[must_use]
    pub fn header_hash(&self) -> HeaderHash {
        header_hash(&self.header_bytes)
    }

    /// The header as received.
    pub(crate) fn header_bytes(&self) -> &[u8] {
        &self.header_bytes
    }

    /// The wraps, in the order of the header's candidates.
    #[must_use]
    pub fn wraps(&self) -> &[Wrap] {
        &self.wraps
    }
}

/// A header from exactly its bytes.
fn read_header(bytes: &[u8]) -> Result<Header, Stop> {
    let mut reader = Reader(bytes);
    let request_id = RequestId::from_bytes(reader.array()?);
    let created = UnixTime(u64::from_be_bytes(reader.array()?));
    let ttl = u32::from_be_bytes(reader.array()?);
    let tenant_ref = TenantRef::from_bytes(reader.array()?);
    let model = ModelDigest::from_bytes(reader.array()?);
    let bucket = PaddingBucket::from_size(u32::from_be_bytes(reader.array()?)).ok_or(Stop::Malformed)?;
    let dek_commit = reader.array()?;
    let count = usize::from(reader.array::<1>()?[0]);
    if !(1..=MAX_WRAPS).contains(&count) || !(1..=MAX_TTL).contains(&ttl) {
        return Err(Stop::Malformed);
    }
    let mut candidates = Vec::with_capacity(count);
    for _ in 0..count {
        let key_id = KeyId::from_bytes(reader.array()?);
        if candidates.contains(&key_id) {
            return Err(Stop::Malformed);
        }
        candidates.push(key_id);
    }
    if !reader.0.is_empty() {
        return Err(Stop::Malformed);
    }
    Ok(Header {
        request_id,
        created,
        ttl,
        tenant_ref,
        model,
        bucket,
        dek_commit,
        candidates,
    })
}

/// Bytes that remain to be read.
struct Reader<'a>(&'a [u8]);

enum Stop {
    Incomplete,
    Malformed,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Stop::Incomplete)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Stop::Incomplete)?;
        self.0 = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(candidates: usize) -> Header {
        Header {
            request_id: RequestId::from_bytes([1; 16]),
            created: UnixTime(1000),
            ttl: 120,
            tenant_ref: TenantRef::from_bytes([2; 16]),
            model: ModelDigest::from_bytes([3; 32]),
            bucket: PaddingBucket::for_length(1).unwrap(),
            dek_commit: [4; 32],
            candidates: (0..candidates).map(|i| KeyId::from_bytes([i as u8; 16])).collect(),
        }
    }

    fn encode(header: &Header, wraps: &[KeyId]) -> Vec<u8> {
        let bytes = header.to_bytes();
        let mut out = vec![VERSION];
        out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        out.extend_from_slice(&bytes);
        out.push(wraps.len() as u8);
        for wrap in wraps {
            out.extend_from_slice(wrap.as_bytes());
            out.extend_from_slice(&[9; WRAP_LEN - 16]);
        }
        out
    }

    fn parse(header: &Header) -> Result<Parsed, Malformed> {
        OuterRequest::parse(&encode(header, &header.candidates))
    }

    #[test]
    fn every_prefix_is_incomplete_and_the_rest_is_left() {
        for count in 1..=4 {
            let header = header(count);
            let bytes = encode(&header, &header.candidates);
            for length in 0..bytes.len() {
                assert!(
                    matches!(OuterRequest::parse(&bytes[..length]), Ok(Parsed::Incomplete)),
                    "{length}"
                );
            }
            let Ok(Parsed::Complete { outer, consumed }) = OuterRequest::parse(&[&bytes[..], b"rest"].concat()) else {
                panic!("not complete")
            };
            assert_eq!(consumed, bytes.len());
            assert_eq!(outer.header(), &header);
            assert_eq!(outer.header_hash(), header.hash());
            assert_eq!(outer.wraps().len(), count);
        }
    }

    #[test]
    fn counts_and_order_of_wraps() {
        let two = header(2);
        assert!(parse(&header(0)).is_err(), "zero candidates");
        assert!(parse(&header(5)).is_err(), "five candidates");
        let mut repeated = header(2);
        repeated.candidates[1] = repeated.candidates[0];
        assert!(parse(&repeated).is_err(), "repeated candidate");
        let refused = |wraps: &[KeyId]| OuterRequest::parse(&encode(&two, wraps)).is_err();
        assert!(refused(&[]), "no wrap");
        assert!(refused(&two.candidates[..1]), "too few wraps");
        assert!(refused(&[two.candidates[0], two.candidates[0]]), "repeated wrap");
        assert!(
            refused(&[two.candidates[1], two.candidates[0]]),
            "wraps in another order"
        );
        assert!(
            refused(&[two.candidates.clone(), vec![KeyId::from_bytes([7; 16])]].concat()),
            "too many wraps"
        );
    }

    #[test]
    fn version_lengths_ttl_and_bucket() {
        let good = encode(&header(1), &header(1).candidates);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            OuterRequest::parse(&bytes).is_err()
        };
        assert!(!changed(0, 1));
        assert!(changed(0, 2), "version");
        assert!(changed(1, 0x80), "header above the cap");
        assert!(changed(2, 0), "header too short");
        let mut longer = good.clone();
        longer[2] += 1;
        longer.insert(3 + FIXED_HEADER + 16, 0);
        assert!(OuterRequest::parse(&longer).is_err(), "byte after the candidates");
        let with = |change: fn(&mut Header)| {
            let mut header = header(1);
            change(&mut header);
            parse(&header).is_err()
        };
        assert!(with(|h| h.ttl = 0));
        assert!(with(|h| h.ttl = 121));
        assert!(!with(|h| h.ttl = 1));
        assert!(with(|h| h.bucket = PaddingBucket(1025)));
        assert!(with(|h| h.bucket = PaddingBucket(512)));
        assert!(with(|h| h.bucket = PaddingBucket(16 << 20)));
        assert!(!with(|h| h.bucket = PaddingBucket(8 << 20)));
    }

    #[test]
    fn life_of_a_request() {
        let header = header(1);
        assert!(header.is_live(UnixTime(1000)));
        assert!(header.is_live(UnixTime(1119)));
        assert!(!header.is_live(UnixTime(1120)));
        assert!(header.is_live(UnixTime(970)));
        assert!(!header.is_live(UnixTime(969)));
    }

    #[test]
    fn buckets_are_powers_of_two() {
        let size = |length| PaddingBucket::for_length(length).map(PaddingBucket::size);
        assert_eq!(size(0), Some(1024));
        assert_eq!(size(1024), Some(1024));
        assert_eq!(size(1025), Some(2048));
        assert_eq!(size(MAX_BODY), Some(MAX_BODY));
        assert_eq!(size(MAX_BODY + 1), None);
    }
}
