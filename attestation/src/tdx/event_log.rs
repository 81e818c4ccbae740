//! Event logs of a guest: what was measured into its runtime measurements, one by one.
//!
//! A log proves nothing by itself. Replayed, it leads to values of `RTMR`; only if those are the quote's is its every digest
//! what was measured. What a log says *beside* the digests is proven only where the digest is made of it.

use aws_lc_rs::digest::{Context, SHA384};
use serde::Deserialize;

use super::VerifiedQuote;
use super::quote::{Body, Reader};
use super::refusal::TdxRefusal;
use crate::policy::Measurement;

/// Longest log in bytes: the area that firmware reserves for one has 256 KiB.
pub const MAX_EVENT_LOG_LEN: usize = 1024 * 1024;
/// Most events of a log.
pub const MAX_EVENTS: usize = 4096;

/// `EV_NO_ACTION`: measured into nothing.
const NO_ACTION: u32 = 3;
/// `TPM_ALG_SHA384`.
const ALG_SHA384: u16 = 0x000c;
/// Most kinds of digest per event.
const MAX_ALGORITHMS: u32 = 8;
/// Type of the events of dstack's guests, whose digest is made of all that they say.
const DSTACK_EVENT: u32 = 0x0800_0001;
const SIGNATURE: &[u8] = b"Spec ID Event03\0";

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Runtime measurement that it went into, 0 to 3; none for those into `MRTD`.
    pub rtmr: Option<u8>,
    /// Kind of event.
    pub kind: u32,
    /// What was measured.
    pub digest: Measurement,
    /// Name that the guest gave it, proven by the digest only for events of dstack's guests.
    pub name: String,
    /// What it says of itself, proven by the digest only for events of dstack's guests.
    pub data: Vec<u8>,
}

/// A log, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    events: Vec<Event>,
}

impl EventLog {
    /// Parses the log that firmware leaves in memory (`CCEL`): TCG PC Client Platform Firmware Profile, section 10, with the
    /// numbers of registers of the UEFI specification, section 38.4.1 (0 is `MRTD`, 1 to 4 are `RTMR` 0 to 3).
    ///
    /// # Errors
    /// [`TdxRefusal::EventLog`] or [`TdxRefusal::TooLong`] where it does not parse.
    pub fn from_ccel(bytes: &[u8]) -> Result<Self, TdxRefusal> {
        check_len(bytes.len())?;
        let mut reader = Reader::new(bytes);
        let malformed = |_| TdxRefusal::EventLog("its first event is not a Spec ID event of version 3");
        let algorithms = spec_id(&mut reader).map_err(malformed)?;
        if !algorithms.contains(&(ALG_SHA384, 48)) {
            return Err(TdxRefusal::EventLog("it has no SHA-384 digests"));
        }
        let mut events = Vec::new();
        while !ends(reader.rest()) {
            if events.len() == MAX_EVENTS {
                return Err(TdxRefusal::EventLog("it has too many events"));
            }
            let cut =
                |_| TdxRefusal::EventLog("an event is cut short, or has digests that its first event does not name");
            events.push(event(&mut reader, &algorithms).map_err(cut)?);
        }
        if events.iter().any(|event| event.rtmr.is_some_and(|at| at > 3)) {
            return Err(TdxRefusal::EventLog("an event is of a register that TDX does not have"));
        }
        Ok(Self { events })
    }

    /// Parses the log of dstack's guests: a JSON list of `{imr, event_type, digest, event, event_payload}`, bytes as hex
    /// digits. The digest of an event of the guest's own is made of its type, name and payload, and may be left out.
    ///
    /// # Errors
    /// [`TdxRefusal::EventLog`], [`TdxRefusal::EventDigest`] or [`TdxRefusal::TooLong`] where it does not parse.
    pub fn from_dstack(json: &str) -> Result<Self, TdxRefusal> {
        check_len(json.len())?;
        let all: Vec<DstackEvent> =
            serde_json::from_str(json).map_err(|_| TdxRefusal::EventLog("it is not a list of dstack's events"))?;
        if all.len() > MAX_EVENTS {
            return Err(TdxRefusal::EventLog("it has too many events"));
        }
        let events = all.into_iter().enumerate().map(|(at, event)| event.parse(at));
        Ok(Self {
            events: events.collect::<Result<_, _>>()?,
        })
    }

    /// The events in their order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What the runtime measurements are after all events.
    #[must_use]
    pub fn replay(&self) -> [Measurement; 4] {
        let mut all = [[0; Measurement::LEN]; 4];
        for event in self.events.iter().filter(|event| event.kind != NO_ACTION) {
            let Some(rtmr) = event.rtmr.and_then(|at| all.get_mut(usize::from(at))) else {
                continue;
            };
            *rtmr = sha384(&[rtmr, event.digest.as_bytes()]);
        }
        all.map(Measurement::from_bytes)
    }

