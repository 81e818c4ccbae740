//! Refusals of any request and of chats, each with its code and the parameter that it names.

use cloister_enclave_openai::{Context, Dialect, Endpoint, ErrorCode, limits, sanitize};
use serde_json::{Value, json};

use crate::support::{MODEL, context, request};

use Endpoint::{ChatCompletions, Completions, Embeddings, Responses};
use ErrorCode::{
    DuplicateParameter, InvalidJson, InvalidType, InvalidValue, MissingParameter, ModelNotFound, RequestTooLarge,
    UnknownParameter, UnsupportedMedia, UnsupportedParameter, UnsupportedValue,
};

pub(crate) const MARKER: &str = "marker-5f1c";

fn chat() -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
}

pub(crate) fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

/// Refused in both dialects, with this code and parameter and without any value in the body of the error.
pub(crate) fn refused(endpoint: Endpoint, body: &Value, code: ErrorCode, param: &str) {
    for dialect in [Dialect::LlamaCpp, Dialect::Vllm] {
        refused_in(dialect, endpoint, body, code, param);
    }
}

pub(crate) fn refused_in(dialect: Dialect, endpoint: Endpoint, body: &Value, code: ErrorCode, param: &str) {
    let Err(error) = request(endpoint, dialect, body) else {
        panic!("{param} was let through: {body:.200}")
    };
    assert_eq!(
        (error.code(), error.param()),
        (code, Some(param).filter(|param| !param.is_empty())),
        "{body:.200}"
    );
    assert!(!String::from_utf8(error.body()).unwrap().contains(MARKER), "{param}");
}

#[test]
fn bodies_that_are_no_objects() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"a\"",
        "{} {}",
        "{\"model\":}",
        "\u{feff}{}",
        "{'a':1}",
    ] {
        let error = sanitize(ChatCompletions, body.as_bytes(), &context(Dialect::LlamaCpp))
            .err()
            .unwrap();
        assert_eq!(error.code(), InvalidJson, "{body}");
    }
    let error = sanitize(ChatCompletions, b"{\"a\":\"\xff\"}", &context(Dialect::LlamaCpp))
        .err()
        .unwrap();
    assert_eq!(error.code(), InvalidJson);
    let long = vec![b' '; limits::MAX_BODY + 1];
    assert_eq!(
        sanitize(ChatCompletions, &long, &context(Dialect::Vllm))
            .err()
            .unwrap()
            .code(),
        RequestTooLarge
    );
}

#[test]
fn another_model() {
    for endpoint in [ChatCompletions, Responses, Completions, Embeddings] {
        refused(endpoint, &json!({"model": MARKER}), ModelNotFound, "model");
        refused(endpoint, &json!({}), MissingParameter, "model");
        refused(endpoint, &json!({"model": null}), MissingParameter, "model");
        refused(endpoint, &json!({"model": 1}), InvalidType, "model");
        let error = request(endpoint, Dialect::Vllm, &json!({"model": MARKER}))
            .err()
            .unwrap();
        assert_eq!(error.status(), 404);
    }
}

#[test]
fn names_off_the_list() {
    let bodies = [
        (ChatCompletions, chat()),
        (Responses, json!({"model": MODEL, "input": "hi"})),
        (Completions, json!({"model": MODEL, "prompt": "hi"})),
        (Embeddings, json!({"model": MODEL, "input": "hi"})),
    ];
    // What engines take beyond OpenAI's API, and what nobody knows.
    let names = [
        "id_slot",
        "lora",
        "kv_transfer_params",
        "prompt_embeds",
        "chat_template",
        "chat_template_kwargs",
        "logits_processors",
        "priority",
        "cache_prompt",
        "cache_salt",
        "grammar",
        "json_schema",
        "guided_json",
        "guided_regex",
        "structured_outputs",
        "n_predict",
        "n_probs",
        "samplers",
        "top_k",
        "min_p",
        "mirostat",
        "ignore_eos",
        "slot_id",
        "return_tokens",
        "timings_per_token",
        "post_sampling_probs",
        "return_token_ids",
        "prompt_logprobs",
        "add_generation_prompt",
        "documents",
        "mm_processor_kwargs",
        "vllm_xargs",
        "request_id",
        "data_parallel_rank",
        "bad_words",
        "reasoning_format",
        "truncate_prompt_tokens",
        "unheard_of",
    ];
    for (endpoint, body) in &bodies {
        for name in names {
            for value in [json!(MARKER), json!(1), json!({"a": MARKER}), json!(null)] {
                refused(*endpoint, &with(body.clone(), name, value), UnknownParameter, name);
            }
        }
    }
}

