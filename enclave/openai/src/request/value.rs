//! A walk over the client's JSON that names where a fault is and never what stood there.
//!
//! `serde`'s derived parsers say what they found in their errors and cannot say where; both are wrong here. So each object is taken
//! apart into names and raw values, each known name is taken once, and what is left over is refused by its name.

use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess},
};
use serde_json::value::RawValue;

use crate::{
    ApiError, ErrorCode,
    limits::{MAX_NAME, MAX_NAMES, MAX_TOKEN},
    secret::Text,
};

/// Where a value stands, rendered only for an error.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Name(&'p Path<'p>, &'static str),
    Index(&'p Path<'p>, usize),
}

/// One value and its place.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a, 'p> {
    raw: &'a RawValue,
    at: Path<'p>,
}

/// The JSON type of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// An object whose names are taken one by one.
pub(crate) struct Object<'a, 'p> {
    fields: Vec<Field<'a>>,
    at: Path<'p>,
}

/// An array that knows its place.
pub(crate) struct Array<'a, 'p> {
    items: Vec<&'a RawValue>,
    at: Path<'p>,
}

struct Field<'a> {
    name: Text<'a>,
    raw: &'a RawValue,
    taken: Cell<bool>,
}

// === impl Path ===

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Name(Path::Root, name) => f.write_str(name),
            Path::Name(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Path<'_> {
    pub(crate) fn error(&self, code: ErrorCode) -> ApiError {
        match self {
            Path::Root => code.into(),
            path => ApiError::new(code).with_param(path.to_string()),
        }
    }

    /// The path of a name that the client made up, if it looks like a name at all.
    fn unknown(&self, name: &str, code: ErrorCode) -> ApiError {
        let plain = !name.is_empty()
            && name.len() <= MAX_NAME
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        match self {
            path if !plain => path.error(code),
            Path::Root => ApiError::new(code).with_param(name),
            path => ApiError::new(code).with_param(format!("{path}.{name}")),
        }
    }
}

// === impl Value ===

impl<'a, 'p> Value<'a, 'p> {
    pub(crate) fn new(raw: &'a RawValue, at: Path<'p>) -> Self {
        Self { raw, at }
    }

    pub(crate) fn error(&self, code: ErrorCode) -> ApiError {
        self.at.error(code)
    }

