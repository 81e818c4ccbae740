//! `/v1/completions`.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ApiError;
use super::chat::{StreamOptions, check_model, check_salt};
use super::plan::{self, Ask, Plan, Stops};
use super::run::Run;
use super::sse::{self, Events, Format};
use crate::server::App;

/// vLLM's length of a completion to which nothing gives a length.
const DEFAULT_MAX_TOKENS: u32 = 16;

#[derive(Deserialize)]
pub(super) struct Request {
    model: Option<String>,
    prompt: Prompt,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    #[serde(default)]
    min_tokens: u32,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    stop: Stops,
    seed: Option<i64>,
    n: Option<usize>,
    logprobs: Option<usize>,
    #[serde(default)]
    echo: bool,
    response_format: Option<Value>,
    cache_salt: Option<String>,
}

/// A prompt as text or token numbers, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

impl Prompt {
    /// The prompts as text. A token number becomes a word of its own.
    pub(super) fn texts(self) -> Vec<String> {
        let words = |tokens: Vec<u32>| tokens.iter().map(|token| format!(" {token}")).collect::<String>();
        match self {
            Self::Text(text) => vec![text],
            Self::Texts(texts) => texts,
            Self::Tokens(tokens) => vec![words(tokens)],
            Self::TokenLists(lists) => lists.into_iter().map(words).collect(),
        }
    }
}

pub(super) async fn handle(
    State(app): State<App>,
    body: Result<Json<Request>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = body.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    check_model(&app, request.model.as_deref())?;
    check_salt(request.cache_salt.as_deref())?;
    let n = plan::sequences(request.n)?;
    let shape = plan::shape(&[], None, request.response_format.as_ref())?;
    let stops: Vec<String> = request.stop.into();
    let prompts = request.prompt.texts();
    let echo = if request.echo {
        prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt.clone(), n))
            .collect()
    } else {
        Vec::new()
    };
    let asks: Vec<Ask> = prompts
        .into_iter()
        .map(|prompt| Ask {
            prompt,
            continued: String::new(),
            max_tokens: Some(request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
            min_tokens: request.min_tokens,
            ignore_eos: request.ignore_eos,
            stops: stops.clone(),
            seed: request.seed,
            shape: shape.clone(),
        })
        .collect();
    let mut run = Run::start(&app, &asks, n, request.cache_salt).await?;
    let format = CompletionFormat {
        model: app.shared.config.model.clone(),
        logprobs: request.logprobs,
        include_usage: request.stream_options.is_some_and(|options| options.include_usage),
        echo,
    };
    if request.stream {
        return Ok(sse::stream(run, format));
    }
    if !run.finish().await {
        return Ok(sse::broken());
    }
    Ok(Json(format.whole(&run)).into_response())
}

struct CompletionFormat {
    model: String,
    logprobs: Option<usize>,
    include_usage: bool,
    /// Prompt of each choice, when it is to be repeated.
    echo: Vec<String>,
}

impl CompletionFormat {
    fn whole(&self, run: &Run) -> Value {
        let choices: Vec<Value> = run
            .plans
            .iter()
            .enumerate()
            .map(|(index, plan)| {
                let echo = self.echo.get(index).map_or("", String::as_str);
                let text = format!("{echo}{}", plan.pieces.concat());
                json!({"index": index, "text": text, "logprobs": self.logprobs(plan), "finish_reason": plan.finish})
            })
            .collect();
        self.object(&json!(choices), &run.usage.completions_form())
    }

    fn object(&self, choices: &Value, usage: &Value) -> Value {
        let mut object = json!({
            "id": "cmpl-simulated", "object": "text_completion", "created": 0, "model": self.model, "choices": choices,
        });
        if !usage.is_null()
            && let Some(fields) = object.as_object_mut()
        {
            fields.insert("usage".to_owned(), usage.clone());
        }
        object
    }

    fn chunk(&self, choice: usize, text: &str, finish: Option<&str>) -> Value {
        self.object(
            &json!([{"index": choice, "text": text, "logprobs": null, "finish_reason": finish}]),
            &Value::Null,
        )
    }

    fn logprobs(&self, plan: &Plan) -> Value {
        let Some(alternatives) = self.logprobs else {
            return Value::Null;
        };
        let mut offset = 0usize;
        let offsets: Vec<usize> = plan
            .pieces
            .iter()
            .map(|piece| {
                let at = offset;
                offset = offset.saturating_add(piece.chars().count());
                at
            })
            .collect();
        let top = |piece: &String| {
            (0..alternatives)
                .map(|rank| match rank {
                    0 => (piece.clone(), json!(-0.25)),
                    rank => (format!("{piece}~{rank}"), json!(-1.0 - rank as f64)),
                })
                .collect::<Map<_, _>>()
        };
        json!({
            "tokens": plan.pieces,
            "token_logprobs": plan.pieces.iter().map(|_| -0.25).collect::<Vec<_>>(),
            "top_logprobs": plan.pieces.iter().map(top).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}

impl Format for CompletionFormat {
    fn begin(&mut self, _: &Run, to: &mut Events) {
        for (choice, prompt) in self.echo.iter().enumerate() {
            to.data(&self.chunk(choice, prompt, None));
        }
    }

    fn piece(&mut self, run: &Run, choice: usize, index: usize, to: &mut Events) {
        if let Some(piece) = run.plans.get(choice).and_then(|plan| plan.pieces.get(index)) {
            to.data(&self.chunk(choice, piece, None));
        }
    }

    fn end(&mut self, run: &Run, choice: usize, to: &mut Events) {
        let finish = run.plans.get(choice).map(|plan| plan.finish);
        to.data(&self.chunk(choice, "", finish));
    }

    fn finish(&mut self, run: &Run, to: &mut Events) {
        if self.include_usage {
            to.data(&self.object(&json!([]), &run.usage.completions_form()));
        }
        to.text("[DONE]");
    }
}