#[test]
#[rustfmt::skip] // A table: one line for each case.
fn names_off_the_list_below_the_top() {
    let cases = [
        (json!({"messages": [{"role": "user", "content": "a", "x": MARKER}]}), "messages[0].x"),
        (json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": MARKER}]}]}), "messages[0].content[0].cache_control"),
        (json!({"messages": [{"role": "tool", "tool_call_id": "a", "content": "a", "name": MARKER}]}), "messages[0].name"),
        (json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "", "x": 1}}]}]}), "messages[0].tool_calls[0].function.x"),
        (json!({"tools": [{"type": "function", "function": {"name": "f", "x": MARKER}}]}), "tools[0].function.x"),
        (json!({"tools": [{"type": "function", "function": {"name": "f"}, "x": MARKER}]}), "tools[0].x"),
        (json!({"response_format": {"type": "text", "schema": MARKER}}), "response_format.schema"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "x": 1}}}), "response_format.json_schema.x"),
        (json!({"stream": true, "stream_options": {"continuous_usage_stats": true}}), "stream_options.continuous_usage_stats"),
    ];
    for (fields, param) in cases {
        let mut body = chat();
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        refused(ChatCompletions, &body, UnknownParameter, param);
    }
}

#[test]
fn duplicates() {
    let twice = format!(r#"{{"model":"{MODEL}","messages":[],"messages":[{{"role":"user","content":"{MARKER}"}}]}}"#);
    let inner = format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"a","content":"{MARKER}"}}]}}"#);
    let bias =
        format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"a"}}],"logit_bias":{{"1":1,"1":2}}}}"#);
    let schema = format!(
        r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"a"}}],"tools":[{{"type":"function","function":{{"name":"f","parameters":{{"a":1,"a":2}}}}}}]}}"#
    );
    for (body, param) in [
        (twice, "messages"),
        (inner, "messages[0].content"),
        (bias, "logit_bias.1"),
        (schema, "tools[0].function.parameters"),
    ] {
        let error = sanitize(ChatCompletions, body.as_bytes(), &context(Dialect::Vllm))
            .err()
            .unwrap();
        assert_eq!((error.code(), error.param()), (DuplicateParameter, Some(param)));
    }
}

