//! Server-sent events, taken apart however the bytes are cut.

use zeroize::Zeroizing;

use crate::{ApiError, ErrorCode, limits::MAX_EVENT, secret::extend};

/// One event of the engine.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    /// The data lines, joined by line feeds.
    pub(super) data: &'a [u8],
    /// Whether llama.cpp's own field `error:` carried it.
    pub(super) error: bool,
}

/// Lines and data that are not complete yet.
#[derive(Default)]
pub(super) struct Sse {
    line: Zeroizing<Vec<u8>>,
    data: Zeroizing<Vec<u8>>,
    has_data: bool,
    error: bool,
}

impl Sse {
    /// Takes bytes cut anywhere and hands every event that they complete to `sink`.
    ///
    /// # Errors
    /// [`ErrorCode::EngineError`] for an event over [`MAX_EVENT`]; otherwise what `sink` says.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(Event<'_>) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.line_ends(line, &mut sink)?;
            } else {
                self.keep(line)?;
                let line = std::mem::take(&mut self.line);
                self.line_ends(&line, &mut sink)?;
            }
        }
        self.keep(rest)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), ApiError> {
        if self.line.len().saturating_add(part.len()) > MAX_EVENT {
            return Err(ErrorCode::EngineError.into());
        }
        extend(&mut self.line, part);
        Ok(())
    }

    fn line_ends(
        &mut self,
        line: &[u8],
        sink: &mut impl FnMut(Event<'_>) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return self.event_ends(sink);
        }
        let (value, error) = match (line.strip_prefix(b"data:"), line.strip_prefix(b"error:")) {
            (Some(value), _) => (value, false),
            (None, Some(value)) => (value, true),
            // Comments keep a connection alive; event names and ids say nothing that the data does not.
            (None, None) => return Ok(()),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if self.data.len().saturating_add(value.len()) >= MAX_EVENT {
            return Err(ErrorCode::EngineError.into());
        }
        if self.has_data {
            extend(&mut self.data, b"\n");
        }
        extend(&mut self.data, value);
        self.has_data = true;
        self.error |= error;
        Ok(())
    }

    fn event_ends(&mut self, sink: &mut impl FnMut(Event<'_>) -> Result<(), ApiError>) -> Result<(), ApiError> {
        if !std::mem::take(&mut self.has_data) {
            return Ok(());
        }
        let error = std::mem::take(&mut self.error);
        let result = sink(Event {
            data: &self.data,
            error,
        });
        self.data.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Result<Vec<(String, bool)>, ApiError> {
        let mut sse = Sse::default();
        let mut events = Vec::new();
        for piece in pieces {
            sse.push(piece, |event| {
                events.push((String::from_utf8_lossy(event.data).into_owned(), event.error));
                Ok(())
            })?;
        }
        Ok(events)
    }

    #[test]
    fn fields_are_told_apart() {
        let text = b": ping\n\nevent: x\nid: 1\ndata: a\ndata:b\n\ndata: c\r\n\r\nerror: {}\n\ndata: never ended";
        let seen = events(&[text]).unwrap();
        assert_eq!(
            seen,
            [
                ("a\nb".to_owned(), false),
                ("c".to_owned(), false),
                ("{}".to_owned(), true)
            ]
        );
    }

    #[test]
    fn any_cut_gives_the_same_events() {
        let text = b"data: one\n\n: ping\n\ndata: tw\xc3\xb6\r\n\r\nerror: {\"a\":1}\n\ndata: [DONE]\n\n";
        let whole = events(&[text]).unwrap();
        for cut in 0..=text.len() {
            let (left, right) = text.split_at(cut);
            assert_eq!(events(&[left, right]).unwrap(), whole);
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(events(&bytes).unwrap(), whole);
    }

    #[test]
    fn an_event_is_capped() {
        let line = [b"data: ".as_slice(), &vec![b'x'; MAX_EVENT]].concat();
        assert!(events(&[&line, b"\n\n"]).is_err());
        let lines = b"data: 0123456789\n".repeat(MAX_EVENT / 10);
        assert!(events(&[&lines]).is_err());
        let fits = [b"data: ".as_slice(), &vec![b'x'; MAX_EVENT - 100], b"\n\n"].concat();
        assert_eq!(events(&[&fits]).unwrap().len(), 1);
    }
}
