//! Holds back the end of an event stream until the answer is known to be whole.
//!
//! A client takes `[DONE]` (or, in the Responses API, `response.completed`) for success. The proxy may pass on events as
//! they are authenticated, but that one only after the receipt: otherwise a cut answer would be a short success.

use crate::failure::{Code, Failure};
use bytes::{Bytes, BytesMut};

/// Largest single event, bytes. One event of the Responses API repeats the whole answer.
pub const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// Largest amount held back, bytes: everything from the terminal event on.
const MAX_HELD_BYTES: usize = 2 * MAX_EVENT_BYTES;

/// Events of the Responses API after which a client expects no more.
const TERMINAL_EVENTS: [&[u8]; 3] = [b"response.completed", b"response.incomplete", b"response.failed"];

/// Splits an event stream into whole events and withholds the terminal one with all that follows it.
#[derive(Default)]
pub struct DoneGate {
    partial: BytesMut,
    /// Where the search for the end of the partial event goes on, so that long events are scanned once.
    scanned: usize,
    held: BytesMut,
    holding: bool,
}

impl DoneGate {
    /// Takes authenticated bytes and gives what may be passed on: whole events only.
    ///
    /// # Errors
    ///
    /// An event, or what follows the terminal one, is over the limit.
    pub fn push(&mut self, data: &[u8]) -> Result<Bytes, Failure> {
        self.partial.extend_from_slice(data);
        let mut out = BytesMut::new();
        while let Some(end) = self.event_end() {
            let event = self.partial.split_to(end);
            self.scanned = 0;
            self.holding |= is_terminal(&event);
            if self.holding {
                self.held.extend_from_slice(&event);
            } else if out.is_empty() {
                out = event;
            } else {
                out.extend_from_slice(&event);
            }
        }
        if self.partial.len() > MAX_EVENT_BYTES || self.held.len() > MAX_HELD_BYTES {
            return Err(Failure::new(
                Code::AnswerTooLarge,
                "one event of the answer is over 8 MiB",
            ));
        }
        Ok(out.freeze())
    }

    /// Gives what was held back. Call it once the end of the answer is verified.
    pub fn release(mut self) -> Bytes {
        self.held.unsplit(self.partial);
        self.held.freeze()
    }

    /// The length of the first whole event, its blank line included. Lines end with LF or CRLF.
    fn event_end(&mut self) -> Option<usize> {
        let bytes = &self.partial;
        let mut from = self.scanned;
        while let Some(offset) = bytes.get(from..)?.iter().position(|byte| *byte == b'\n') {
            let next = from.checked_add(offset)?.checked_add(1)?;
            match (bytes.get(next), bytes.get(next.checked_add(1)?)) {
                (Some(b'\n'), _) => return next.checked_add(1),
                (Some(b'\r'), Some(b'\n')) => return next.checked_add(2),
                // Not enough bytes to tell: look at this line end again.
                (None, _) | (Some(b'\r'), None) => {
                    self.scanned = next.saturating_sub(1);
                    return None;
                }
                _ => from = next,
            }
        }
        self.scanned = bytes.len();
        None
    }
}

fn is_terminal(event: &[u8]) -> bool {
    event.split(|byte| *byte == b'\n').any(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        field(line, b"data:").is_some_and(|value| value.trim_ascii() == b"[DONE]")
            || field(line, b"event:").is_some_and(|value| TERMINAL_EVENTS.contains(&value.trim_ascii()))
    })
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &[u8] = b"data: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n";

    #[test]
    fn withholds_done_however_the_bytes_are_cut() {
        for size in 1..CHAT.len() {
            let mut gate = DoneGate::default();
            let mut passed = Vec::new();
            for piece in CHAT.chunks(size) {
                passed.extend_from_slice(&gate.push(piece).unwrap());
            }
            assert_eq!(passed, b"data: {\"a\":1}\n\ndata: {\"a\":2}\n\n", "pieces of {size}");
            assert_eq!(&gate.release()[..], b"data: [DONE]\n\n");
        }
    }

    #[test]
    fn understands_carriage_returns() {
        let text = b"data: 1\r\n\r\ndata:[DONE]\r\n\r\n";
        for size in 1..text.len() {
            let mut gate = DoneGate::default();
            let mut passed = Vec::new();
            for piece in text.chunks(size) {
                passed.extend_from_slice(&gate.push(piece).unwrap());
            }
            assert_eq!(passed, b"data: 1\r\n\r\n");
        }
    }

    #[test]
    fn withholds_the_last_event_of_a_response() {
        let mut gate = DoneGate::default();
        let first = b"event: response.output_text.delta\ndata: {}\n\n";
        let last = b"event: response.completed\ndata: {}\n\n";
        assert_eq!(&gate.push(first).unwrap()[..], first);
        assert!(gate.push(last).unwrap().is_empty());
        assert!(
            gate.push(first).unwrap().is_empty(),
            "nothing passes the terminal event"
        );
        assert_eq!(&gate.release()[..], [&last[..], &first[..]].concat());
    }

    #[test]
    fn text_that_only_mentions_done_passes() {
        let mut gate = DoneGate::default();
        let event = b"data: {\"content\":\"data: [DONE]\"}\n\n";
        assert_eq!(&gate.push(event).unwrap()[..], event);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut gate = DoneGate::default();
        let piece = vec![b'x'; 1024 * 1024];
        let refused = (0..9).find_map(|_| gate.push(&piece).err());
        assert_eq!(refused.unwrap().code, Code::AnswerTooLarge);
    }
}
