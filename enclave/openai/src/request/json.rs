//! JSON schemas: the one place where a client chooses the names.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Number;

use super::value::{Kind, Value};
use crate::{
    ApiError, ErrorCode,
    limits::{MAX_SCHEMA, MAX_SCHEMA_DEPTH},
    secret::Text,
};

/// A JSON value that keeps the order of names, which decides the order of the fields that a model writes.
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Text<'a>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Text<'a>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads a schema: an object of bounded size and depth whose references stay inside it.
    pub(crate) fn schema(value: &Value<'a, '_>) -> Result<Self, ApiError> {
        if value.kind() != Kind::Object {
            return Err(value.error(ErrorCode::InvalidType));
        }
        if value.len() > MAX_SCHEMA {
            return Err(value.error(ErrorCode::RequestTooLarge));
        }
        // Names inside a schema are content, so faults are reported at the schema itself.
        Self::read(value, MAX_SCHEMA_DEPTH).map_err(|error| value.error(error.code()))
    }

    /// Moves every reference inside a schema below `prefix`, a JSON pointer without the leading `#`.
    pub(crate) fn rebase(&mut self, prefix: &str) {
        match self {
            Json::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Json::String(target) if &**name == "$ref" => {
                            let inner = target.strip_prefix('#').unwrap_or_default();
                            *target = Text::Owned(zeroize::Zeroizing::new(format!("#{prefix}{inner}")));
                        }
                        value => value.rebase(prefix),
                    }
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| item.rebase(prefix)),
            _ => {}
        }
    }

    fn read(value: &Value<'a, '_>, depth: usize) -> Result<Self, ApiError> {
        let below = || {
            depth
                .checked_sub(1)
                .ok_or_else(|| value.error(ErrorCode::RequestTooLarge))
        };
        Ok(match value.kind() {
            Kind::Null => Json::Null,
            Kind::Bool => Json::Bool(value.boolean()?),
            Kind::Number => Json::Number(value.any_number()?),
            Kind::String => Json::String(value.text()?),
            Kind::Array => {
                let below = below()?;
                // The length of the whole schema bounds the count.
                Json::Array(value.array(MAX_SCHEMA)?.map(|item| Self::read(&item, below))?)
            }
            Kind::Object => {
                let below = below()?;
                let (entries, at) = value.object()?.into_entries();
                let mut fields = Vec::with_capacity(entries.len());
                for (name, raw) in entries {
                    let field = Self::read(&Value::new(raw, at), below)?;
                    if let (&"$ref", Json::String(target)) = (&&*name, &field) {
                        // A remote schema would make the engine fetch it, or read a file.
                        if !target.starts_with('#') {
                            return Err(value.error(ErrorCode::UnsupportedValue));
                        }
                    }
                    fields.push((name, field));
                }
                Json::Object(fields)
            }
        })
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(value) => value.serialize(serializer),
            Json::String(value) => value.serialize(serializer),
            Json::Array(items) => serializer.collect_seq(items),
            Json::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::value::Path, *};

    fn schema(json: &str) -> Result<String, ErrorCode> {
        let raw = serde_json::from_str(json).unwrap();
        let schema = Json::schema(&Value::new(raw, Path::Root)).map_err(|error| error.code())?;
        Ok(serde_json::to_string(&schema).unwrap())
    }

    #[test]
    fn order_is_kept_and_space_is_not() {
        assert_eq!(
            schema(r#"{ "z": [1, 2.5, null], "a": {"b": "\u0041"} }"#).unwrap(),
            r#"{"z":[1,2.5,null],"a":{"b":"A"}}"#
        );
    }

    #[test]
    fn faults_are_refused() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(40), format_args!("1{}", "}".repeat(40)));
        assert_eq!(schema(&deep), Err(ErrorCode::RequestTooLarge));
        assert_eq!(schema(r#"{"a":{"x":1,"x":2}}"#), Err(ErrorCode::DuplicateParameter));
        assert_eq!(
            schema(r#"{"a":{"$ref":"https://example.com/s"}}"#),
            Err(ErrorCode::UnsupportedValue)
        );
        assert_eq!(
            schema(r#"{"a":{"$ref":"file:///etc/passwd"}}"#),
            Err(ErrorCode::UnsupportedValue)
        );
        assert_eq!(schema(r"[]"), Err(ErrorCode::InvalidType));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_SCHEMA));
        assert_eq!(schema(&long), Err(ErrorCode::RequestTooLarge));
        // A property may be called `$ref`.
        assert!(schema(r##"{"properties":{"$ref":{"type":"string"}},"x":{"$ref":"#/$defs/a"}}"##).is_ok());
    }

    #[test]
    fn references_are_moved() {
        let raw = serde_json::from_str(r##"{"a":[{"$ref":"#/$defs/x"},{"$ref":"#"}]}"##).unwrap();
        let mut schema = Json::schema(&Value::new(raw, Path::Root)).unwrap();
        schema.rebase("/$defs/t0");
        assert_eq!(
            serde_json::to_string(&schema).unwrap(),
            r##"{"a":[{"$ref":"#/$defs/t0/$defs/x"},{"$ref":"#/$defs/t0"}]}"##
        );
    }
}
