//! What reaches the engine, for each endpoint and dialect.

use cloister_enclave_openai::{Dialect, Endpoint, sanitize};
use serde_json::{Value, json};

use crate::support::{MODEL, context, golden, request};

const PNG: &str = "data:image/png;base64,iVBORw0KGgpyZXN0";

/// Writes one request for both dialects and compares both.
fn goldens(name: &str, endpoint: Endpoint, body: &Value) {
    for (dialect, suffix) in [(Dialect::LlamaCpp, "llamacpp"), (Dialect::Vllm, "vllm")] {
        let request = request(endpoint, dialect, body).unwrap();
        let text = String::from_utf8(request.body.to_vec()).unwrap();
        golden(&format!("{name}.{suffix}.json"), &format!("{}\n{text}\n", request.path));
    }
}

fn weather() -> Value {
    json!({
        "name": "get_weather", "description": "Weather of a city", "strict": true,
        "parameters": {"type": "object", "properties": {"city": {"$ref": "#/$defs/c"}}, "required": ["city"], "$defs": {"c": {"type": "string"}}},
    })
}

#[test]
fn chat_with_every_field() {
    let body = json!({
        "model": MODEL,
        "messages": [
            {"role": "developer", "content": "Be \"brief\".\n"},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            ]},
            {"role": "assistant", "content": null, "refusal": null, "audio": null, "annotations": [], "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "reasoning_content": "gone"},
            {"role": "system", "content": "Go on."},
            {"role": "user", "content": "And tomorrow? ünïcödé"},
        ],
        "tools": [{"type": "function", "function": weather()}, {"type": "function", "function": {"name": "noop"}}],
        "tool_choice": "auto",
        "parallel_tool_calls": false,
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "description": "An answer", "strict": true,
            "schema": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}},
        }},
        "temperature": 0.5, "top_p": 0.9, "presence_penalty": -1, "frequency_penalty": 0.25, "seed": -1, "n": 2,
        "stop": ["END", "\n\n"], "logit_bias": {"15": -100, "7": 1.5}, "logprobs": true, "top_logprobs": 0,
        "max_completion_tokens": 100, "stream": true, "stream_options": {"include_usage": false, "include_obfuscation": true},
        "user": "u", "metadata": {"k": "v"}, "store": false, "service_tier": "auto", "prompt_cache_key": "k", "safety_identifier": "s",
        "reasoning_effort": "minimal", "verbosity": "low", "modalities": ["text"],
    });
    goldens("chat", Endpoint::ChatCompletions, &body);
}

#[test]
fn the_least_of_a_chat() {
    let body =
        json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "tool_choice": "auto", "tools": []});
    goldens("chat_least", Endpoint::ChatCompletions, &body);
}

#[test]
fn a_demanded_call() {
    let body = json!({
        "model": MODEL,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Paris?"}],
        "tools": [{"type": "function", "function": weather()}, {"type": "function", "function": {"name": "noop"}}],
        "tool_choice": "required", "parallel_tool_calls": true, "stop": ["}"],
    });
    goldens("chat_required", Endpoint::ChatCompletions, &body);
    let mut named = body;
    named["messages"] = json!([{"role": "user", "content": "Weather in Paris?"}]);
    named["tool_choice"] = json!({"type": "function", "function": {"name": "noop"}});
    goldens("chat_named", Endpoint::ChatCompletions, &named);
}

#[test]
fn a_response_becomes_a_chat() {
    let mut tool = weather();
    tool["type"] = json!("function");
    let body = json!({
        "model": MODEL,
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG, "detail": "auto"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "gone"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get_weather", "arguments": "{}", "status": "completed"},
            {"type": "function_call", "call_id": "call_2", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "rain"}]},
            {"role": "developer", "content": "Go on."},
        ],
        "tools": [tool], "tool_choice": "auto", "parallel_tool_calls": true,
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": false}, "verbosity": "high"},
        "reasoning": {"effort": "high", "summary": "auto"},
        "max_output_tokens": 50, "temperature": 1, "top_p": 1, "stream": true, "top_logprobs": 3, "include": ["reasoning.encrypted_content"],
        "store": false, "background": false, "truncation": "disabled", "metadata": {"k": "v"}, "user": "u", "previous_response_id": null,
    });
    goldens("response", Endpoint::Responses, &body);
    goldens(
        "response_least",
        Endpoint::Responses,
        &json!({"model": MODEL, "input": "hi"}),
    );
}

