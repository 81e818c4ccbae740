//! JSON in the form of RFC 8785, for values without fractions: what is hashed must not depend on how a map was filled.

use serde::Serialize;
use serde_json::Value;

/// The canonical JSON of `value`.
///
/// Keys are sorted here, whichever order `serde_json` was built to keep.
pub(crate) fn of<T: Serialize>(value: &T) -> String {
    let mut out = String::new();
    // Plain structs with text keys: turning them into a JSON value has no error.
    write(&serde_json::to_value(value).unwrap_or_default(), &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            // RFC 8785 3.2.3: by UTF-16 code units.
            entries.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_nothing_is_padded() {
        let value: Value = serde_json::from_str(r#"{ "b": [1, null, "\u0007é"], "a": {"z": true, "y": {}} }"#).unwrap();
        assert_eq!(of(&value), r#"{"a":{"y":{},"z":true},"b":[1,null,"\u0007é"]}"#);
        // U+10000 is D800 DC00 in UTF-16 and so comes before U+FFFD.
        let value: Value = serde_json::from_str(r#"{"\ufffd": 1, "\ud800\udc00": 2}"#).unwrap();
        assert_eq!(of(&value), "{\"\u{10000}\":2,\"\u{fffd}\":1}");
    }
}
