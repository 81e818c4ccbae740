//! What reaches the client, from answers that real engines gave.

use cloister_enclave_openai::{Dialect, Endpoint, EngineRequest, ErrorCode, FilterOptions, ResponseFilter, Summary};
use serde_json::{Value, json};

use crate::support::{MODEL, filter, golden, request, run, testdata};

use Dialect::{LlamaCpp, Vllm};
use Endpoint::{ChatCompletions, Completions, Embeddings, Responses};

/// One captured answer, and the request that it answers as far as the filter cares.
pub(crate) struct Case {
    name: &'static str,
    data: &'static str,
    endpoint: Endpoint,
    dialect: Dialect,
    body: Value,
}

fn case(name: &'static str, data: &'static str, endpoint: Endpoint, dialect: Dialect, body: Value) -> Case {
    Case {
        name,
        data,
        endpoint,
        dialect,
        body,
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let two = json!({"max_tokens": 2, "n": 2, "logprobs": true, "top_logprobs": 1});
    let two_streamed = merge(two.clone(), &stream());
    let required = tools("required", false);
    let required_response = tools("required", true);
    vec![
        case(
            "chat.json",
            "llamacpp/chat.json",
            ChatCompletions,
            LlamaCpp,
            chat(&json!({})),
        ),
        case(
            "chat_stream.sse",
            "llamacpp/chat_stream.sse",
            ChatCompletions,
            LlamaCpp,
            chat(&stream()),
        ),
        case(
            "chat_stream_no_usage.sse",
            "llamacpp/chat_stream.sse",
            ChatCompletions,
            LlamaCpp,
            chat(&json!({"stream": true})),
        ),
        case(
            "chat_logprobs_n2.json",
            "llamacpp/chat_logprobs_n2.json",
            ChatCompletions,
            LlamaCpp,
            chat(&two),
        ),
        case(
            "chat_logprobs_n2_stream.sse",
            "llamacpp/chat_logprobs_n2_stream.sse",
            ChatCompletions,
            LlamaCpp,
            chat(&two_streamed),
        ),
        case(
            "chat_forced.json",
            "llamacpp/chat_forced.json",
            ChatCompletions,
            LlamaCpp,
            chat(&required),
        ),
        case(
            "chat_forced_cut.json",
            "llamacpp/chat_forced_cut.json",
            ChatCompletions,
            LlamaCpp,
            chat(&required),
        ),
        case(
            "chat_forced_stream.sse",
            "llamacpp/chat_forced_stream.sse",
            ChatCompletions,
            LlamaCpp,
            chat(&merge(required.clone(), &stream())),
        ),
        case(
            "chat_tools.json",
            "llamacpp/chat_tools.json",
            ChatCompletions,
            LlamaCpp,
            chat(&tools("auto", false)),
        ),
        case(
            "chat_tools_stream.sse",
            "llamacpp/chat_tools_stream.sse",
            ChatCompletions,
            LlamaCpp,
            chat(&merge(tools("auto", false), &stream())),
        ),
        case(
            "chat_vllm.json",
            "vllm/chat.json",
            ChatCompletions,
            Vllm,
            chat(&json!({})),
        ),
        case(
            "chat_vllm_stream.sse",
            "vllm/chat_stream.sse",
            ChatCompletions,
            Vllm,
            chat(&stream()),
        ),
        case(
            "response.json",
            "llamacpp/chat.json",
            Responses,
            LlamaCpp,
            response(&json!({"max_output_tokens": 6, "instructions": "Be \"brief\"."})),
        ),
        case(
            "response_stream.sse",
            "llamacpp/chat_stream.sse",
            Responses,
            LlamaCpp,
            response(&json!({"stream": true})),
        ),
        case(
            "response_forced.json",
            "llamacpp/chat_forced.json",
            Responses,
            LlamaCpp,
            response(&required_response),
        ),
        case(
            "response_forced_stream.sse",
            "llamacpp/chat_forced_stream.sse",
            Responses,
            LlamaCpp,
            response(&merge(required_response.clone(), &json!({"stream": true}))),
        ),
        case(
            "response_tools.json",
            "llamacpp/chat_tools.json",
            Responses,
            LlamaCpp,
            response(&tools("auto", true)),
        ),
        case(
            "response_tools_stream.sse",
            "llamacpp/chat_tools_stream.sse",
            Responses,
            LlamaCpp,
            response(&merge(tools("auto", true), &json!({"stream": true}))),
        ),
        case(
            "response_two_calls.json",
            "vllm/chat.json",
            Responses,
            Vllm,
            response(&json!({})),
        ),
        case(
            "response_reasoning_stream.sse",
            "vllm/chat_stream.sse",
            Responses,
            Vllm,
            response(&json!({"stream": true})),
        ),
        case(
            "completions.json",
            "llamacpp/completions.json",
            Completions,
            LlamaCpp,
            completion(&json!({"logprobs": 2})),
        ),
        case(
            "completions_stream.sse",
            "llamacpp/completions_stream.sse",
            Completions,
            LlamaCpp,
            completion(&merge(json!({"logprobs": 1}), &stream())),
        ),
        case(
            "completions_vllm_stream.sse",
            "vllm/completions_stream.sse",
            Completions,
            Vllm,
            completion(&merge(json!({"logprobs": 1}), &stream())),
        ),
        case(
            "embeddings_float.json",
            "llamacpp/embeddings_float.json",
            Embeddings,
            LlamaCpp,
            embedding("float"),
        ),
        case(
            "embeddings_float_as_base64.json",
            "llamacpp/embeddings_float.json",
            Embeddings,
            LlamaCpp,
            embedding("base64"),
        ),
        case(
            "embeddings_base64.json",
            "llamacpp/embeddings_base64.json",
            Embeddings,
            LlamaCpp,
            embedding("base64"),
        ),
    ]
}

impl Case {
    pub(crate) fn input(&self) -> Vec<u8> {
        testdata(self.data)
    }

    pub(crate) fn request(&self) -> EngineRequest {
        request(self.endpoint, self.dialect, &self.body).unwrap()
    }

    pub(crate) fn filter(&self) -> ResponseFilter {
        self.request().response_filter(200, FilterOptions::default())
    }
}

fn chat(extra: &Value) -> Value {
    merge(
        json!({"model": MODEL, "messages": [{"role": "user", "content": "Say hi."}]}),
        extra,
    )
}

fn response(extra: &Value) -> Value {
    merge(json!({"model": MODEL, "input": "Say hi."}), extra)
}

fn completion(extra: &Value) -> Value {
    merge(json!({"model": MODEL, "prompt": ["One two", "A"]}), extra)
}

fn embedding(encoding: &str) -> Value {
    json!({"model": MODEL, "input": ["a", "b"], "encoding_format": encoding})
}

fn tools(choice: &str, response: bool) -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = json!({"name": "get_weather", "parameters": parameters});
    let flat = merge(json!({"type": "function"}), &function);
    let tool = if response {
        flat
    } else {
        json!({"type": "function", "function": function})
    };
    json!({"tools": [tool], "tool_choice": choice})
}

