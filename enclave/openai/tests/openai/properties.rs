//! Any input: nothing panics, and cuts change nothing.

use cloister_enclave_openai::{Dialect, Endpoint, FilterOptions, sanitize};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use crate::{
    cases::cases,
    support::{MODEL, context, run},
};

const ENDPOINTS: [Endpoint; 4] = [
    Endpoint::ChatCompletions,
    Endpoint::Responses,
    Endpoint::Completions,
    Endpoint::Embeddings,
];

/// Names that mean something somewhere, so that random objects get deep.
const NAMES: [&str; 40] = [
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "tools",
    "function",
    "name",
    "parameters",
    "tool_calls",
    "arguments",
    "id",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "input",
    "output",
    "call_id",
    "prompt",
    "stream",
    "stream_options",
    "include_usage",
    "n",
    "stop",
    "seed",
    "logprobs",
    "choices",
    "index",
    "delta",
    "message",
    "finish_reason",
    "usage",
    "error",
    "data",
    "embedding",
    "created",
];

const WORDS: [&str; 16] = [
    MODEL,
    "user",
    "assistant",
    "system",
    "tool",
    "function",
    "text",
    "image_url",
    "json_schema",
    "stop",
    "length",
    "message",
    "function_call",
    "input_text",
    "required",
    "data:image/png;base64,iVBORw0KGgpyZXN0",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        any::<f64>().prop_map(|float| json!(float)),
        select(&WORDS[..]).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((select(&NAMES[..]), inner), 0..6).prop_map(|fields| {
                Value::Object(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn cuts_change_nothing(cuts in vec(1_usize..200, 1..8)) {
        for case in cases() {
            let input = case.input();
            let (whole, end) = run(&mut case.filter(), &input, usize::MAX);
            let mut filter = case.filter();
            let (mut out, mut rest) = (Default::default(), input.as_slice());
            for size in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                filter.push(piece, &mut out).unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(filter.finish(&mut out).unwrap(), end.unwrap());
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), whole);
        }
    }

    #[test]
    fn any_request_is_taken_or_refused(mut body in any_json(), endpoint in select(&ENDPOINTS[..]), llamacpp: bool) {
        if let Value::Object(fields) = &mut body {
            fields.insert("model".to_owned(), json!(MODEL));
        }
        let dialect = if llamacpp { Dialect::LlamaCpp } else { Dialect::Vllm };
        match sanitize(endpoint, body.to_string().as_bytes(), &context(dialect)) {
            Ok(request) => prop_assert!(serde_json::from_slice::<Value>(&request.body).is_ok()),
            Err(error) => prop_assert!((400..500).contains(&error.status())),
        }
    }

    #[test]
    fn any_bytes_are_no_request(bytes in vec(any::<u8>(), 0..200), endpoint in select(&ENDPOINTS[..])) {
        prop_assert!(sanitize(endpoint, &bytes, &context(Dialect::Vllm)).is_err());
    }

    #[test]
    fn any_answer_is_filtered_or_an_error(
        values in vec(any_json(), 1..4), status in select(&[200_u16, 400, 500][..]), which in 0..26_usize,
    ) {
        let all = cases();
        let case = &all[which % all.len()];
        let text: String = values.iter().map(|value| format!("data: {value}\n\n")).collect();
        for text in [text, values[0].to_string()] {
            let mut filter = case.filter();
            let (out, _) = run(&mut filter, text.as_bytes(), 13);
            for line in out.lines().filter_map(|line| line.strip_prefix("data: ")) {
                prop_assert!(line == "[DONE]" || serde_json::from_str::<Value>(line).is_ok());
            }
            let mut filter = case.request().response_filter(status, FilterOptions::default());
            let _ = run(&mut filter, text.as_bytes(), 17);
        }
    }

    #[test]
    fn a_damaged_answer_never_panics(which in 0..26_usize, place in any::<prop::sample::Index>(), byte: u8) {
        let all = cases();
        let case = &all[which % all.len()];
        let mut input = case.input();
        let place = place.index(input.len());
        input[place] = byte;
        let _ = run(&mut case.filter(), &input, 64);
    }
}
