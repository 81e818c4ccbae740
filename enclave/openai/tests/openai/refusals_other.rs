//! Refusals of responses, completions and embeddings.

use cloister_enclave_openai::{Dialect, Endpoint, ErrorCode, limits};
use serde_json::{Value, json};

use crate::{
    refusals::{MARKER, refused, refused_in, with},
    support::MODEL,
};

use Endpoint::{Completions, Embeddings, Responses};
use ErrorCode::{
    InvalidType, InvalidValue, MissingParameter, RequestTooLarge, UnknownParameter, UnsupportedMedia,
    UnsupportedParameter, UnsupportedValue,
};

#[test]
fn responses_keep_nothing() {
    let base = json!({"model": MODEL, "input": "hi"});
    for (name, value, code) in [
        ("store", json!(true), UnsupportedValue),
        ("previous_response_id", json!(MARKER), UnsupportedParameter),
        ("conversation", json!({"id": MARKER}), UnsupportedParameter),
        ("background", json!(true), UnsupportedValue),
        ("prompt", json!({"id": MARKER}), UnsupportedParameter),
        ("context_management", json!([]), UnsupportedParameter),
        ("truncation", json!("auto"), UnsupportedValue),
        ("moderation", json!({}), UnsupportedParameter),
    ] {
        refused(Responses, &with(base.clone(), name, value), code, name);
    }
}

#[test]
#[rustfmt::skip] // A table: one line for each case.
fn responses_that_do_not_fit() {
    let base = json!({"model": MODEL, "input": "hi"});
    let input = |item: Value| json!({"model": MODEL, "input": [item]});
    for (body, code, param) in [
        (json!({"model": MODEL}), MissingParameter, "input"),
        (json!({"model": MODEL, "input": []}), InvalidValue, "input"),
        (json!({"model": MODEL, "input": 3}), InvalidType, "input"),
        (input(json!({"type": "item_reference", "id": MARKER})), UnsupportedValue, "input[0]"),
        (input(json!({"type": "computer_call", "id": MARKER})), UnsupportedValue, "input[0]"),
        (input(json!({"role": "tool", "content": MARKER})), UnsupportedValue, "input[0].role"),
        (input(json!({"role": "user", "content": "a", "x": 1})), UnknownParameter, "input[0].x"),
        (input(json!({"role": "user", "content": [{"type": "input_file", "file_data": MARKER}]})), UnsupportedValue, "input[0].content[0].type"),
        (input(json!({"role": "user", "content": [{"type": "input_audio"}]})), UnsupportedValue, "input[0].content[0].type"),
        (input(json!({"role": "user", "content": [{"type": "input_image", "file_id": MARKER}]})), UnsupportedParameter, "input[0].content[0].file_id"),
        (input(json!({"role": "user", "content": [{"type": "input_image", "image_url": "https://marker-5f1c"}]})), UnsupportedMedia, "input[0].content[0].image_url"),
        (input(json!({"role": "assistant", "content": [{"type": "input_image", "image_url": MARKER}]})), UnsupportedValue, "input[0].content[0].type"),
        (input(json!({"type": "function_call", "name": "f", "arguments": "{}"})), MissingParameter, "input[0].call_id"),
        (input(json!({"type": "function_call_output", "output": "a"})), MissingParameter, "input[0].call_id"),
        (with(base.clone(), "tools", json!([{"type": "web_search"}])), UnsupportedValue, "tools[0].type"),
        (with(base.clone(), "tools", json!([{"type": "function", "name": "f", "x": 1}])), UnknownParameter, "tools[0].x"),
        (with(base.clone(), "tool_choice", json!({"type": "function", "name": "f"})), InvalidValue, "tool_choice"),
        (with(base.clone(), "tool_choice", json!({"type": "file_search"})), UnsupportedValue, "tool_choice.type"),
        (with(base.clone(), "include", json!(["file_search_call.results"])), UnsupportedValue, "include[0]"),
        (with(base.clone(), "text", json!({"format": {"type": MARKER}})), UnsupportedValue, "text.format.type"),
        (with(base.clone(), "text", json!({"x": 1})), UnknownParameter, "text.x"),
        (with(base.clone(), "reasoning", json!({"effort": MARKER})), UnsupportedValue, "reasoning.effort"),
        (with(base.clone(), "reasoning", json!({"x": 1})), UnknownParameter, "reasoning.x"),
        (with(base.clone(), "max_output_tokens", json!(0)), InvalidValue, "max_output_tokens"),
        (with(base.clone(), "top_logprobs", json!(21)), InvalidValue, "top_logprobs"),
        (with(base, "stream_options", json!({})), InvalidValue, "stream_options"),
    ] {
        refused(Responses, &body, code, param);
    }
}

