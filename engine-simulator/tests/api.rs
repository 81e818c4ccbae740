//! Every route in the form that vLLM gives it.

mod support;

use cloister_engine_simulator::{Faults, SimulatorConfig};
use http::StatusCode;
use serde_json::{Value, json};
use support::Rig;

fn rig() -> Rig {
    Rig::new(SimulatorConfig::default())
}

fn hello() -> Value {
    json!({"model": "simulated", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 9, "ignore_eos": true})
}

fn with(mut base: Value, more: Value) -> Value {
    let (Some(fields), Value::Object(more)) = (base.as_object_mut(), more) else {
        panic!("objects")
    };
    fields.extend(more);
    base
}

fn text_of(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{pointer} in {value}"))
        .to_owned()
}

fn parse(events: &[String]) -> Vec<Value> {
    events
        .iter()
        .filter(|event| *event != "[DONE]")
        .map(|event| serde_json::from_str(event).expect("JSON"))
        .collect()
}

#[tokio::test]
async fn chat_is_the_same_streamed_or_not() {
    let rig = rig();
    let whole = rig.post("/v1/chat/completions", &hello()).await;
    assert_eq!(whole.pointer("/usage/completion_tokens"), Some(&json!(9)));
    assert_eq!(whole.pointer("/choices/0/finish_reason"), Some(&json!("length")));
    let streamed = with(
        hello(),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let events = rig.events("/v1/chat/completions", &streamed).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let events = parse(&events);
    let text: String = events
        .iter()
        .filter_map(|e| e.pointer("/choices/0/delta/content")?.as_str())
        .collect();
    assert_eq!(text, text_of(&whole, "/choices/0/message/content"));
    let usage = events.last().and_then(|event| event.get("usage")).expect("usage");
    assert_eq!(usage.get("total_tokens"), whole.pointer("/usage/total_tokens"));
}

#[tokio::test]
async fn several_choices_differ_and_all_end() {
    let body = with(hello(), json!({"n": 3, "logprobs": true, "top_logprobs": 2}));
    let rig = rig();
    let whole = rig.post("/v1/chat/completions", &body).await;
    let choices = whole.get("choices").and_then(Value::as_array).expect("choices");
    assert_eq!(choices.len(), 3);
    assert_ne!(
        text_of(&whole, "/choices/0/message/content"),
        text_of(&whole, "/choices/1/message/content")
    );
    assert!(
        whole
            .pointer("/choices/2/logprobs/content/0/top_logprobs/1/token")
            .is_some()
    );
    let events = parse(
        &rig.events("/v1/chat/completions", &with(body, json!({"stream": true})))
            .await,
    );
    for choice in 0..3 {
        let ended = events.iter().any(|event| {
            event.pointer("/choices/0/index") == Some(&json!(choice))
                && event.pointer("/choices/0/finish_reason") == Some(&json!("length"))
        });
        assert!(ended, "choice {choice}");
    }
}

#[tokio::test]
async fn stop_strings_cut_the_text() {
    let rig = rig();
    let text = text_of(
        &rig.post("/v1/chat/completions", &hello()).await,
        "/choices/0/message/content",
    );
    let stop: String = text.chars().skip(10).take(4).collect();
    let cut = rig
        .post("/v1/chat/completions", &with(hello(), json!({"stop": [stop]})))
        .await;
    assert_eq!(text_of(&cut, "/choices/0/finish_reason"), "stop");
    assert!(text.starts_with(&text_of(&cut, "/choices/0/message/content")));
    assert!(!text_of(&cut, "/choices/0/message/content").contains(&stop));
}

#[tokio::test]
async fn a_required_tool_is_called_and_a_schema_is_kept() {
    let rig = rig();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    let body = with(
        hello(),
        json!({"tools": tools, "tool_choice": "required", "max_tokens": 100}),
    );
    let whole = rig.post("/v1/chat/completions", &body).await;
    assert_eq!(text_of(&whole, "/choices/0/finish_reason"), "tool_calls");
    let arguments = text_of(&whole, "/choices/0/message/tool_calls/0/function/arguments");
    assert_eq!(
        serde_json::from_str::<Value>(&arguments).expect("JSON"),
        json!({"city": "simulated"})
    );
    let events = parse(
        &rig.events("/v1/chat/completions", &with(body, json!({"stream": true})))
            .await,
    );
    let streamed: String = events
        .iter()
        .filter_map(|event| {
            event
                .pointer("/choices/0/delta/tool_calls/0/function/arguments")?
                .as_str()
        })
        .collect();
    assert_eq!(streamed, arguments);

    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let whole = rig
        .post(
            "/v1/chat/completions",
            &with(hello(), json!({"response_format": format, "max_tokens": 100})),
        )
        .await;
    let content = text_of(&whole, "/choices/0/message/content");
    assert_eq!(
        serde_json::from_str::<Value>(&content).expect("JSON"),
        json!({"city": "simulated"})
    );
}

#[tokio::test]
async fn completions_take_several_prompts() {
    let rig = rig();
    let body = json!({"prompt": ["one", "two"], "max_tokens": 4, "ignore_eos": true, "logprobs": 1, "echo": true});
    let whole = rig.post("/v1/completions", &body).await;
    assert!(text_of(&whole, "/choices/0/text").starts_with("one"));
    assert!(text_of(&whole, "/choices/1/text").starts_with("two"));
    assert_eq!(
        whole
            .pointer("/choices/1/logprobs/tokens")
            .and_then(Value::as_array)
            .map(Vec::len),
        Some(4)
    );
    let events = rig
        .events("/v1/completions", &with(body, json!({"stream": true})))
        .await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(events.len(), 2 + 8 + 2 + 1);
}

#[tokio::test]
async fn responses_stream_the_text_they_end_with() {
    let rig = rig();
    let body = json!({"model": "simulated", "input": "hello", "max_output_tokens": 8});
    let whole = rig.post("/v1/responses", &body).await;
    assert_eq!(text_of(&whole, "/status"), "incomplete");
    let events = parse(&rig.events("/v1/responses", &with(body, json!({"stream": true}))).await);
    let text: String = events
        .iter()
        .filter(|event| event.get("type") == Some(&json!("response.output_text.delta")))
        .filter_map(|event| event.get("delta")?.as_str())
        .collect();
    assert_eq!(text, text_of(&whole, "/output/0/content/0/text"));
    assert_eq!(
        text_of(events.last().expect("events"), "/response/output/0/content/0/text"),
        text
    );
    let (status, _) = rig
        .text(
            "POST",
            "/v1/responses",
            &json!({"input": "x", "previous_response_id": "r"}),
        )
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn embeddings_are_unit_vectors_in_both_encodings() {
    use base64::Engine as _;
    let rig = rig();
    let whole = rig
        .post("/v1/embeddings", &json!({"input": ["a", "b"], "dimensions": 8}))
        .await;
    let vector: Vec<f64> =
        serde_json::from_value(whole.pointer("/data/1/embedding").expect("one").clone()).expect("floats");
    assert!((vector.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-4);
    let encoded = rig
        .post(
            "/v1/embeddings",
            &json!({"input": "b", "dimensions": 8, "encoding_format": "base64"}),
        )
        .await;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text_of(&encoded, "/data/0/embedding"))
        .expect("base64");
    let floats: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().expect("four")))
        .collect();
    assert_eq!(floats, vector.iter().map(|value| *value as f32).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_engine_names_itself_as_simulated() {
    let rig = rig();
    let (_, version) = rig.text("GET", "/version", &Value::Null).await;
    let (_, models) = rig.text("GET", "/v1/models", &Value::Null).await;
    let (_, metrics) = rig.text("GET", "/metrics", &Value::Null).await;
    for text in [&version, &models] {
        assert!(text.contains("simulated"), "{text}");
    }
    for name in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"] {
        assert!(
            metrics.contains(&format!("vllm:{name}{{engine=\"0\",model_name=\"simulated\"}} 0.0")),
            "{metrics}"
        );
    }
    assert_eq!(rig.text("GET", "/health", &Value::Null).await.0, StatusCode::OK);
    assert_eq!(rig.text("GET", "/nothing", &Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_requests_are_refused_in_vllms_form() {
    let rig = rig();
    for (body, expected) in [
        (with(hello(), json!({"model": "other"})), StatusCode::NOT_FOUND),
        (with(hello(), json!({"n": 0})), StatusCode::BAD_REQUEST),
        (with(hello(), json!({"n": 1000})), StatusCode::BAD_REQUEST),
        (with(hello(), json!({"max_tokens": 0})), StatusCode::BAD_REQUEST),
        (with(hello(), json!({"cache_salt": ""})), StatusCode::BAD_REQUEST),
        (with(hello(), json!({"messages": []})), StatusCode::BAD_REQUEST),
        (
            with(hello(), json!({"tool_choice": "required"})),
            StatusCode::BAD_REQUEST,
        ),
        (json!({"messages": 7}), StatusCode::BAD_REQUEST),
    ] {
        let (status, text) = rig.text("POST", "/v1/chat/completions", &body).await;
        assert_eq!(status, expected, "{text}");
        assert!(text.contains("\"error\""), "{text}");
    }
}

#[tokio::test]
async fn sleep_stops_and_wake_up_resumes() {
    let rig = rig();
    rig.text("POST", "/sleep?level=1", &Value::Null).await;
    assert!(rig.simulator.is_sleeping());
    assert_eq!(
        rig.text("POST", "/v1/chat/completions", &hello()).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    rig.text("POST", "/wake_up", &Value::Null).await;
    rig.post("/v1/chat/completions", &hello()).await;
}

#[tokio::test]
async fn faults_are_set_by_a_route() {
    let rig = rig();
    rig.post("/simulator/faults", &json!({"lora": true, "neverIdle": true}))
        .await;
    assert!(
        rig.text("GET", "/v1/models", &Value::Null)
            .await
            .1
            .contains("simulated-adapter")
    );
    assert!(
        rig.text("GET", "/metrics", &Value::Null)
            .await
            .1
            .contains("running{engine=\"0\",model_name=\"simulated\"} 1.0")
    );
    let (status, _) = rig
        .text("POST", "/simulator/faults", &json!({"no such fault": true}))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    rig.simulator.set_faults(Faults::default());
    assert!(
        !rig.text("GET", "/v1/models", &Value::Null)
            .await
            .1
            .contains("simulated-adapter")
    );
}