    /// The length of the value as written, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.raw.get().len()
    }

    pub(crate) fn kind(&self) -> Kind {
        // A raw value has no space around it and was scanned as JSON, so its first byte tells its type.
        match self.raw.get().as_bytes().first() {
            Some(b'n') | None => Kind::Null,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'"') => Kind::String,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            Some(_) => Kind::Number,
        }
    }

    pub(crate) fn boolean(&self) -> Result<bool, ApiError> {
        self.typed(ErrorCode::InvalidType)
    }

    pub(crate) fn text(&self) -> Result<Text<'a>, ApiError> {
        match self.kind() {
            // The scan does not check that surrogates pair up, so a string can still be wrong.
            Kind::String => self.typed(ErrorCode::InvalidValue),
            _ => Err(self.error(ErrorCode::InvalidType)),
        }
    }

    pub(crate) fn text_up_to(&self, max: usize) -> Result<Text<'a>, ApiError> {
        let text = self.text()?;
        if text.len() > max {
            return Err(self.error(ErrorCode::RequestTooLarge));
        }
        Ok(text)
    }

    /// A name of a function, a schema or a participant: `[A-Za-z0-9_.-]{1,64}`.
    pub(crate) fn name(&self) -> Result<Text<'a>, ApiError> {
        let text = self.text_up_to(MAX_NAME)?;
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if text.is_empty() || !plain {
            return Err(self.error(ErrorCode::InvalidValue));
        }
        Ok(text)
    }

    pub(crate) fn number(&self, min: f64, max: f64) -> Result<f64, ApiError> {
        if self.kind() != Kind::Number {
            return Err(self.error(ErrorCode::InvalidType));
        }
        let number: f64 = self.typed(ErrorCode::InvalidValue)?;
        if !(min..=max).contains(&number) {
            return Err(self.error(ErrorCode::InvalidValue));
        }
        Ok(number)
    }

    pub(crate) fn integer(&self, min: i64, max: i64) -> Result<i64, ApiError> {
        if self.kind() != Kind::Number {
            return Err(self.error(ErrorCode::InvalidType));
        }
        let number: i64 = self.typed(ErrorCode::InvalidType)?;
        if !(min..=max).contains(&number) {
            return Err(self.error(ErrorCode::InvalidValue));
        }
        Ok(number)
    }

    /// Any JSON number.
    pub(crate) fn any_number(&self) -> Result<serde_json::Number, ApiError> {
        self.typed(ErrorCode::InvalidValue)
    }

    /// One of a closed list of words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ApiError> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == &*text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| self.error(ErrorCode::UnsupportedValue))
    }

    pub(crate) fn array(&self, max: usize) -> Result<Array<'a, 'p>, ApiError> {
        if self.kind() != Kind::Array {
            return Err(self.error(ErrorCode::InvalidType));
        }
        let Items { items, more } = Items::read(self.raw, max).ok_or_else(|| self.error(ErrorCode::InvalidValue))?;
        if more {
            return Err(self.error(ErrorCode::RequestTooLarge));
        }
        Ok(Array { items, at: self.at })
    }

    pub(crate) fn object(&self) -> Result<Object<'a, 'p>, ApiError> {
        if self.kind() != Kind::Object {
            return Err(self.error(ErrorCode::InvalidType));
        }
        let Fields { fields, more } =
            serde_json::from_str::<Fields<'a>>(self.raw.get()).map_err(|_| self.error(ErrorCode::InvalidValue))?;
        if more {
            return Err(self.error(ErrorCode::RequestTooLarge));
        }
        let mut names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[left, right]| left == right) {
            return Err(self.at.unknown(name, ErrorCode::DuplicateParameter));
        }
        Ok(Object { fields, at: self.at })
    }

    /// The type of an array's first item, or `None` for an empty array.
    pub(crate) fn first_kind(&self) -> Result<Option<Kind>, ApiError> {
        if self.kind() != Kind::Array {
            return Err(self.error(ErrorCode::InvalidType));
        }
        let first = Items::read(self.raw, 1).ok_or_else(|| self.error(ErrorCode::InvalidValue))?;
        Ok(first.items.first().map(|raw| Value::new(raw, self.at).kind()))
    }

    /// A list of at least one token id.
    pub(crate) fn tokens(&self, max: usize) -> Result<Vec<u32>, ApiError> {
        if self.kind() != Kind::Array {
            return Err(self.error(ErrorCode::InvalidType));
        }
        let tokens: Vec<u32> = self.typed(ErrorCode::InvalidType)?;
        if tokens.len() > max {
            return Err(self.error(ErrorCode::RequestTooLarge));
        }
        if tokens.is_empty() || tokens.iter().any(|token| i64::from(*token) > MAX_TOKEN) {
            return Err(self.error(ErrorCode::InvalidValue));
        }
        Ok(tokens)
    }

    /// Refuses anything but `null`, an empty array and an empty object: fields that clients echo without meaning.
    pub(crate) fn empty(&self) -> Result<(), ApiError> {
        let empty = match self.kind() {
            Kind::Null => true,
            Kind::Array => self.array(1)?.items.is_empty(),
            Kind::Object => self.object()?.fields.is_empty(),
            Kind::Bool | Kind::Number | Kind::String => false,
        };
        if empty {
            Ok(())
        } else {
            Err(self.error(ErrorCode::UnsupportedParameter))
        }
    }

    fn typed<T: Deserialize<'a>>(&self, code: ErrorCode) -> Result<T, ApiError> {
        // The error's text is dropped: it quotes what it found.
        serde_json::from_str(self.raw.get()).map_err(|_| self.error(code))
    }
}

// === impl Array ===

impl<'a, 'p> Array<'a, 'p> {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a, '_>> {
        self.items
            .iter()
            .enumerate()
            .map(|(index, raw)| Value::new(raw, Path::Index(&self.at, index)))
    }

    /// All items through one parser.
    pub(crate) fn map<T>(&self, parse: impl FnMut(Value<'a, '_>) -> Result<T, ApiError>) -> Result<Vec<T>, ApiError> {
        self.iter().map(parse).collect()
    }
}

// === impl Object ===

impl<'a, 'p> Object<'a, 'p> {
    /// Takes a name; `null` counts as absent, as at OpenAI.
    pub(crate) fn take(&self, name: &'static str) -> Option<Value<'a, '_>> {
        self.take_any(name).filter(|value| value.kind() != Kind::Null)
    }

    /// Takes a name that must be there and not be `null`.
    pub(crate) fn need(&self, name: &'static str) -> Result<Value<'a, '_>, ApiError> {
        self.take(name)
            .ok_or_else(|| Path::Name(&self.at, name).error(ErrorCode::MissingParameter))
    }

    /// Takes a name and lets a parser look at it if it is there.
    pub(crate) fn map<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(Value<'a, '_>) -> Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        self.take(name).map(parse).transpose()
    }

    /// Refuses a name of OpenAI's API with a reason.
    pub(crate) fn refuse(&self, name: &'static str, reason: &'static str) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) => Err(value.error(ErrorCode::UnsupportedParameter).with_message(reason)),
            None => Ok(()),
        }
    }

    /// Ends the walk.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownParameter`] with the first name that nobody took.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.fields.iter().find(|field| !field.taken.get()) {
            Some(field) => Err(self.at.unknown(&field.name, ErrorCode::UnknownParameter)),
            None => Ok(()),
        }
    }

    /// The names and values of an object whose names are data.
    pub(crate) fn into_entries(self) -> (Vec<(Text<'a>, &'a RawValue)>, Path<'p>) {
        (
            self.fields.into_iter().map(|field| (field.name, field.raw)).collect(),
            self.at,
        )
    }

    fn take_any(&self, name: &'static str) -> Option<Value<'a, '_>> {
        let field = self.fields.iter().find(|field| &*field.name == name)?;
        field.taken.set(true);
        Some(Value::new(field.raw, Path::Name(&self.at, name)))
    }
}