#[test]
fn values_out_of_range_or_of_the_wrong_type() {
    let cases = [
        ("temperature", json!(2.1), InvalidValue),
        ("temperature", json!(-0.1), InvalidValue),
        ("temperature", json!(MARKER), InvalidType),
        ("top_p", json!(1.1), InvalidValue),
        ("presence_penalty", json!(2.5), InvalidValue),
        ("frequency_penalty", json!(-2.5), InvalidValue),
        ("n", json!(0), InvalidValue),
        ("n", json!(limits::MAX_N + 1), InvalidValue),
        ("n", json!(1.5), InvalidType),
        ("seed", json!(1.5), InvalidType),
        ("seed", json!(MARKER), InvalidType),
        ("max_tokens", json!(0), InvalidValue),
        ("max_tokens", json!(1_u64 << 40), InvalidValue),
        ("max_completion_tokens", json!(-1), InvalidValue),
        ("stop", json!(["a", "b", "c", "d", "e"]), RequestTooLarge),
        ("stop", json!("x".repeat(limits::MAX_STOP + 1)), RequestTooLarge),
        ("stop", json!(""), InvalidValue),
        ("stop", json!(3), InvalidType),
        ("stream", json!("true"), InvalidType),
        ("stream_options", json!({"include_usage": true}), InvalidValue),
        ("logprobs", json!(3), InvalidType),
        ("top_logprobs", json!(21), InvalidValue),
        ("top_logprobs", json!(1), InvalidValue),
        ("logit_bias", json!({MARKER: 1}), InvalidValue),
        ("logit_bias", json!({"+1": 1}), InvalidValue),
        ("logit_bias", json!({"": 1}), InvalidValue),
        ("logit_bias", json!({"99999999999": 1}), InvalidValue),
        ("logit_bias", json!({"1": 101}), InvalidValue),
        ("logit_bias", json!([[1, 2]]), InvalidType),
        ("store", json!(true), UnsupportedValue),
        ("user", json!(1), InvalidType),
        ("user", json!("x".repeat(limits::MAX_ID + 1)), RequestTooLarge),
        (
            "metadata",
            json!({"a": "x".repeat(limits::MAX_METADATA_VALUE + 1)}),
            RequestTooLarge,
        ),
        ("metadata", json!(MARKER), InvalidType),
        ("reasoning_effort", json!(MARKER), UnsupportedValue),
        ("verbosity", json!(MARKER), UnsupportedValue),
        ("parallel_tool_calls", json!(1), InvalidType),
        ("messages", json!([]), InvalidValue),
        ("messages", json!(MARKER), InvalidType),
        ("messages", json!(null), MissingParameter),
        ("tools", json!({}), InvalidType),
        ("tool_choice", json!("required"), InvalidValue),
        ("tool_choice", json!(MARKER), UnsupportedValue),
        (
            "tool_choice",
            json!({"type": "function", "function": {"name": "f"}}),
            InvalidValue,
        ),
    ];
    for (name, value, code) in cases {
        let error = request(ChatCompletions, Dialect::Vllm, &with(chat(), name, value.clone())).err();
        let error = error.unwrap_or_else(|| panic!("{name} {value}"));
        assert!(
            error.param().is_some_and(|param| param.starts_with(name)),
            "{name} {value}"
        );
        assert_eq!(error.code(), code, "{name} {value}");
    }
}

