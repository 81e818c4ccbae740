//! Text and buffers of prompts and answers: zeroised when dropped and when they grow, never printed.

use std::{fmt, io, ops::Deref};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// A string that is borrowed where its JSON form has no escapes and zeroised where it had to be copied.
pub(crate) enum Text<'a> {
    Borrowed(&'a str),
    Owned(Zeroizing<String>),
}

/// Writes JSON into a buffer whose old places are zeroised when it grows.
pub(crate) struct Writer<'a>(pub(crate) &'a mut Zeroizing<Vec<u8>>);

/// Appends, and zeroises the old place when the buffer has to move.
pub(crate) fn extend(buffer: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    let needed = buffer.len().saturating_add(bytes.len());
    if needed > buffer.capacity() {
        let mut bigger = Zeroizing::new(Vec::with_capacity(needed.max(buffer.capacity().saturating_mul(2))));
        bigger.extend_from_slice(buffer);
        *buffer = bigger;
    }
    buffer.extend_from_slice(bytes);
}

/// Appends, and zeroises the old place when the string has to move.
pub(crate) fn extend_str(buffer: &mut Zeroizing<String>, text: &str) {
    let needed = buffer.len().saturating_add(text.len());
    if needed > buffer.capacity() {
        let mut bigger = Zeroizing::new(String::with_capacity(needed.max(buffer.capacity().saturating_mul(2))));
        bigger.push_str(buffer);
        *buffer = bigger;
    }
    buffer.push_str(text);
}

/// Appends a value as JSON.
///
/// Types of this crate have string keys and no failing `Serialize`, and memory takes what is written, so an error means a
/// defect; it is reported as one.
pub(crate) fn write_json(buffer: &mut Zeroizing<Vec<u8>>, value: &impl Serialize) -> Result<(), crate::ApiError> {
    serde_json::to_writer(Writer(buffer), value).map_err(|_| crate::ErrorCode::EngineError.into())
}

// === impl Text ===

impl Text<'_> {
    pub(crate) fn into_owned(self) -> Text<'static> {
        match self {
            Text::Borrowed(text) => Text::Owned(Zeroizing::new(text.to_owned())),
            Text::Owned(text) => Text::Owned(text),
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::Borrowed(text))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text::Owned(Zeroizing::new(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text::Owned(Zeroizing::new(text)))
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

// === impl Writer ===

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        extend(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_borrows_where_it_can() {
        assert!(matches!(
            serde_json::from_str::<Text<'_>>(r#""plain""#).unwrap(),
            Text::Borrowed("plain")
        ));
        let escaped = serde_json::from_str::<Text<'_>>(r#""a\nb""#).unwrap();
        assert!(matches!(escaped, Text::Owned(_)));
        assert_eq!(&*escaped, "a\nb");
    }

    #[test]
    fn buffers_keep_what_they_hold_when_they_grow() {
        let mut bytes = Zeroizing::new(Vec::new());
        let mut text = Zeroizing::new(String::new());
        for _ in 0..100 {
            extend(&mut bytes, b"abc");
            extend_str(&mut text, "abc");
        }
        assert_eq!(*bytes, b"abc".repeat(100));
        assert_eq!(*text, "abc".repeat(100));
    }
}
