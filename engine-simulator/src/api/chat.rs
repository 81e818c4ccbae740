//! `/v1/chat/completions`.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiError;
use super::plan::{self, Ask, Stops};
use super::run::Run;
use super::sse::{self, Events, Format};
use crate::server::App;

#[derive(Deserialize)]
pub(super) struct Request {
    model: Option<String>,
    messages: Vec<Value>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    min_tokens: u32,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    stop: Stops,
    seed: Option<i64>,
    n: Option<usize>,
    #[serde(default)]
    logprobs: bool,
    top_logprobs: Option<usize>,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    response_format: Option<Value>,
    cache_salt: Option<String>,
    #[serde(default)]
    continue_final_message: bool,
}

#[derive(Deserialize, Clone, Copy)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub(super) include_usage: bool,
}

pub(super) async fn handle(
    State(app): State<App>,
    body: Result<Json<Request>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = body.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    check_model(&app, request.model.as_deref())?;
    check_salt(request.cache_salt.as_deref())?;
    let n = plan::sequences(request.n)?;
    let format = ChatFormat {
        model: app.shared.config.model.clone(),
        logprobs: request.logprobs.then(|| request.top_logprobs.unwrap_or(0)),
        include_usage: request.stream_options.is_some_and(|options| options.include_usage),
    };
    let streams = request.stream;
    let salt = request.cache_salt.clone();
    let mut run = Run::start(&app, &[ask(request)?], n, salt).await?;
    if streams {
        return Ok(sse::stream(run, format));
    }
    if !run.finish().await {
        return Ok(sse::broken());
    }
    Ok(Json(format.whole(&run)).into_response())
}

/// Refuses a model that is not served. No model means the one that is.
pub(super) fn check_model(app: &App, model: Option<&str>) -> Result<(), ApiError> {
    match model {
        Some(model) if model != app.shared.config.model => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!("The model `{model}` does not exist."),
        )),
        _ => Ok(()),
    }
}

/// As in vLLM, a salt is a text that is not empty.
pub(super) fn check_salt(salt: Option<&str>) -> Result<(), ApiError> {
    if salt == Some("") {
        return Err(ApiError::bad(
            "Parameter 'cache_salt' must be a non-empty string if provided.",
        ));
    }
    Ok(())
}

fn ask(request: Request) -> Result<Ask, ApiError> {
    if request.messages.is_empty() {
        return Err(ApiError::bad("messages is empty"));
    }
    let tools = plan::tools(&request.tools);
    let shape = plan::shape(&tools, request.tool_choice.as_ref(), request.response_format.as_ref())?;
    let mut messages = request.messages;
    let continued = if request.continue_final_message {
        messages
            .pop()
            .map(|last| content(last.get("content")))
            .unwrap_or_default()
    } else {
        String::new()
    };
    let mut prompt = String::new();
    for tool in &request.tools {
        prompt.push_str(&tool.to_string());
        prompt.push('\n');
    }
    for message in &messages {
        prompt.push_str(&turn(message));
    }
    prompt.push_str("<|assistant|>\n");
    Ok(Ask {
        prompt,
        continued,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        min_tokens: request.min_tokens,
        ignore_eos: request.ignore_eos,
        stops: request.stop.into(),
        seed: request.seed,
        shape,
    })
}

/// One message as the simulated template writes it.
fn turn(message: &Value) -> String {
    let role = message.get("role").and_then(Value::as_str).unwrap_or("user");
    let calls = message.get("tool_calls").map(ToString::to_string).unwrap_or_default();
    format!("<|{role}|>\n{}{calls}\n", content(message.get("content")))
}

/// The text of a content, whatever its form. Parts that are not text count as what they are written as.
pub(super) fn content(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts
            .iter()
            .map(|part| {
                part.get("text")
                    .and_then(Value::as_str)
                    .map_or_else(|| part.to_string(), ToOwned::to_owned)
            })
            .collect(),
        _ => String::new(),
    }
}

