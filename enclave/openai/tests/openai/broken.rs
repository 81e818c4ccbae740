//! Answers that are cut short, damaged, or errors: none of them is a success, and no text of an engine gets out.

use cloister_enclave_openai::{Dialect, Endpoint, ErrorCode, FilterOptions, limits};
use serde_json::{Value, json};

use crate::{
    cases::{cases, chat, completion, embedding, merge, response, tools},
    support::{filter, request, run, testdata},
};

use Dialect::{LlamaCpp, Vllm};
use Endpoint::{ChatCompletions, Completions, Embeddings, Responses};

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

#[test]
fn what_is_held_is_capped() {
    let x = "x".repeat(1_000_000);
    let event = chunk(&format!(r#""delta":{{"content":"{x}"}}"#));
    let fed = |endpoint, dialect, body: &Value| {
        let mut filter = filter(endpoint, dialect, body);
        let mut out = Default::default();
        let mut events = (0..=limits::MAX_TEXT / x.len()).map(|_| {
            let result = filter.push(event.as_bytes(), &mut out);
            out.clear();
            result
        });
        events.find_map(Result::err).map(|error| error.code())
    };
    // A response and a demanded call are kept whole; a chat is not.
    assert_eq!(
        fed(Responses, Vllm, &response(&json!({"stream": true}))),
        Some(ErrorCode::EngineError)
    );
    let forced = chat(&merge(tools("required", false), &json!({"stream": true})));
    assert_eq!(fed(ChatCompletions, LlamaCpp, &forced), Some(ErrorCode::EngineError));
    assert_eq!(fed(ChatCompletions, Vllm, &chat(&json!({"stream": true}))), None);
}

#[test]
fn unary_bodies_are_capped() {
    let mut filter = filter(ChatCompletions, Vllm, &chat(&json!({})));
    let mut out = Default::default();
    let spaces = vec![b' '; limits::MAX_ANSWER];
    filter.push(&spaces, &mut out).unwrap();
    assert_eq!(filter.push(b" ", &mut out).unwrap_err().code(), ErrorCode::EngineError);

    // Of an error body only the beginning is looked at.
    let request = request(ChatCompletions, Vllm, &chat(&json!({}))).unwrap();
    let text = format!(
        "{}{}",
        " ".repeat(limits::MAX_ERROR),
        r#"{"error":{"type":"exceed_context_size_error"}}"#
    );
    let (_, end) = run(
        &mut request.response_filter(400, FilterOptions::default()),
        text.as_bytes(),
        1 << 16,
    );
    assert_eq!(end.unwrap_err().code(), ErrorCode::InvalidRequest);
}

#[test]
fn counts_in_an_answer_are_capped() {
    let streamed = response(&json!({"stream": true}));
    let pair = chunk(r#""delta":{"reasoning":"a"}"#) + &chunk(r#""delta":{"content":"b"}"#);
    assert_eq!(
        fails(Responses, &streamed, &pair.repeat(limits::MAX_ITEMS)).1,
        ErrorCode::EngineError
    );
    let calls = vec![r#"{"index":0}"#; limits::MAX_ANSWER_CALLS + 1].join(",");
    let text = chunk(&format!(r#""delta":{{"tool_calls":[{calls}]}}"#));
    assert_eq!(
        fails(ChatCompletions, &chat(&json!({"stream": true})), &text).1,
        ErrorCode::EngineError
    );
}

#[test]
fn bytes_of_tokens_are_numbers() {
    let body = chat(&json!({"stream": true, "logprobs": true}));
    for bytes in [r#""marker""#, r#"["marker"]"#, "[[1]]", "{}", "[-1]"] {
        let token = format!(r#"{{"token":"a","logprob":-1,"bytes":{bytes}}}"#);
        let text = chunk(&format!(r#""delta":{{}},"logprobs":{{"content":[{token}]}}"#));
        let (out, code) = fails(ChatCompletions, &body, &text);
        assert_eq!(code, ErrorCode::EngineError, "{bytes}");
        assert!(out.is_empty());
    }
}