fn stream() -> Value {
    json!({"stream": true, "stream_options": {"include_usage": true}})
}

fn merge(mut body: Value, extra: &Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The usage that a client is shown, in whichever form.
fn shown_tokens(out: &str) -> Option<u64> {
    let (_, after) = out.rsplit_once(r#""total_tokens":"#)?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn captured_answers() {
    for case in cases() {
        let (out, end) = run(&mut case.filter(), &case.input(), usize::MAX);
        golden(case.name, &out);
        let summary = end.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert!(summary.finished, "{}", case.name);
        assert!(summary.total_tokens > 0, "{}", case.name);
        if case.name != "chat_stream_no_usage.sse" {
            assert_eq!(shown_tokens(&out), Some(summary.total_tokens), "{}", case.name);
        }
        // What tells of the engine, its cache or its files.
        for secret in [
            "/models/",
            "secret-path",
            "timings",
            "fingerprint",
            "b0-unknown",
            "vllm",
            "token_ids",
            "kv_transfer",
            "stop_reason",
        ] {
            assert!(!out.contains(secret), "{}: {secret}", case.name);
        }
        assert!(
            !out.contains("cached_tokens\":1") && !out.contains("cached_tokens\":8"),
            "{}",
            case.name
        );
    }
}

#[test]
fn every_event_is_one_json_value_with_counted_numbers() {
    for case in cases().iter().filter(|case| case.name.ends_with(".sse")) {
        let (out, _) = run(&mut case.filter(), &case.input(), usize::MAX);
        let data = out
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]");
        let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        assert!(!events.is_empty(), "{}", case.name);
        if case.name.starts_with("response") {
            for (number, event) in events.iter().enumerate() {
                assert_eq!(event["sequence_number"], json!(number), "{}", case.name);
            }
            assert!(!out.contains("[DONE]"), "{}", case.name);
        } else {
            assert!(out.ends_with("data: [DONE]\n\n"), "{}", case.name);
        }
    }
}

#[test]
fn cached_tokens_are_shown_only_when_configured() {
    for (endpoint, body, path) in [
        (ChatCompletions, chat(&json!({})), "prompt_tokens_details"),
        (Responses, response(&json!({})), "input_tokens_details"),
    ] {
        let request = request(endpoint, Vllm, &body).unwrap();
        let mut filter = request.response_filter(
            200,
            FilterOptions {
                expose_cached_tokens: true,
            },
        );
        let (out, _) = run(&mut filter, &testdata("vllm/chat.json"), usize::MAX);
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out["usage"][path]["cached_tokens"], json!(8));
    }
}

