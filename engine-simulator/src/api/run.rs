//! A request in the batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ApiError;
use super::plan::{Ask, Plan};
use crate::batch::{Event, EventKind, Sequence, Ticket};
use crate::cache::hash_of;
use crate::server::App;
use crate::text;

/// A request that runs. Dropping it takes it out of the batch.
pub(super) struct Run {
    pub plans: Vec<Plan>,
    pub usage: Usage,
    app: App,
    events: mpsc::UnboundedReceiver<Event>,
    open: usize,
    _ticket: Ticket,
}

/// What happens next to one sequence of a request.
pub(super) enum Output {
    Piece {
        choice: usize,
        index: usize,
    },
    End {
        choice: usize,
    },
    /// The simulated engine dies here.
    Died,
}

#[derive(Default, Clone, Copy)]
pub(super) struct Usage {
    pub prompt: usize,
    pub completion: usize,
    pub cached: usize,
}

impl Usage {
    pub(super) fn completions_form(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt.saturating_add(self.completion),
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }

    pub(super) fn responses_form(self) -> Value {
        json!({
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt.saturating_add(self.completion),
        })
    }
}

impl Run {
    /// Puts the sequences into the batch: for each ask, `n` of them.
    ///
    /// # Errors
    /// When a prompt is empty or too long, or the engine sleeps.
    pub(super) async fn start(app: &App, asks: &[Ask], n: usize, salt: Option<String>) -> Result<Self, ApiError> {
        let shared = &app.shared;
        let faults = shared.faults();
        if faults.hang {
            std::future::pending::<()>().await;
        }
        if shared.asleep.load(Ordering::Acquire) {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "simulated engine is sleeping",
            ));
        }
        if faults.echo_error {
            let prompts: Vec<&str> = asks.iter().map(|ask| ask.prompt.as_str()).collect();
            return Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("failed on: {}", prompts.join(" ")),
            ));
        }
        let salt: Option<Arc<str>> = salt.map(Arc::from);
        let (sender, events) = mpsc::unbounded_channel();
        let (mut plans, mut sequences, mut usage) = (Vec::new(), Vec::new(), Usage::default());
        for ask in asks {
            let prompt: Arc<[u64]> = text::token_ids(&format!("{}{}", ask.prompt, ask.continued)).into();
            check_length(prompt.len(), ask.max_tokens, shared.config.max_model_len)?;
            usage.prompt = usage.prompt.saturating_add(prompt.len());
            for _ in 0..n {
                let choice = plans.len();
                let plan = ask.plan(&shared.config, prompt.len(), choice.checked_rem(n).unwrap_or(0));
                sequences.push(Sequence {
                    choice,
                    salt: salt.clone(),
                    prompt: Arc::clone(&prompt),
                    output: plan.pieces.iter().map(|piece| hash_of(piece.as_str())).collect(),
                    events: sender.clone(),
                });
                plans.push(plan);
            }
        }
        drop(sender);
        let open = plans.len();
        Ok(Self {
            plans,
            usage,
            app: app.clone(),
            events,
            open,
            _ticket: app.batch.submit(sequences),
        })
    }

    /// The next output; none when every sequence has ended.
    pub(super) async fn next(&mut self) -> Option<Output> {
        while self.open > 0 {
            // The batch ends only with the simulator.
            let Some(event) = self.events.recv().await else {
                return Some(Output::Died);
            };
            let choice = event.choice;
            match event.kind {
                EventKind::Started { cached_tokens } => self.usage.cached = self.usage.cached.max(cached_tokens),
                EventKind::Token(index) => {
                    if self.dies(index) {
                        return Some(Output::Died);
                    }
                    self.usage.completion = self.usage.completion.saturating_add(1);
                    return Some(Output::Piece { choice, index });
                }
                EventKind::Ended => {
                    self.open = self.open.saturating_sub(1);
                    return Some(Output::End { choice });
                }
            }
        }
        None
    }

    /// Waits for the end. False when the engine died.
    pub(super) async fn finish(&mut self) -> bool {
        while let Some(output) = self.next().await {
            if matches!(output, Output::Died) {
                return false;
            }
        }
        true
    }

    fn dies(&self, index: usize) -> bool {
        let faults = self.app.shared.faults();
        let reached = |limit: Option<u32>| limit.is_some_and(|limit| index >= limit as usize);
        if self.app.shared.config.may_exit && reached(faults.exit_after_tokens) {
            tracing::error!("simulated engine exits, as its faults ask");
            self.app.shared.exit.notify_one();
            return true;
        }
        reached(faults.die_after_tokens)
    }
}

fn check_length(prompt: usize, max_tokens: Option<u32>, limit: u32) -> Result<(), ApiError> {
    if prompt == 0 {
        return Err(ApiError::bad("the prompt is empty"));
    }
    if max_tokens == Some(0) {
        return Err(ApiError::bad("max_tokens must be at least 1"));
    }
    if prompt >= limit as usize {
        return Err(ApiError::bad(format!(
            "this model's maximum context length is {limit} tokens"
        )));
    }
    Ok(())
}