struct ChatFormat {
    model: String,
    /// How many alternatives each token shows, if any are asked for.
    logprobs: Option<usize>,
    include_usage: bool,
}

impl ChatFormat {
    fn whole(&self, run: &Run) -> Value {
        let choices: Vec<Value> = run
            .plans
            .iter()
            .enumerate()
            .map(|(index, plan)| {
                let text = plan.pieces.concat();
                let message = match &plan.tool {
                    Some(name) => json!({
                        "role": "assistant", "content": null,
                        "tool_calls": [{"id": call_id(index), "type": "function",
                            "function": {"name": name, "arguments": text}}],
                    }),
                    None => json!({"role": "assistant", "content": text}),
                };
                let entries: Vec<Value> = plan.pieces.iter().map(|piece| self.logprob(piece)).collect();
                let logprobs = self.logprobs.map(|_| json!({"content": entries}));
                json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": plan.finish})
            })
            .collect();
        json!({
            "id": "chatcmpl-simulated", "object": "chat.completion", "created": 0, "model": self.model,
            "choices": choices, "usage": run.usage.completions_form(),
        })
    }

    fn chunk(&self, choices: &Value, usage: &Value) -> Value {
        let mut chunk = json!({
            "id": "chatcmpl-simulated", "object": "chat.completion.chunk", "created": 0, "model": self.model,
            "choices": choices,
        });
        if self.include_usage
            && let Some(fields) = chunk.as_object_mut()
        {
            fields.insert("usage".to_owned(), usage.clone());
        }
        chunk
    }

    fn delta(&self, choice: usize, delta: &Value, logprobs: &Value, finish: Option<&str>) -> Value {
        let choices = json!([{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]);
        self.chunk(&choices, &Value::Null)
    }

    /// One token of `logprobs.content`.
    fn logprob(&self, piece: &str) -> Value {
        let entry = |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()});
        let alternatives = self.logprobs.unwrap_or(0);
        let top: Vec<Value> = (0..alternatives)
            .map(|rank| match rank {
                0 => entry(piece, -0.25),
                rank => entry(&format!("{piece}~{rank}"), -1.0 - rank as f64),
            })
            .collect();
        let mut token = entry(piece, -0.25);
        if let Some(fields) = token.as_object_mut() {
            fields.insert("top_logprobs".to_owned(), Value::Array(top));
        }
        token
    }
}

impl Format for ChatFormat {
    fn begin(&mut self, run: &Run, to: &mut Events) {
        for (choice, plan) in run.plans.iter().enumerate() {
            let delta = match &plan.tool {
                Some(name) => json!({
                    "role": "assistant", "content": null,
                    "tool_calls": [{"index": 0, "id": call_id(choice), "type": "function",
                        "function": {"name": name, "arguments": ""}}],
                }),
                None => json!({"role": "assistant", "content": ""}),
            };
            to.data(&self.delta(choice, &delta, &Value::Null, None));
        }
    }

    fn piece(&mut self, run: &Run, choice: usize, index: usize, to: &mut Events) {
        let Some(plan) = run.plans.get(choice) else { return };
        let Some(piece) = plan.pieces.get(index) else { return };
        let delta = match plan.tool {
            Some(_) => json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}),
            None => json!({"content": piece}),
        };
        let logprobs = self
            .logprobs
            .map_or(Value::Null, |_| json!({"content": [self.logprob(piece)]}));
        to.data(&self.delta(choice, &delta, &logprobs, None));
    }

    fn end(&mut self, run: &Run, choice: usize, to: &mut Events) {
        let finish = run.plans.get(choice).map(|plan| plan.finish);
        to.data(&self.delta(choice, &json!({}), &Value::Null, finish));
    }

    fn finish(&mut self, run: &Run, to: &mut Events) {
        if self.include_usage {
            to.data(&self.chunk(&json!([]), &run.usage.completions_form()));
        }
        to.text("[DONE]");
    }
}

fn call_id(choice: usize) -> String {
    format!("call_simulated_{choice}")
}
