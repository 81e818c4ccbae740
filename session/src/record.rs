//! Records of a response: what one chunk of M2 holds.

use cloister_attestation::cbor;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::{
    Malformed,
    inner::ResponseHead,
    limits::{END_RECORD, MAX_CHUNK},
};

/// Type octet and length of the payload.
pub(crate) const RECORD_HEADER: usize = 3;

/// Most payload bytes of a record of `size` bytes.
pub(crate) const fn capacity(size: usize) -> usize {
    size.saturating_sub(RECORD_HEADER)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Head = 1,
    Data = 2,
    Dummy = 3,
    Error = 4,
    End = 5,
}

/// What has been said of an answer: the order in which its records may come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    #[default]
    Nothing,
    Head,
    Error,
}

impl Progress {
    /// What has been said after a record of `kind`; `None`: it may not come here.
    pub(crate) const fn after(self, kind: Kind) -> Option<Self> {
        match (self, kind) {
            (Self::Nothing, Kind::Head) | (Self::Head, Kind::Data | Kind::Dummy | Kind::End) => Some(Self::Head),
            (Self::Nothing | Self::Head, Kind::Error) | (Self::Error, Kind::Dummy | Kind::End) => Some(Self::Error),
            _ => None,
        }
    }
}

/// Why an answer failed inside the enclave. Closed: engine texts never get here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The lease ended before the answer did; nothing was lost but time.
    Preempted,
    /// The engine failed, or ended in mid-stream.
    EngineFailed,
    /// The engine gave nothing for too long.
    EngineTimeout,
    /// The request was opened before.
    Replayed,
    /// The tenant has too many requests in the replay cache.
    QuotaExceeded,
    /// The answer is larger than what may be kept for its delivery.
    AnswerTooLarge,
    /// The attestation behind this answer ended.
    Revoked,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 7] = [
        Self::Preempted,
        Self::EngineFailed,
        Self::EngineTimeout,
        Self::Replayed,
        Self::QuotaExceeded,
        Self::AnswerTooLarge,
        Self::Revoked,
    ];

    /// Name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preempted => "preempted",
            Self::EngineFailed => "engine_failed",
            Self::EngineTimeout => "engine_timeout",
            Self::Replayed => "replayed",
            Self::QuotaExceeded => "quota_exceeded",
            Self::AnswerTooLarge => "answer_too_large",
            Self::Revoked => "revoked",
        }
    }

    /// What a person reads.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Preempted => "the lease of the model server ended before the answer did; send the request again",
            Self::EngineFailed => "the model server failed while it answered",
            Self::EngineTimeout => "the model server did not answer in time",
            Self::Replayed => "this sealed request was already answered once",
            Self::QuotaExceeded => "too many requests of this tenant in this key window",
            Self::AnswerTooLarge => "the answer is larger than the enclave delivers",
            Self::Revoked => "the enclave's attestation ended; send the request again",
        }
    }

    /// Whether the same request, sealed anew, may succeed.
    #[must_use]
    pub const fn retryable(self) -> bool {
        !matches!(self, Self::Replayed | Self::AnswerTooLarge)
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ErrorWire {
    #[n(0)]
    code: String,
    #[n(1)]
    message: String,
    #[n(2)]
    retryable: bool,
}

pub(crate) fn encode_error(code: ErrorCode) -> Vec<u8> {
    cbor::encode(&ErrorWire {
        code: code.name().to_owned(),
        message: code.message().to_owned(),
        retryable: code.retryable(),
    })
}

fn decode_error(bytes: &[u8]) -> Result<ErrorCode, Malformed> {
    let wire: ErrorWire = cbor::decode("error record", bytes).map_err(|_| WHAT)?;
    ErrorCode::ALL
        .into_iter()
        .find(|code| code.name() == wire.code && code.message() == wire.message && code.retryable() == wire.retryable)
        .ok_or(WHAT)
}

/// A record as opened by a client.
pub(crate) enum Record {
    Head(ResponseHead),
    Data(Zeroizing<Vec<u8>>),
    Dummy,
    Error(ErrorCode),
    End(Vec<u8>),
}

impl Record {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Head(_) => Kind::Head,
            Self::Data(_) => Kind::Data,
            Self::Dummy => Kind::Dummy,
            Self::Error(_) => Kind::Error,
            Self::End(_) => Kind::End,
        }
    }
}

const WHAT: Malformed = Malformed("record");

