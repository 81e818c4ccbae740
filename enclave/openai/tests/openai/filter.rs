//! What reaches the client, from answers that engines gave.

use cloister_enclave_openai::{Dialect, Endpoint, FilterOptions, Summary};
use serde_json::{Value, json};

use crate::{
    cases::{cases, chat, completion, merge, response, stream},
    support::{filter, golden, request, run, testdata},
};

use Dialect::{LlamaCpp, Vllm};
use Endpoint::{ChatCompletions, Completions, Responses};

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