#[test]
#[rustfmt::skip] // A table: one line for each case.
fn completions_that_do_not_fit() {
    let base = json!({"model": MODEL, "prompt": "hi"});
    for (body, code, param) in [
        (json!({"model": MODEL}), MissingParameter, "prompt"),
        (with(base.clone(), "suffix", json!(MARKER)), UnsupportedParameter, "suffix"),
        (with(base.clone(), "best_of", json!(2)), UnsupportedParameter, "best_of"),
        (with(base.clone(), "logprobs", json!(6)), InvalidValue, "logprobs"),
        (with(base.clone(), "max_tokens", json!(0)), InvalidValue, "max_tokens"),
        (with(base.clone(), "prompt", json!([])), InvalidValue, "prompt"),
        (with(base.clone(), "prompt", json!([[]])), InvalidValue, "prompt[0]"),
        (with(base.clone(), "prompt", json!([1, "a"])), InvalidType, "prompt"),
        (with(base.clone(), "prompt", json!(["a", 1])), InvalidType, "prompt[1]"),
        (with(base.clone(), "prompt", json!([-1])), InvalidType, "prompt"),
        (with(base.clone(), "prompt", json!([4_000_000_000_u32])), InvalidValue, "prompt"),
        (with(base.clone(), "prompt", json!({"a": 1})), InvalidType, "prompt"),
        (with(base.clone(), "prompt", json!(vec!["a"; limits::MAX_PROMPTS + 1])), RequestTooLarge, "prompt"),
        (with(with(base.clone(), "prompt", json!(vec!["a"; 20])), "n", json!(16)), RequestTooLarge, "n"),
    ] {
        refused(Completions, &body, code, param);
    }
    let tokens = json!({"model": MODEL, "prompt": vec![1; limits::MAX_TOKENS + 1]});
    refused(Completions, &tokens, RequestTooLarge, "prompt");
    // An engine that would drop it in silence does not get it.
    refused_in(
        Dialect::LlamaCpp,
        Completions,
        &with(base, "echo", json!(true)),
        UnsupportedValue,
        "echo",
    );
}

#[test]
fn embeddings_that_do_not_fit() {
    let base = json!({"model": MODEL, "input": "hi"});
    for (body, code, param) in [
        (json!({"model": MODEL}), MissingParameter, "input"),
        (
            with(base.clone(), "dimensions", json!(64)),
            UnsupportedParameter,
            "dimensions",
        ),
        (
            with(base.clone(), "encoding_format", json!(MARKER)),
            UnsupportedValue,
            "encoding_format",
        ),
        (with(base.clone(), "input", json!("")), InvalidValue, "input"),
        (with(base.clone(), "input", json!(["a", ""])), InvalidValue, "input"),
        (with(base.clone(), "input", json!([])), InvalidValue, "input"),
        (
            with(base.clone(), "input", json!(vec!["a"; limits::MAX_INPUTS + 1])),
            RequestTooLarge,
            "input",
        ),
        (with(base, "stream", json!(true)), UnknownParameter, "stream"),
    ] {
        refused(Embeddings, &body, code, param);
    }
}