#[test]
fn usage_of_many_outputs_is_added_up() {
    let body = completion(&merge(json!({"logprobs": 1}), &stream()));
    let (_, end) = run(
        &mut filter(Completions, LlamaCpp, &body),
        &testdata("llamacpp/completions_stream.sse"),
        usize::MAX,
    );
    let expected = Summary {
        prompt_tokens: 3,
        completion_tokens: 6,
        total_tokens: 9,
        finished: true,
    };
    assert_eq!(end.unwrap(), expected);

    let body = chat(&merge(json!({"n": 2}), &stream()));
    let (_, end) = run(
        &mut filter(ChatCompletions, LlamaCpp, &body),
        &testdata("llamacpp/chat_logprobs_n2_stream.sse"),
        usize::MAX,
    );
    assert_eq!(end.unwrap().completion_tokens, 6);
}

/// Feeds text to the filter of a plain request and returns what came out and the error.
fn fails(endpoint: Endpoint, body: &Value, text: &str) -> (String, ErrorCode) {
    let (out, end) = run(&mut filter(endpoint, Vllm, body), text.as_bytes(), usize::MAX);
    let error = end.unwrap_err();
    assert!(!String::from_utf8(error.body()).unwrap().contains("marker"), "{text}");
    (out, error.code())
}

fn chunk(fields: &str) -> String {
    format!("data: {{\"id\":\"chatcmpl-1\",\"created\":1,\"choices\":[{{\"index\":0,{fields}}}]}}\n\n")
}

#[test]
fn a_stream_cut_anywhere_is_no_success() {
    for case in cases().iter().filter(|case| case.name.ends_with(".sse")) {
        let input = case.input();
        let end = input.windows(7).position(|bytes| bytes == b"[DONE]\n").unwrap() + 7;
        for cut in (0..end).step_by(7) {
            let (_, result) = run(&mut case.filter(), &input[..cut], usize::MAX);
            assert_eq!(
                result.unwrap_err().code(),
                ErrorCode::EngineIncomplete,
                "{} at {cut}",
                case.name
            );
        }
    }
}

#[test]
fn a_body_cut_anywhere_is_no_success() {
    for case in cases().iter().filter(|case| case.name.ends_with(".json")) {
        let input = case.input();
        for cut in (0..input.trim_ascii_end().len()).step_by(11) {
            let (out, result) = run(&mut case.filter(), &input[..cut], usize::MAX);
            assert!(result.is_err() && out.is_empty(), "{} at {cut}", case.name);
        }
    }
}