/// The items of an array up to a cap; what is beyond is scanned and dropped.
struct Items<'a> {
    items: Vec<&'a RawValue>,
    more: bool,
}

struct Fields<'a> {
    fields: Vec<Field<'a>>,
    more: bool,
}

// === impl Items ===

impl<'a> Items<'a> {
    fn read(raw: &'a RawValue, max: usize) -> Option<Self> {
        struct Visitor(usize);

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element::<&'de RawValue>()? {
                    if items.len() >= self.0 {
                        while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                        return Ok(Items { items, more: true });
                    }
                    items.push(item);
                }
                Ok(Items { items, more: false })
            }
        }

        serde_json::Deserializer::from_str(raw.get())
            .deserialize_seq(Visitor(max))
            .ok()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, raw)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if fields.len() >= MAX_NAMES {
                        while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
                        return Ok(Fields { fields, more: true });
                    }
                    fields.push(Field {
                        name,
                        raw,
                        taken: Cell::new(false),
                    });
                }
                Ok(Fields { fields, more: false })
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    fn object(json: &str) -> Result<Object<'_, 'static>, ApiError> {
        Value::new(raw(json), Path::Root).object()
    }

    #[test]
    fn names_are_taken_once_and_the_rest_is_refused() {
        let object = object(r#"{"a":1,"b":null,"c":2}"#).unwrap();
        assert!(object.take("a").is_some());
        assert!(object.take("b").is_none());
        assert!(object.take("z").is_none());
        let error = object.finish().unwrap_err();
        assert_eq!((error.code(), error.param()), (ErrorCode::UnknownParameter, Some("c")));
    }

    #[test]
    fn duplicates_are_refused_in_any_spelling() {
        for json in [r#"{"a":1,"b":2,"a":1}"#, r#"{"a":1,"\u0061":1}"#] {
            let error = object(json).err().unwrap();
            assert_eq!(
                (error.code(), error.param()),
                (ErrorCode::DuplicateParameter, Some("a"))
            );
        }
    }

    #[test]
    fn a_made_up_name_is_shown_only_if_it_looks_like_one() {
        for json in [r#"{"some text of a prompt":1}"#, r#"{"":1}"#] {
            let error = object(json).unwrap().finish().unwrap_err();
            assert_eq!((error.code(), error.param()), (ErrorCode::UnknownParameter, None));
        }
    }

    #[test]
    fn places_are_named() {
        let object = object(r#"{"a":[0,{"b":"x"}]}"#).unwrap();
        let a = object.need("a").unwrap().array(4).unwrap();
        let item = a.iter().nth(1).unwrap().object().unwrap();
        let error = item.need("b").unwrap().integer(0, 1).unwrap_err();
        assert_eq!((error.code(), error.param()), (ErrorCode::InvalidType, Some("a[1].b")));
        let error = item.need("c").err().unwrap();
        assert_eq!(
            (error.code(), error.param()),
            (ErrorCode::MissingParameter, Some("a[1].c"))
        );
    }

    #[test]
    fn caps_and_ranges_hold() {
        let value = |json| Value::new(raw(json), Path::Root);
        assert_eq!(
            value("[1,2,3]").array(2).err().unwrap().code(),
            ErrorCode::RequestTooLarge
        );
        assert_eq!(value("[1,2]").array(2).unwrap().len(), 2);
        assert_eq!(value("1.5").integer(0, 9).unwrap_err().code(), ErrorCode::InvalidType);
        assert_eq!(value("10").integer(0, 9).unwrap_err().code(), ErrorCode::InvalidValue);
        assert_eq!(
            value("1e999").number(0.0, 9.0).unwrap_err().code(),
            ErrorCode::InvalidValue
        );
        assert_eq!(
            value(r#""abc""#).text_up_to(2).err().unwrap().code(),
            ErrorCode::RequestTooLarge
        );
        assert_eq!(
            value(r#""\ud800""#).text().err().unwrap().code(),
            ErrorCode::InvalidValue
        );
        let many: String = (0..=MAX_NAMES).map(|i| format!("\"n{i}\":0,")).collect();
        let many = format!("{{{}}}", many.trim_end_matches(','));
        assert_eq!(object(&many).err().unwrap().code(), ErrorCode::RequestTooLarge);
    }
}