#[test]
fn completions() {
    let body = json!({
        "model": MODEL, "prompt": ["a", "b"], "max_tokens": 5, "n": 2, "logprobs": 0, "stop": "x", "echo": false, "stream": true,
        "stream_options": {"include_usage": true}, "best_of": null, "suffix": null, "seed": 4_294_967_295_u32, "user": "u",
    });
    goldens("completion", Endpoint::Completions, &body);
    goldens(
        "completion_tokens",
        Endpoint::Completions,
        &json!({"model": MODEL, "prompt": [1, 2, 3]}),
    );
    goldens(
        "completion_token_lists",
        Endpoint::Completions,
        &json!({"model": MODEL, "prompt": [[1, 2], [3]]}),
    );
    let echo = json!({"model": MODEL, "prompt": "a", "echo": true, "max_tokens": 0, "logprobs": 1});
    let request = request(Endpoint::Completions, Dialect::Vllm, &echo).unwrap();
    golden("completion_echo.vllm.json", std::str::from_utf8(&request.body).unwrap());
}

#[test]
fn embeddings() {
    goldens(
        "embedding",
        Endpoint::Embeddings,
        &json!({"model": MODEL, "input": ["a", "b"], "encoding_format": "base64", "user": "u"}),
    );
    goldens(
        "embedding_text",
        Endpoint::Embeddings,
        &json!({"model": MODEL, "input": "a"}),
    );
    goldens(
        "embedding_tokens",
        Endpoint::Embeddings,
        &json!({"model": MODEL, "input": [[1], [2, 3]], "encoding_format": "float"}),
    );
}

#[test]
fn numbers_of_a_request_are_told() {
    let body = json!({"model": MODEL, "prompt": ["a", "b", "c"], "n": 2, "max_tokens": 7, "stream": true});
    let request = request(Endpoint::Completions, Dialect::Vllm, &body).unwrap();
    assert!(request.stream);
    assert_eq!(request.meta.endpoint, Endpoint::Completions);
    assert_eq!(request.meta.outputs, 6);
    assert_eq!(request.meta.max_tokens, Some(7));
}

#[test]
fn the_salt_is_the_enclaves_and_vllms_alone() {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let write = |dialect, salt| {
        let cx = cloister_enclave_openai::Context {
            cache_salt: salt,
            ..context(dialect)
        };
        String::from_utf8(
            sanitize(Endpoint::ChatCompletions, body.as_bytes(), &cx)
                .unwrap()
                .body
                .to_vec(),
        )
        .unwrap()
    };
    assert!(write(Dialect::Vllm, Some("salt-x")).contains(r#""cache_salt":"salt-x""#));
    assert!(!write(Dialect::Vllm, None).contains("cache_salt"));
    assert!(!write(Dialect::LlamaCpp, Some("salt-x")).contains("salt"));
}

#[test]
fn paths_are_exact() {
    for endpoint in [
        Endpoint::ChatCompletions,
        Endpoint::Responses,
        Endpoint::Completions,
        Endpoint::Embeddings,
    ] {
        assert_eq!(Endpoint::from_path(endpoint.path()).unwrap(), endpoint);
    }
    for path in [
        "/v1/chat/completions/",
        "/v1/chat/completions?x=1",
        "/chat/completions",
        "/v1/models",
        "/slots",
        "/v1/responses/resp_1",
        "",
        "/V1/embeddings",
    ] {
        assert_eq!(Endpoint::from_path(path).unwrap_err().status(), 404, "{path}");
    }
}