    /// Compares the replay with the runtime measurements of `body`.
    ///
    /// # Errors
    /// [`TdxRefusal::Replay`] names the first that differs.
    pub fn check(&self, body: &Body) -> Result<(), TdxRefusal> {
        for ((replayed, found), at) in self.replay().into_iter().zip(body.rtmr).zip(0..) {
            if replayed != found {
                return Err(TdxRefusal::Replay { at, replayed, found });
            }
        }
        Ok(())
    }
}

impl VerifiedQuote {
    /// True if `log` is what led to the quote's runtime measurements.
    ///
    /// # Errors
    /// [`TdxRefusal::Replay`] names the first that differs.
    pub fn check_event_log(&self, log: &EventLog) -> Result<(), TdxRefusal> {
        log.check(&self.body)
    }
}

fn check_len(len: usize) -> Result<(), TdxRefusal> {
    if len > MAX_EVENT_LOG_LEN {
        return Err(TdxRefusal::TooLong {
            field: "event log",
            len,
            max: MAX_EVENT_LOG_LEN,
        });
    }
    Ok(())
}

/// The rest of the area that holds the log is all ones, or all zeros.
fn ends(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0xff) || rest.iter().all(|byte| *byte == 0)
}

/// The first event: in the old form, and of it only which digests the others have.
fn spec_id(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, TdxRefusal> {
    let refused = || TdxRefusal::EventLog("its first event is not a Spec ID event of version 3");
    reader.take(4, "register")?;
    if reader.u32("kind")? != NO_ACTION {
        return Err(refused());
    }
    reader.take(20, "digest")?;
    let mut spec = Reader::new(reader.counted(MAX_EVENT_LOG_LEN, "Spec ID event")?);
    if spec.take(SIGNATURE.len(), "signature")? != SIGNATURE {
        return Err(refused());
    }
    spec.take(8, "platform class and version")?;
    let count = spec.u32("number of algorithms")?;
    if count > MAX_ALGORITHMS {
        return Err(refused());
    }
    let mut algorithms = Vec::new();
    for _ in 0..count {
        algorithms.push((spec.u16("algorithm")?, spec.u16("length of its digests")?));
    }
    let [vendor_len] = spec.array("vendor's data")?;
    spec.take(usize::from(vendor_len), "vendor's data")?;
    spec.end("Spec ID event")?;
    Ok(algorithms)
}

fn event(reader: &mut Reader<'_>, algorithms: &[(u16, u16)]) -> Result<Event, TdxRefusal> {
    let register = reader.u32("register")?;
    let kind = reader.u32("kind")?;
    let count = reader.u32("number of digests")?;
    if usize::try_from(count).ok() != Some(algorithms.len()) {
        return Err(TdxRefusal::EventLog("an event has another number of digests"));
    }
    let mut found = None;
    for _ in 0..count {
        let id = reader.u16("algorithm")?;
        let known = algorithms.iter().find(|(known, _)| *known == id);
        let (_, len) = known.ok_or(TdxRefusal::EventLog("an event has a digest of another kind"))?;
        let bytes = reader.take(usize::from(*len), "digest")?;
        if id == ALG_SHA384 {
            found = Measurement::try_from(bytes).ok();
        }
    }
    let digest = found.ok_or(TdxRefusal::EventLog("an event has no SHA-384 digest"))?;
    Ok(Event {
        rtmr: register.checked_sub(1).map(|at| u8::try_from(at).unwrap_or(u8::MAX)),
        kind,
        digest,
        name: String::new(),
        data: reader.counted(MAX_EVENT_LOG_LEN, "event")?.to_vec(),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DstackEvent {
    imr: u8,
    event_type: u32,
    digest: String,
    event: String,
    event_payload: String,
}

impl DstackEvent {
    fn parse(self, at: usize) -> Result<Event, TdxRefusal> {
        if self.imr > 3 {
            return Err(TdxRefusal::EventLog("an event is of a register that TDX does not have"));
        }
        let data = hex::decode(&self.event_payload).map_err(|_| TdxRefusal::EventLog("a payload is not hex digits"))?;
        let given = if self.digest.is_empty() {
            None
        } else {
            let parsed = self.digest.parse::<Measurement>();
            Some(parsed.map_err(|_| TdxRefusal::EventLog("a digest is not 96 hex digits"))?)
        };
        let own = (self.event_type == DSTACK_EVENT).then(|| {
            let kind = self.event_type.to_le_bytes();
            Measurement::from_bytes(sha384(&[&kind, b":", self.event.as_bytes(), b":", &data]))
        });
        let digest = match (given, own) {
            (Some(given), Some(own)) if given != own => return Err(TdxRefusal::EventDigest(at)),
            (_, Some(own)) => own,
            (Some(given), None) => given,
            (None, None) => return Err(TdxRefusal::EventLog("an event of the firmware has no digest")),
        };
        Ok(Event {
            rtmr: Some(self.imr),
            kind: self.event_type,
            digest,
            name: self.event,
            data,
        })
    }
}

fn sha384(parts: &[&[u8]]) -> [u8; Measurement::LEN] {
    let mut context = Context::new(&SHA384);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; Measurement::LEN];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}
