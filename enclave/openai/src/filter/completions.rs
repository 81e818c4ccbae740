//! Completions, unary and streamed.

use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    FilterOptions,
    common::{Head, Progress, TokenOut, Usage, UsageOut, broken, write_done, write_event},
    wire::{CompletionChoiceWire, CompletionLogprobsWire, CompletionWire, Finish, Pairs, UsageWire},
};
use crate::{
    ApiError, Dialect,
    plan::{CompletionPlan, Plan},
    secret::{Text, write_json},
};

/// Reads completions; a whole one is read as a single chunk.
pub(super) struct CompletionStream {
    head: Head,
    pub(super) progress: Progress,
    /// Per output how many characters were written; `text_offset` counts them.
    offsets: Vec<u64>,
}

impl CompletionStream {
    pub(super) fn new(plan: &CompletionPlan) -> Self {
        Self {
            head: Head::default(),
            progress: Progress::new(plan.outputs),
            offsets: vec![0; plan.outputs],
        }
    }

    /// One chunk of the engine.
    pub(super) fn chunk(
        &mut self,
        wire: CompletionWire<'_>,
        plan: &Plan,
        completion: &CompletionPlan,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        let choices = self.read(wire, plan, completion)?;
        if choices.is_empty() {
            return Ok(());
        }
        write_event(out, &self.body(plan, choices, plan.include_usage.then_some(None)))
    }

    /// The engine's `[DONE]`.
    pub(super) fn done(
        &mut self,
        plan: &Plan,
        options: FilterOptions,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        self.progress.end()?;
        if let Some(usage) = self.progress.usage().filter(|_| plan.include_usage) {
            write_event(out, &self.body(plan, Vec::new(), Some(Some(usage.out(options, true)))))?;
        }
        write_done(out);
        Ok(())
    }

    /// A whole answer.
    pub(super) fn unary(
        &mut self,
        wire: CompletionWire<'_>,
        plan: &Plan,
        completion: &CompletionPlan,
        options: FilterOptions,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        let mut choices = self.read(wire, plan, completion)?;
        self.progress.end()?;
        choices.sort_by_key(|choice| choice.index);
        let usage = self.progress.usage().map(|usage| Some(usage.out(options, true)));
        write_json(out, &self.body(plan, choices, usage))
    }

    fn read<'a>(
        &mut self,
        wire: CompletionWire<'a>,
        plan: &Plan,
        completion: &CompletionPlan,
    ) -> Result<Vec<Choice<'a>>, ApiError> {
        self.head.see(wire.id.as_deref(), wire.created);
        let choices = wire.choices.unwrap_or_default();
        if let Some(usage) = wire.usage {
            let ended = choices.first().map(|choice| choice.index);
            self.count(
                usage,
                ended.filter(|_| plan.stream && plan.dialect == Dialect::LlamaCpp),
                completion,
            );
        }
        choices
            .into_iter()
            .map(|choice| self.choice(choice, completion))
            .collect()
    }

    /// vLLM sends one usage for all; llama.cpp sends one with the end of each output (`ended`), which are added up.
    fn count(&mut self, wire: UsageWire, ended: Option<usize>, completion: &CompletionPlan) {
        let mut usage = Usage::from(wire);
        if let (Some(index), Some(sum)) = (ended, self.progress.usage()) {
            // Answers to the same prompt share its tokens.
            let first = index.checked_rem(completion.n) == Some(0);
            let prompt = if first { usage.prompt } else { 0 };
            usage.prompt = sum.prompt.saturating_add(prompt);
            usage.completion = sum.completion.saturating_add(usage.completion);
            usage.total = usage.prompt.saturating_add(usage.completion);
            usage.cached = sum
                .cached
                .zip(usage.cached)
                .map(|(sum, cached)| sum.saturating_add(cached));
        }
        *self.progress.usage_mut() = Some(usage);
    }

    fn choice<'a>(
        &mut self,
        wire: CompletionChoiceWire<'a>,
        completion: &CompletionPlan,
    ) -> Result<Choice<'a>, ApiError> {
        if wire.finish_reason == Some(Finish::Broken) {
            return Err(broken());
        }
        self.progress.output(wire.index, wire.finish_reason.is_some())?;
        let offset = self.offsets.get_mut(wire.index).ok_or_else(broken)?;
        let text = wire.text.unwrap_or(Text::Borrowed(""));
        let start = *offset;
        *offset = start.saturating_add(characters(&text));
        Ok(Choice {
            index: wire.index,
            text,
            logprobs: completion
                .logprobs
                .and_then(|top| Logprobs::new(wire.logprobs?, top, start)),
            finish_reason: wire.finish_reason,
        })
    }

    fn body<'a>(&self, plan: &'a Plan, choices: Vec<Choice<'a>>, usage: Option<Option<UsageOut>>) -> Body<'a> {
        Body {
            id: self.head.id("cmpl-"),
            object: "text_completion",
            created: self.head.created(),
            model: &plan.served_model,
            choices,
            usage,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageOut>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: Text<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<Finish>,
}

#[derive(Serialize)]
struct Logprobs<'a> {
    tokens: Vec<Text<'a>>,
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Vec<Option<Pairs<'a>>>,
    text_offset: Vec<u64>,
}

// === impl Logprobs ===

impl<'a> Logprobs<'a> {
    /// `start` is the number of characters before this chunk.
    fn new(wire: CompletionLogprobsWire<'a>, top: u8, start: u64) -> Option<Self> {
        let Some(content) = wire.content else {
            return Some(Self {
                tokens: wire.tokens?,
                token_logprobs: wire.token_logprobs.unwrap_or_default(),
                top_logprobs: wire.top_logprobs.unwrap_or_default(),
                text_offset: wire.text_offset.unwrap_or_default(),
            });
        };
        let mut logprobs = Logprobs {
            tokens: Vec::with_capacity(content.len()),
            token_logprobs: Vec::with_capacity(content.len()),
            top_logprobs: Vec::with_capacity(content.len()),
            text_offset: Vec::with_capacity(content.len()),
        };
        let mut offset = start;
        for token in content {
            let token = TokenOut::new(token, top);
            logprobs.text_offset.push(offset);
            offset = offset.saturating_add(characters(&token.token));
            logprobs.token_logprobs.push(Some(token.logprob));
            let mut pairs = Pairs(Vec::with_capacity(token.top_logprobs.len()));
            for alternative in token.top_logprobs {
                pairs.push(alternative.token, Some(alternative.logprob));
            }
            logprobs.top_logprobs.push(Some(pairs));
            logprobs.tokens.push(token.token);
        }
        Some(logprobs)
    }
}

fn characters(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}