/// Encodes a record, padded with zeros to `size`; no padding when `size` is 0.
///
/// # Errors
/// [`Malformed`] if the payload does not fit.
pub(crate) fn encode(kind: Kind, payload: &[u8], size: usize) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let least = RECORD_HEADER.saturating_add(payload.len());
    let size = if size == 0 { least } else { size };
    let length = u16::try_from(payload.len()).map_err(|_| WHAT)?;
    if least > size || size > MAX_CHUNK {
        return Err(WHAT);
    }
    let mut out = Zeroizing::new(Vec::with_capacity(size));
    out.push(kind as u8);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
    out.resize(size, 0);
    Ok(out)
}

/// Decodes a record of exactly `size` bytes; of any size, without padding, when `size` is 0.
///
/// # Errors
/// [`Malformed`] for another size, an unknown type, padding that is not zero, a dummy with content, and an end record
/// anywhere but in the final chunk or anything else there.
pub(crate) fn decode(bytes: &[u8], record_size: usize, last: bool) -> Result<Record, Malformed> {
    let size = match (record_size, last) {
        (0, _) => bytes.len(),
        (_, true) => END_RECORD,
        (size, false) => size,
    };
    if bytes.len() != size {
        return Err(WHAT);
    }
    let (&[kind, high, low], rest) = bytes.split_first_chunk::<RECORD_HEADER>().ok_or(WHAT)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (payload, padding) = rest.split_at_checked(length).ok_or(WHAT)?;
    let padded = record_size != 0;
    if padding.iter().any(|byte| *byte != 0) || (!padded && !padding.is_empty()) {
        return Err(WHAT);
    }
    match (kind, last) {
        (5, true) => Ok(Record::End(payload.to_vec())),
        (1, false) => ResponseHead::decode(payload).map(Record::Head),
        (2, false) if !payload.is_empty() => Ok(Record::Data(Zeroizing::new(payload.to_vec()))),
        (3, false) if padded && payload.is_empty() => Ok(Record::Dummy),
        (4, false) => decode_error(payload).map(Record::Error),
        _ => Err(WHAT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_types_and_padding() {
        let data = encode(Kind::Data, b"abc", 256).unwrap();
        assert_eq!(data.len(), 256);
        assert!(matches!(decode(&data, 256, false), Ok(Record::Data(d)) if d.as_slice() == b"abc"));
        assert!(decode(&data, 257, false).is_err(), "other size");
        assert!(decode(&data, 256, true).is_err(), "not an end");
        let mut dirty = data.to_vec();
        dirty[255] = 1;
        assert!(decode(&dirty, 256, false).is_err(), "padding");
        dirty[255] = 0;
        dirty[0] = 6;
        assert!(decode(&dirty, 256, false).is_err(), "unknown type");
        assert!(
            decode(&encode(Kind::Data, b"", 256).unwrap(), 256, false).is_err(),
            "empty data"
        );
        assert!(
            decode(&encode(Kind::Dummy, b"x", 256).unwrap(), 256, false).is_err(),
            "dummy with content"
        );
        assert!(
            decode(&encode(Kind::Dummy, b"", 0).unwrap(), 0, false).is_err(),
            "dummy without padding"
        );
        assert!(
            decode(&encode(Kind::End, b"x", 0).unwrap(), 0, false).is_err(),
            "end that is not final"
        );
        assert!(matches!(
            decode(&encode(Kind::End, b"x", END_RECORD).unwrap(), 256, true),
            Ok(Record::End(_))
        ));
        assert!(
            decode(&encode(Kind::End, b"x", 256).unwrap(), 256, true).is_err(),
            "short end"
        );
        assert!(decode(&[&encode(Kind::Data, b"x", 0).unwrap()[..], &[0]].concat(), 0, false).is_err());
        assert!(encode(Kind::Data, &[0; 254], 256).is_err());
        assert!(decode(&[2, 0, 9, 1], 0, false).is_err(), "length beyond the record");
    }

    #[test]
    fn only_known_errors_are_read() {
        for code in ErrorCode::ALL {
            let record = encode(Kind::Error, &encode_error(code), 256).unwrap();
            assert!(matches!(decode(&record, 256, false), Ok(Record::Error(read)) if read == code));
        }
        let forged = cbor::encode(&ErrorWire {
            code: "preempted".into(),
            message: "go here".into(),
            retryable: true,
        });
        assert!(decode(&encode(Kind::Error, &forged, 0).unwrap(), 0, false).is_err());
    }
}
