//! Chunks of a chat in one form, whatever the engine and whether it streams.

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    common::{Head, Progress, TokenOut, Usage, broken},
    wire::{CallWire, ChatChoiceWire, ChatWire, Finish},
};
use crate::{
    ApiError, Dialect, ErrorCode,
    limits::{MAX_ANSWER_CALLS, MAX_TEXT},
    plan::{ChatPlan, Plan},
    secret::{Text, extend_str},
};

/// What one chunk adds to one choice, or a whole choice.
pub(super) struct Piece<'a> {
    pub(super) index: usize,
    pub(super) content: Option<Text<'a>>,
    pub(super) refusal: Option<Text<'a>>,
    pub(super) reasoning: Option<Text<'a>>,
    pub(super) calls: Vec<Call<'a>>,
    pub(super) logprobs: Option<Vec<TokenOut<'a>>>,
    pub(super) finish: Option<Finish>,
}

/// What one chunk adds to one tool call.
pub(super) struct Call<'a> {
    pub(super) index: usize,
    /// Present in the first chunk of a call.
    pub(super) id: Option<Text<'a>>,
    /// Present in the first chunk of a call.
    pub(super) name: Option<Text<'a>>,
    pub(super) arguments: Option<Text<'a>>,
}

/// Reads chunks of a chat: checks their order, counts, and turns demanded calls from JSON into calls.
pub(super) struct Reader {
    pub(super) head: Head,
    pub(super) progress: Progress,
    /// Per choice the JSON of a demanded call so far.
    forced: Vec<Zeroizing<String>>,
}

impl Reader {
    pub(super) fn new(chat: &ChatPlan) -> Self {
        let forced = if chat.forced.is_some() { chat.choices } else { 0 };
        Self {
            head: Head::default(),
            progress: Progress::new(chat.choices),
            forced: (0..forced).map(|_| Zeroizing::new(String::new())).collect(),
        }
    }

    /// Reads one chunk or one unary answer.
    pub(super) fn read<'a>(
        &mut self,
        wire: ChatWire<'a>,
        plan: &Plan,
        chat: &ChatPlan,
    ) -> Result<Vec<Piece<'a>>, ApiError> {
        self.head.see(wire.id.as_deref(), wire.created);
        if let Some(usage) = wire.usage {
            self.count(usage.into(), plan);
        }
        wire.choices
            .into_iter()
            .flatten()
            .map(|choice| self.choice(choice, chat))
            .collect()
    }

    /// vLLM sends one usage for all; a stream of llama.cpp has one for each choice, which share the prompt.
    fn count(&mut self, mut usage: Usage, plan: &Plan) {
        if let (Some(sum), true, Dialect::LlamaCpp) = (self.progress.usage(), plan.stream, plan.dialect) {
            usage.completion = sum.completion.saturating_add(usage.completion);
            usage.total = usage.prompt.saturating_add(usage.completion);
        }
        *self.progress.usage_mut() = Some(usage);
    }

    fn choice<'a>(&mut self, wire: ChatChoiceWire<'a>, chat: &ChatPlan) -> Result<Piece<'a>, ApiError> {
        if wire.finish_reason == Some(Finish::Broken) {
            return Err(broken());
        }
        self.progress.output(wire.index, wire.finish_reason.is_some())?;
        let delta = wire.delta.unwrap_or_default();
        let some = |text: Option<Text<'a>>| text.filter(|text| !text.is_empty());
        let calls = delta.tool_calls.unwrap_or_default();
        if calls.len() > MAX_ANSWER_CALLS {
            return Err(broken());
        }
        let calls = calls
            .into_iter()
            .enumerate()
            .map(|(place, call)| self.call(call, place));
        let piece = Piece {
            index: wire.index,
            content: some(delta.content),
            refusal: some(delta.refusal),
            reasoning: some(delta.reasoning_content).or(some(delta.reasoning)),
            calls: calls.collect::<Result<_, _>>()?,
            logprobs: chat.top_logprobs.and_then(|top| {
                let tokens = wire.logprobs?.content?;
                Some(tokens.into_iter().map(|token| TokenOut::new(token, top)).collect())
            }),
            finish: wire.finish_reason,
        };
        match &chat.forced {
            Some(names) => self.force(piece, names),
            None => Ok(piece),
        }
    }

    /// Fills in what a whole call may lack.
    fn call<'a>(&self, wire: CallWire<'a>, place: usize) -> Result<Call<'a>, ApiError> {
        let index = wire.index.unwrap_or(place);
        if index >= MAX_ANSWER_CALLS {
            return Err(broken());
        }
        let function = wire.function;
        let (name, arguments) = function.map_or((None, None), |function| (function.name, function.arguments));
        // Only the first chunk of a call names its function.
        let name = name.filter(|name| !name.is_empty());
        let id = wire.id.filter(|id| !id.is_empty());
        let id = match (&name, id) {
            (Some(_), None) => Some(self.call_id(0, index)),
            (_, id) => id,
        };
        Ok(Call {
            index,
            id,
            name,
            arguments,
        })
    }

    fn call_id(&self, choice: usize, index: usize) -> Text<'static> {
        Text::Owned(Zeroizing::new(format!("call_{}{choice}x{index}", self.head.suffix())))
    }

    /// Keeps the JSON of a demanded call until its choice ends, and makes it a call then.
    fn force<'a>(&mut self, mut piece: Piece<'a>, names: &[String]) -> Result<Piece<'a>, ApiError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Forced<'j> {
            #[serde(borrow)]
            name: Text<'j>,
            #[serde(borrow)]
            arguments: &'j RawValue,
        }

        let kept = self.forced.get_mut(piece.index).ok_or_else(broken)?;
        if let Some(content) = piece.content.take() {
            if kept.len().saturating_add(content.len()) > MAX_TEXT {
                return Err(broken());
            }
            extend_str(kept, &content);
        }
        let Some(finish) = piece.finish else { return Ok(piece) };
        let json = std::mem::take(kept);
        match serde_json::from_str::<Forced<'_>>(&json) {
            Ok(call) if names.iter().any(|name| **name == *call.name) => {
                piece.calls = vec![Call {
                    index: 0,
                    id: Some(self.call_id(piece.index, 0)),
                    name: Some(call.name.into_owned()),
                    arguments: Some(Text::Owned(Zeroizing::new(call.arguments.get().to_owned()))),
                }];
                piece.finish = Some(Finish::ToolCalls);
                Ok(piece)
            }
            // Cut off by the client's own limit: an answer without a call, and it says `length`.
            _ if finish == Finish::Length => Ok(piece),
            _ => Err(ErrorCode::EngineError.into()),
        }
    }
}