#[test]
fn an_end_without_a_finish_is_no_success() {
    let body = chat(&json!({"stream": true}));
    let text = chunk(r#""delta":{"content":"a"},"finish_reason":null"#) + "data: [DONE]\n\n";
    assert_eq!(fails(ChatCompletions, &body, &text).1, ErrorCode::EngineIncomplete);
    // A finish without the engine's end.
    let text = chunk(r#""delta":{"content":"a"},"finish_reason":"stop""#);
    assert_eq!(fails(ChatCompletions, &body, &text).1, ErrorCode::EngineIncomplete);
    assert_eq!(
        fails(Responses, &response(&json!({"stream": true})), &text).1,
        ErrorCode::EngineIncomplete
    );
    // One of two choices.
    let two = chat(&json!({"stream": true, "n": 2}));
    assert_eq!(
        fails(ChatCompletions, &two, &(text + "data: [DONE]\n\n")).1,
        ErrorCode::EngineIncomplete
    );
    // Unary: no finish, a choice too few.
    let unary = r#"{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":null}]}"#;
    assert_eq!(
        fails(ChatCompletions, &chat(&json!({})), unary).1,
        ErrorCode::EngineIncomplete
    );
    let unary = r#"{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}"#;
    assert_eq!(
        fails(ChatCompletions, &chat(&json!({"n": 2})), unary).1,
        ErrorCode::EngineIncomplete
    );
    assert_eq!(
        fails(
            Completions,
            &completion(&json!({})),
            r#"{"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}"#
        )
        .1,
        ErrorCode::EngineIncomplete
    );
}

#[test]
fn answers_that_break_the_format() {
    let streamed = chat(&json!({"stream": true}));
    let stop = chunk(r#""delta":{},"finish_reason":"stop""#);
    for text in [
        "data: {\n\n".to_owned(),
        "data: []\n\n".to_owned(),
        "data: {}\n\n".to_owned(),
        "data: {\"choices\":5}\n\n".to_owned(),
        chunk(r#""index":7,"delta":{}"#),
        chunk(r#""delta":{"content":5}"#),
        chunk(r#""delta":{},"finish_reason":"abort""#),
        chunk(r#""delta":{},"finish_reason":"marker""#),
        chunk(r#""delta":{"tool_calls":[{"index":100000}]}"#),
        // More after the end.
        format!("{stop}{stop}"),
        format!("{stop}data: [DONE]\n\n{stop}"),
    ] {
        let (_, code) = fails(ChatCompletions, &streamed, &text);
        assert_eq!(code, ErrorCode::EngineError, "{text}");
    }
    let seven = "data: {\"choices\":[{\"index\":7,\"delta\":{}}]}\n\n";
    assert_eq!(fails(ChatCompletions, &streamed, seven).1, ErrorCode::EngineError);
}

#[test]
fn errors_in_a_stream_are_mapped() {
    let streamed = chat(&json!({"stream": true}));
    for (event, code) in [
        (
            r#"data: {"error":{"code":500,"message":"marker","type":"server_error"}}"#,
            ErrorCode::EngineError,
        ),
        (
            r#"data: {"error":{"code":400,"message":"marker maximum context length is 5","type":"BadRequestError"}}"#,
            ErrorCode::ContextLengthExceeded,
        ),
        (
            r#"error: {"code":503,"message":"marker","type":"unavailable_error"}"#,
            ErrorCode::EngineOverloaded,
        ),
        (
            r#"data: {"object":"error","message":"marker","type":"x","code":400}"#,
            ErrorCode::InvalidRequest,
        ),
        ("error: marker", ErrorCode::EngineError),
    ] {
        let text = chunk(r#""delta":{"content":"a"}"#) + event + "\n\n";
        let (out, got) = fails(ChatCompletions, &streamed, &text);
        assert_eq!(got, code, "{event}");
        assert!(out.contains("\"content\":\"a\"") && !out.contains("marker"));
        assert_eq!(fails(Responses, &response(&json!({"stream": true})), &text).1, code);
    }
    // And in the place of a unary answer.
    let unary = r#"{"error":{"code":503,"message":"marker"}}"#;
    assert_eq!(
        fails(ChatCompletions, &chat(&json!({})), unary).1,
        ErrorCode::EngineOverloaded
    );
}

#[test]
fn refusals_of_the_engine_are_mapped() {
    for (status, file, code) in [
        (400, "error_context.json", ErrorCode::ContextLengthExceeded),
        (500, "error_embedding_too_long.json", ErrorCode::ContextLengthExceeded),
        (400, "error_n.json", ErrorCode::InvalidRequest),
        (400, "error_schema.json", ErrorCode::InvalidRequest),
    ] {
        for body in [chat(&json!({})), chat(&json!({"stream": true}))] {
            let mut filter = request(ChatCompletions, LlamaCpp, &body)
                .unwrap()
                .response_filter(status, FilterOptions::default());
            let (out, end) = run(&mut filter, &testdata(&format!("llamacpp/{file}")), 7);
            assert_eq!(end.unwrap_err().code(), code, "{file}");
            assert!(out.is_empty());
        }
    }
    // Only 200 is a success.
    for status in [201, 204, 206, 302] {
        let mut filter = request(ChatCompletions, LlamaCpp, &chat(&json!({})))
            .unwrap()
            .response_filter(status, FilterOptions::default());
        assert_eq!(
            run(&mut filter, &testdata("llamacpp/chat.json"), 7)
                .1
                .unwrap_err()
                .code(),
            ErrorCode::EngineError
        );
    }
}

#[test]
fn a_demanded_call_must_be_one_of_the_tools() {
    let body = chat(&tools("required", false));
    let answer = |content: &str, finish: &str| {
        json!({"choices": [{"index": 0, "message": {"content": content}, "finish_reason": finish}]}).to_string()
    };
    let fails = |text: &str| {
        run(&mut filter(ChatCompletions, LlamaCpp, &body), text.as_bytes(), 5)
            .1
            .unwrap_err()
            .code()
    };
    for content in [
        "",
        "marker",
        r#"{"name":"other","arguments":{}}"#,
        r#"{"name":"get_weather"}"#,
        r#"{"name":"get_weather","arguments":{},"x":1}"#,
    ] {
        assert_eq!(fails(&answer(content, "stop")), ErrorCode::EngineError, "{content}");
    }
    let (out, _) = run(
        &mut filter(ChatCompletions, LlamaCpp, &body),
        answer("{\"na", "length").as_bytes(),
        5,
    );
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out["choices"][0]["finish_reason"], json!("length"));
    assert_eq!(out["choices"][0]["message"]["content"], json!(""));
}

#[test]
fn calls_of_a_response_come_in_order() {
    let body = response(&json!({"stream": true}));
    for calls in [
        r#"{"index":0,"function":{"arguments":"{}"}}"#,
        r#"{"index":1,"id":"a","function":{"name":"f","arguments":""}},{"index":0,"id":"b","function":{"name":"g","arguments":""}}"#,
    ] {
        let text = chunk(&format!(r#""delta":{{"tool_calls":[{calls}]}}"#));
        assert_eq!(fails(Responses, &body, &text).1, ErrorCode::EngineError, "{calls}");
    }
}

#[test]
fn embeddings_must_be_whole() {
    let body = embedding("float");
    for text in [
        r#"{"data":[{"index":0,"embedding":[1]}]}"#,
        r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#,
        r#"{"data":[{"index":0,"embedding":[1]},{"index":2,"embedding":[1]}]}"#,
        r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[null]}]}"#,
        r#"{"data":[{"index":0,"embedding":"AAAA"},{"index":1,"embedding":"AAAAAAA="}]}"#,
        r#"{"data":[{"index":0,"embedding":"marker!"},{"index":1,"embedding":"AAAAAA=="}]}"#,
        r#"{"data":[{"index":0,"embedding":"AADAfw=="},{"index":1,"embedding":"AAAAAA=="}]}"#,
    ] {
        assert_eq!(fails(Embeddings, &body, text).1, ErrorCode::EngineError, "{text}");
    }
    // Out of order is put in order, and base64 becomes numbers.
    let text = r#"{"data":[{"index":1,"embedding":"AACAPw=="},{"index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":2,"total_tokens":2}}"#;
    let (out, end) = run(&mut filter(Embeddings, Vllm, &body), text.as_bytes(), 3);
    assert!(end.unwrap().finished);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&out["data"][0]["embedding"], &out["data"][1]["embedding"]),
        (&json!([0.5]), &json!([1.0]))
    );
}

#[test]
fn nothing_comes_after_an_error() {
    let mut filter = filter(ChatCompletions, Vllm, &chat(&json!({"stream": true})));
    let mut out = Default::default();
    filter
        .push(chunk(r#""delta":{"content":"a"}"#).as_bytes(), &mut out)
        .unwrap();
    let before = out.len();
    assert!(filter.push(b"data: oops\n\n", &mut out).is_err());
    assert!(
        filter
            .push(chunk(r#""delta":{},"finish_reason":"stop""#).as_bytes(), &mut out)
            .is_err()
    );
    assert!(filter.finish(&mut out).is_err());
    assert_eq!(out.len(), before);
    assert!(!filter.summary().finished);
}
