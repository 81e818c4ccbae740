//! `/v1/responses`. Nothing is stored.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiError;
use super::chat::{check_model, check_salt, content};
use super::plan::{self, Ask};
use super::run::Run;
use super::sse::{self, Events, Format};
use crate::server::App;

#[derive(Deserialize)]
pub(super) struct Request {
    model: Option<String>,
    input: Value,
    instructions: Option<String>,
    #[serde(default)]
    stream: bool,
    max_output_tokens: Option<u32>,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    text: Option<Value>,
    previous_response_id: Option<String>,
    cache_salt: Option<String>,
}

pub(super) async fn handle(
    State(app): State<App>,
    body: Result<Json<Request>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = body.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    check_model(&app, request.model.as_deref())?;
    check_salt(request.cache_salt.as_deref())?;
    if request.previous_response_id.is_some() {
        return Err(ApiError::bad(
            "previous_response_id is not supported: nothing is stored",
        ));
    }
    let streams = request.stream;
    let salt = request.cache_salt.clone();
    let format = ResponsesFormat {
        model: app.shared.config.model.clone(),
        sequence: 0,
    };
    let mut run = Run::start(&app, &[ask(&request)?], 1, salt).await?;
    if streams {
        return Ok(sse::stream(run, format));
    }
    if !run.finish().await {
        return Ok(sse::broken());
    }
    Ok(Json(format.whole(&run, "completed")).into_response())
}

fn ask(request: &Request) -> Result<Ask, ApiError> {
    let tools = plan::tools(&request.tools);
    let format = request.text.as_ref().and_then(|text| text.get("format"));
    let shape = plan::shape(&tools, request.tool_choice.as_ref(), format)?;
    let mut prompt = String::new();
    if let Some(instructions) = &request.instructions {
        prompt.push_str(&format!("<|system|>\n{instructions}\n"));
    }
    for tool in &request.tools {
        prompt.push_str(&format!("{tool}\n"));
    }
    match &request.input {
        Value::Array(items) => {
            for item in items {
                let role = item.get("role").and_then(Value::as_str).unwrap_or("tool");
                let text = item.get("content").or_else(|| item.get("output"));
                prompt.push_str(&format!("<|{role}|>\n{}\n", content(text)));
            }
        }
        input => prompt.push_str(&format!("<|user|>\n{}\n", content(Some(input)))),
    }
    prompt.push_str("<|assistant|>\n");
    Ok(Ask {
        prompt,
        continued: String::new(),
        max_tokens: request.max_output_tokens,
        min_tokens: 0,
        ignore_eos: false,
        stops: Vec::new(),
        seed: None,
        shape,
    })
}

struct ResponsesFormat {
    model: String,
    sequence: u64,
}

impl ResponsesFormat {
    fn whole(&self, run: &Run, status: &str) -> Value {
        let done = status == "completed";
        let cut = run.plans.iter().any(|plan| plan.finish == "length");
        let status = if done && cut { "incomplete" } else { status };
        json!({
            "id": "resp_simulated", "object": "response", "created_at": 0, "model": self.model, "status": status,
            "incomplete_details": (status == "incomplete").then(|| json!({"reason": "max_output_tokens"})),
            "error": null, "output": if done { vec![item(run, "completed")] } else { Vec::new() },
            "usage": done.then(|| run.usage.responses_form()), "store": false,
        })
    }

    fn send(&mut self, to: &mut Events, kind: &str, mut fields: Value) {
        if let Some(map) = fields.as_object_mut() {
            map.insert("type".to_owned(), json!(kind));
            map.insert("sequence_number".to_owned(), json!(self.sequence));
        }
        self.sequence = self.sequence.saturating_add(1);
        to.named(&fields);
    }
}

/// The one output item, as it is at the beginning or at the end.
fn item(run: &Run, status: &str) -> Value {
    let Some(plan) = run.plans.first() else {
        return Value::Null;
    };
    let text = if status == "completed" {
        plan.pieces.concat()
    } else {
        String::new()
    };
    match &plan.tool {
        Some(name) => json!({
            "type": "function_call", "id": "fc_simulated", "call_id": "call_simulated_0", "name": name,
            "arguments": text, "status": status,
        }),
        None => {
            let parts = if status == "completed" {
                vec![part(&text)]
            } else {
                Vec::new()
            };
            json!({"type": "message", "id": "msg_simulated", "role": "assistant", "status": status, "content": parts})
        }
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

impl Format for ResponsesFormat {
    fn begin(&mut self, run: &Run, to: &mut Events) {
        let response = self.whole(run, "in_progress");
        self.send(to, "response.created", json!({"response": response}));
        self.send(to, "response.in_progress", json!({"response": response}));
        self.send(
            to,
            "response.output_item.added",
            json!({"output_index": 0, "item": item(run, "in_progress")}),
        );
        if run.plans.first().is_some_and(|plan| plan.tool.is_none()) {
            let fields = json!({"item_id": "msg_simulated", "output_index": 0, "content_index": 0, "part": part("")});
            self.send(to, "response.content_part.added", fields);
        }
    }

    fn piece(&mut self, run: &Run, choice: usize, index: usize, to: &mut Events) {
        let Some(plan) = run.plans.get(choice) else { return };
        let Some(piece) = plan.pieces.get(index) else { return };
        if plan.tool.is_some() {
            let fields = json!({"item_id": "fc_simulated", "output_index": 0, "delta": piece});
            self.send(to, "response.function_call_arguments.delta", fields);
        } else {
            let fields = json!({"item_id": "msg_simulated", "output_index": 0, "content_index": 0, "delta": piece, "logprobs": []});
            self.send(to, "response.output_text.delta", fields);
        }
    }

    fn end(&mut self, run: &Run, choice: usize, to: &mut Events) {
        let Some(plan) = run.plans.get(choice) else { return };
        let text = plan.pieces.concat();
        if let Some(name) = &plan.tool {
            let fields = json!({"item_id": "fc_simulated", "output_index": 0, "name": name, "arguments": text});
            self.send(to, "response.function_call_arguments.done", fields);
        } else {
            let fields = json!({"item_id": "msg_simulated", "output_index": 0, "content_index": 0, "text": text, "logprobs": []});
            self.send(to, "response.output_text.done", fields);
            let fields =
                json!({"item_id": "msg_simulated", "output_index": 0, "content_index": 0, "part": part(&text)});
            self.send(to, "response.content_part.done", fields);
        }
        self.send(
            to,
            "response.output_item.done",
            json!({"output_index": 0, "item": item(run, "completed")}),
        );
    }

    fn finish(&mut self, run: &Run, to: &mut Events) {
        let response = self.whole(run, "completed");
        let cut = response.get("status").and_then(Value::as_str) == Some("incomplete");
        let kind = if cut {
            "response.incomplete"
        } else {
            "response.completed"
        };
        self.send(to, kind, json!({"response": response}));
    }
}
