//! A report: an SPDM 1.1 GET_MEASUREMENTS request, and the MEASUREMENTS response to it (DMTF DSP0274 1.1.0, sections 10.11.1
//! and 10.11.2).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::opaque::Opaque;
use super::refusal::ReportRefusal;

/// Longest evidence in bytes, as message or as hex text; a Hopper's message has about 4100.
pub const MAX_EVIDENCE_LEN: usize = 32 * 1024;
/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 32;
/// Length of a SHA-384 in bytes.
pub const DIGEST_LEN: usize = 48;
/// Length of a signature in bytes: r and s.
pub const SIGNATURE_LEN: usize = 96;

/// SPDM 1.1, GET_MEASUREMENTS, with a signature, all of them.
const REQUEST: [u8; 4] = [0x11, 0xe0, 0x01, 0xff];
/// SPDM 1.1, MEASUREMENTS.
const RESPONSE: [u8; 2] = [0x11, 0x60];
/// `MeasurementSpecification`: DMTF's.
const DMTF: u8 = 1;
/// Bit 7 of `DMTFSpecMeasurementValueType`: no digest, but what would be digested.
const RAW: u8 = 0x80;

/// Measurements of a device: index of the block (from 1) and SHA-384.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measurements(BTreeMap<u8, [u8; DIGEST_LEN]>);

/// A report in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Nonce of the request.
    pub nonce: [u8; NONCE_LEN],
    /// Certificate slot that the request names.
    pub slot: u8,
    /// The device's own nonce.
    pub responder_nonce: [u8; NONCE_LEN],
    /// All measurements.
    pub measurements: Measurements,
    /// What else the device says of itself.
    pub opaque: Opaque,
    /// r and s over [`Self::signed`].
    pub signature: [u8; SIGNATURE_LEN],
    /// What is signed: the request, and the response up to the signature.
    pub signed: Vec<u8>,
}

// === impl Measurements ===

impl Measurements {
    /// The measurement of a block.
    #[must_use]
    pub fn get(&self, index: u8) -> Option<&[u8; DIGEST_LEN]> {
        self.0.get(&index)
    }

    /// All of them, in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8; DIGEST_LEN])> {
        self.0.iter().map(|(index, digest)| (*index, digest))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// For tests and for other sources of measurements.
impl FromIterator<(u8, [u8; DIGEST_LEN])> for Measurements {
    fn from_iter<I: IntoIterator<Item = (u8, [u8; DIGEST_LEN])>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

// === impl Report ===

impl Report {
    /// Parses a report: the message, or its hex text as NVIDIA's samples have it.
    ///
    /// One zero byte after the signature is tolerated: some drivers hand out one more byte than there is.
    ///
    /// # Errors
    /// [`ReportRefusal`] for anything else that is not exactly one request and its response.
    pub fn parse(evidence: &[u8]) -> Result<Self, ReportRefusal> {
        if evidence.len() > MAX_EVIDENCE_LEN {
            return Err(ReportRefusal::TooLong(evidence.len()));
        }
        let message = from_text(evidence)?;
        let mut reader = Reader { rest: &message };
        if reader.array("request")? != REQUEST {
            return Err(ReportRefusal::Request);
        }
        let nonce = reader.array("request's nonce")?;
        let [slot] = reader.array("request")?;
        if reader.array("response's header")? != RESPONSE {
            return Err(ReportRefusal::Response);
        }
        let _parameters: [u8; 2] = reader.array("response's header")?;
        let [blocks] = reader.array("number of blocks")?;
        let [low, middle, high] = reader.array("length of the measurements")?;
        let record = u32::from_le_bytes([low, middle, high, 0]);
        let record = reader.take(usize::try_from(record).unwrap_or(usize::MAX), "measurements")?;
        let measurements = measurements(blocks, record)?;
        let responder_nonce = reader.array("response's nonce")?;
        let opaque = reader.u16("length of the opaque data")?;
        let opaque = Opaque::parse(reader.take(usize::from(opaque), "opaque data")?)?;
        let signed = message.len().saturating_sub(reader.rest.len());
        let signature = reader.array("signature")?;
        if !matches!(reader.rest, [] | [0]) {
            return Err(ReportRefusal::Trailing(reader.rest.len()));
        }
        Ok(Self {
            nonce,
            slot,
            responder_nonce,
            measurements,
            opaque,
            signature,
            signed: message.get(..signed).unwrap_or_default().to_vec(),
        })
    }
}

/// A message begins with a byte that no hex digit is.
fn from_text(evidence: &[u8]) -> Result<Cow<'_, [u8]>, ReportRefusal> {
    let [version, ..] = REQUEST;
    if evidence.first() == Some(&version) || !evidence.first().is_some_and(u8::is_ascii_hexdigit) {
        return Ok(Cow::Borrowed(evidence));
    }
    let message = hex::decode(evidence.trim_ascii_end()).map_err(|_| ReportRefusal::NotHex)?;
    Ok(Cow::Owned(message))
}

/// Blocks: index, specification, length; then type, length and digest.
fn measurements(said: u8, record: &[u8]) -> Result<Measurements, ReportRefusal> {
    let mut reader = Reader { rest: record };
    let mut found = BTreeMap::new();
    while !reader.rest.is_empty() {
        let [index, specification] = reader.array("measurements")?;
        let len = reader.u16("measurements")?;
        let mut block = Reader {
            rest: reader.take(usize::from(len), "measurements")?,
        };
        if index == 0 {
            return Err(ReportRefusal::BlockZero);
        }
        let wrong = |_| ReportRefusal::Block(index);
        let [kind] = block.array("block").map_err(wrong)?;
        let value_len = block.u16("block").map_err(wrong)?;
        let digest: [u8; DIGEST_LEN] = block.array("block").map_err(wrong)?;
        let has_form = specification == DMTF && kind & RAW == 0 && usize::from(value_len) == DIGEST_LEN;
        if !has_form || !block.rest.is_empty() {
            return Err(ReportRefusal::Block(index));
        }
        if found.insert(index, digest).is_some() {
            return Err(ReportRefusal::DuplicateBlock(index));
        }
    }
    if found.len() != usize::from(said) {
        return Err(ReportRefusal::BlockCount {
            said,
            found: found.len(),
        });
    }
    Ok(Measurements(found))
}

/// Bytes that are still to be read.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], ReportRefusal> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ReportRefusal::Truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReportRefusal> {
        let taken = self.take(N, what)?;
        taken.try_into().map_err(|_| ReportRefusal::Truncated(what))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, ReportRefusal> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }
}