#[test]
fn parameters_of_openai_that_are_not_offered() {
    for (name, value) in [
        ("audio", json!({"voice": MARKER, "format": "wav"})),
        ("functions", json!([{"name": MARKER}])),
        ("function_call", json!("auto")),
        ("prediction", json!({"type": "content", "content": MARKER})),
        ("web_search_options", json!({})),
        ("moderation", json!({"model": MARKER})),
    ] {
        refused(ChatCompletions, &with(chat(), name, value), UnsupportedParameter, name);
    }
    refused(
        ChatCompletions,
        &with(chat(), "modalities", json!(["audio"])),
        UnsupportedValue,
        "modalities[0]",
    );
    refused(
        ChatCompletions,
        &with(chat(), "modalities", json!(["text", "audio"])),
        RequestTooLarge,
        "modalities",
    );
    let both = json!({"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "max_completion_tokens": 2});
    refused(ChatCompletions, &both, InvalidValue, "max_completion_tokens");
}

#[test]
#[rustfmt::skip] // A table: one line for each case.
fn messages_that_do_not_fit() {
    let cases = [
        (json!({"role": MARKER, "content": "a"}), UnsupportedValue, "messages[0].role"),
        (json!({"role": "function", "name": "f", "content": "a"}), UnsupportedValue, "messages[0].role"),
        (json!({"content": "a"}), MissingParameter, "messages[0].role"),
        (json!({"role": "user"}), MissingParameter, "messages[0].content"),
        (json!({"role": "user", "content": null}), MissingParameter, "messages[0].content"),
        (json!({"role": "user", "content": 5}), InvalidType, "messages[0].content"),
        (json!({"role": "user", "content": []}), InvalidValue, "messages[0].content"),
        (json!({"role": "user", "content": "a", "name": "not a name"}), InvalidValue, "messages[0].name"),
        (json!({"role": "assistant"}), MissingParameter, "messages[0].content"),
        (json!({"role": "assistant", "content": "a", "audio": {"id": MARKER}}), UnsupportedParameter, "messages[0].audio"),
        (json!({"role": "assistant", "content": "a", "function_call": {"name": MARKER}}), UnsupportedParameter, "messages[0].function_call"),
        (json!({"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}), UnsupportedValue, "messages[0].tool_calls[0].type"),
        (json!({"role": "tool", "content": "a"}), MissingParameter, "messages[0].tool_call_id"),
        (json!({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": MARKER}}]}), UnsupportedValue, "messages[0].content[0].type"),
        (json!({"role": "user", "content": [{"type": "file", "file": {"file_id": MARKER}}]}), UnsupportedValue, "messages[0].content[0].type"),
        (json!({"role": "user", "content": [{"type": "video_url", "video_url": {"url": MARKER}}]}), UnsupportedValue, "messages[0].content[0].type"),
        (json!({"role": "user", "content": [{"type": "refusal", "refusal": MARKER}]}), UnsupportedValue, "messages[0].content[0].type"),
        (json!({"role": "system", "content": [{"type": "image_url", "image_url": {"url": MARKER}}]}), UnsupportedValue, "messages[0].content[0].type"),
        (json!({"role": "tool", "tool_call_id": "a", "content": [{"type": "image_url", "image_url": {"url": MARKER}}]}), UnsupportedValue, "messages[0].content[0].type"),
    ];
    for (message, code, param) in cases {
        refused(
            ChatCompletions,
            &json!({"model": MODEL, "messages": [message]}),
            code,
            param,
        );
    }
}

#[test]
fn media_that_is_remote_damaged_or_unseen() {
    let image = |url: &str| json!({"model": MODEL, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]});
    let param = "messages[0].content[0].image_url.url";
    for url in [
        "https://example.com/marker-5f1c.png",
        "http://127.0.0.1/marker-5f1c",
        "file:///etc/marker-5f1c",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/plain;base64,aGVsbG8=",
        "data:image/png;base64,not base64",
        "data:image/png;base64,/9j/4A==",
        "DATA:image/png;base64,iVBORw0KGgpyZXN0",
    ] {
        refused(ChatCompletions, &image(url), UnsupportedMedia, param);
    }
    let good = image("data:image/png;base64,iVBORw0KGgpyZXN0").to_string();
    let blind = Context {
        vision: false,
        ..context(Dialect::Vllm)
    };
    assert!(sanitize(ChatCompletions, good.as_bytes(), &context(Dialect::Vllm)).is_ok());
    assert_eq!(
        sanitize(ChatCompletions, good.as_bytes(), &blind).err().unwrap().code(),
        UnsupportedMedia
    );

    let part = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgpyZXN0"}});
    let many = json!({"model": MODEL, "messages": [{"role": "user", "content": vec![part; limits::MAX_IMAGES + 1]}]});
    refused(
        ChatCompletions,
        &many,
        RequestTooLarge,
        "messages[0].content[32].image_url.url",
    );
}

#[test]
fn counts_and_lengths() {
    let tool = |name: String| json!({"type": "function", "function": {"name": name}});
    let tools: Vec<_> = (0..=limits::MAX_TOOLS).map(|index| tool(format!("f{index}"))).collect();
    refused(
        ChatCompletions,
        &with(chat(), "tools", json!(tools)),
        RequestTooLarge,
        "tools",
    );
    let name = "f".repeat(limits::MAX_NAME + 1);
    refused(
        ChatCompletions,
        &with(chat(), "tools", json!([tool(name)])),
        RequestTooLarge,
        "tools[0].function.name",
    );
    refused(
        ChatCompletions,
        &with(chat(), "tools", json!([tool("a b".into())])),
        InvalidValue,
        "tools[0].function.name",
    );
    refused(
        ChatCompletions,
        &with(chat(), "tools", json!([tool("f".into()), tool("f".into())])),
        InvalidValue,
        "tools",
    );

    let messages = vec![json!({"role": "user", "content": "a"}); limits::MAX_MESSAGES + 1];
    refused(
        ChatCompletions,
        &json!({"model": MODEL, "messages": messages}),
        RequestTooLarge,
        "messages",
    );
    let parts = vec![json!({"type": "text", "text": "a"}); limits::MAX_PARTS + 1];
    let message = json!({"role": "user", "content": parts});
    refused(
        ChatCompletions,
        &json!({"model": MODEL, "messages": [message]}),
        RequestTooLarge,
        "messages[0].content",
    );
    let bias: serde_json::Map<_, _> = (0..=limits::MAX_LOGIT_BIAS)
        .map(|token| (token.to_string(), json!(1)))
        .collect();
    refused(
        ChatCompletions,
        &with(chat(), "logit_bias", json!(bias)),
        RequestTooLarge,
        "logit_bias",
    );
    let metadata: serde_json::Map<_, _> = (0..=limits::MAX_METADATA)
        .map(|key| (key.to_string(), json!("v")))
        .collect();
    refused(
        ChatCompletions,
        &with(chat(), "metadata", json!(metadata)),
        RequestTooLarge,
        "metadata",
    );
    let described = json!([{"type": "function", "function": {"name": "f", "description": "x".repeat(limits::MAX_DESCRIPTION + 1)}}]);
    refused(
        ChatCompletions,
        &with(chat(), "tools", described),
        RequestTooLarge,
        "tools[0].function.description",
    );
    let answered = json!({"role": "tool", "content": "a", "tool_call_id": "x".repeat(limits::MAX_ID + 1)});
    refused(
        ChatCompletions,
        &json!({"model": MODEL, "messages": [answered]}),
        RequestTooLarge,
        "messages[0].tool_call_id",
    );
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let calls = json!({"role": "assistant", "tool_calls": vec![call; limits::MAX_TOOL_CALLS + 1]});
    refused(
        ChatCompletions,
        &json!({"model": MODEL, "messages": [calls]}),
        RequestTooLarge,
        "messages[0].tool_calls",
    );
}

#[test]
fn schemas_that_are_deep_or_remote() {
    let mut deep = json!({"type": MARKER});
    for _ in 0..limits::MAX_SCHEMA_DEPTH {
        deep = json!({"not": deep});
    }
    let tool = |schema: Value| json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
    let param = "tools[0].function.parameters";
    refused(
        ChatCompletions,
        &with(chat(), "tools", tool(deep)),
        RequestTooLarge,
        param,
    );
    let remote = json!({"properties": {"a": {"$ref": "https://marker-5f1c.example/schema.json"}}});
    refused(
        ChatCompletions,
        &with(chat(), "tools", tool(remote.clone())),
        UnsupportedValue,
        param,
    );
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": remote}});
    refused(
        ChatCompletions,
        &with(chat(), "response_format", format),
        UnsupportedValue,
        "response_format.json_schema.schema",
    );
    let grammar = json!({"type": "grammar", "grammar": MARKER});
    refused(
        ChatCompletions,
        &with(chat(), "response_format", grammar),
        UnsupportedValue,
        "response_format.type",
    );
    let custom = json!([{"type": "custom", "custom": {"name": "f"}}]);
    refused(
        ChatCompletions,
        &with(chat(), "tools", custom),
        UnsupportedValue,
        "tools[0].type",
    );
}

#[test]
fn nesting_without_end_is_refused_without_recursion() {
    let deep = format!(
        r#"{{"model":"{MODEL}","messages":{}}}"#,
        "[".repeat(1 << 20) + &"]".repeat(1 << 20)
    );
    let error = sanitize(ChatCompletions, deep.as_bytes(), &context(Dialect::Vllm))
        .err()
        .unwrap();
    assert_eq!((error.code(), error.param()), (InvalidType, Some("messages[0]")));
}

#[test]
fn probabilities_of_a_demanded_call() {
    let body = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "a"}], "logprobs": true, "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": "f"}}],
    });
    refused_in(Dialect::LlamaCpp, ChatCompletions, &body, UnsupportedValue, "logprobs");
}
