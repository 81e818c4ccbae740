//! The least value that a JSON schema allows, for `response_format` and tools.

use serde_json::{Map, Value, json};

/// Deeper schemas end in null: recursive ones have no end.
const MAX_DEPTH: usize = 16;
/// Longest array or string that a schema can ask for.
const MAX_LENGTH: u64 = 256;

/// A small instance of the schema: required properties only, the first of each choice.
pub(crate) fn instance(schema: &Value) -> Value {
    build(schema, schema, 0)
}

fn build(root: &Value, schema: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    let next = depth.saturating_add(1);
    if let Some(target) = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|path| root.pointer(path.strip_prefix('#')?))
    {
        return build(root, target, next);
    }
    if let Some(value) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return value.clone();
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(choice).and_then(|list| list.get(0)) {
            return build(root, first, next);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ => "null",
    };
    match kind {
        "object" => object(root, schema, next),
        "array" => array(root, schema, next),
        "string" => string(schema),
        "integer" => number(schema).map_or(json!(1), |bound| json!(bound.ceil() as i64)),
        "number" => number(schema).map_or(json!(1.5), |bound| json!(bound)),
        "boolean" => json!(true),
        _ => Value::Null,
    }
}

fn object(root: &Value, schema: &Value, depth: usize) -> Value {
    let names = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let properties = schema.get("properties");
    let fields: Map<String, Value> = names
        .map(|name| {
            let value = properties
                .and_then(|all| all.get(name))
                .map_or(Value::Null, |one| build(root, one, depth));
            (name.to_owned(), value)
        })
        .collect();
    Value::Object(fields)
}

fn array(root: &Value, schema: &Value, depth: usize) -> Value {
    let length = schema
        .get("minItems")
        .and_then(Value::as_u64)
        .unwrap_or(0)
        .min(MAX_LENGTH);
    let items = schema.get("items").unwrap_or(&Value::Null);
    (0..length).map(|_| build(root, items, depth)).collect()
}

fn string(schema: &Value) -> Value {
    let fixed = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => Some("2020-01-01T00:00:00Z"),
        Some("date") => Some("2020-01-01"),
        Some("email") => Some("simulated@example.com"),
        Some("uuid") => Some("00000000-0000-4000-8000-000000000000"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return json!(fixed);
    }
    let least = usize::try_from(
        schema
            .get("minLength")
            .and_then(Value::as_u64)
            .unwrap_or(0)
            .min(MAX_LENGTH),
    );
    let most = schema
        .get("maxLength")
        .and_then(Value::as_u64)
        .and_then(|most| usize::try_from(most).ok());
    let mut text = "simulated".to_owned();
    while text.len() < least.unwrap_or_default() {
        text.push('s');
    }
    text.truncate(most.unwrap_or(usize::MAX));
    json!(text)
}

fn number(schema: &Value) -> Option<f64> {
    let least = schema.get("minimum").and_then(Value::as_f64);
    let above = schema
        .get("exclusiveMinimum")
        .and_then(Value::as_f64)
        .map(|bound| bound + 1.0);
    let most = schema.get("maximum").and_then(Value::as_f64);
    least.or(above).or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_properties_are_there_and_of_their_type() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 12}, "age": {"type": "integer", "minimum": 18},
                "kind": {"enum": ["x", "y"]}, "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
                "inner": {"$ref": "#/$defs/inner"}, "left_out": {"type": "string"},
            },
            "required": ["name", "age", "kind", "tags", "inner"],
            "$defs": {"inner": {"type": "object", "properties": {"z": {"type": "number"}}, "required": ["z"]}},
        });
        let expected =
            json!({"name": "simulatedsss", "age": 18, "kind": "x", "tags": [true, true], "inner": {"z": 1.5}});
        assert_eq!(instance(&schema), expected);
    }

    #[test]
    fn a_recursive_schema_ends() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]});
        assert!(instance(&schema).is_object());
    }
}
