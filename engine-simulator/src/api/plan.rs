//! What a sequence will say, decided before it runs.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::hash_of;
use crate::config::SimulatorConfig;
use crate::schema;
use crate::text;

use super::ApiError;

/// Most sequences of one request.
const MAX_SEQUENCES: usize = 128;

/// Everything that decides an answer, whatever the API.
pub(super) struct Ask {
    pub prompt: String,
    /// Part of the answer that is already in the prompt and is to be continued.
    pub continued: String,
    pub max_tokens: Option<u32>,
    pub min_tokens: u32,
    pub ignore_eos: bool,
    pub stops: Vec<String>,
    pub seed: Option<i64>,
    pub shape: Shape,
}

/// What kind of answer it is.
#[derive(Clone)]
pub(super) enum Shape {
    Text,
    Json(Value),
    Tool { name: String, parameters: Value },
}

/// One sequence, ready to run.
pub(super) struct Plan {
    pub pieces: Vec<String>,
    pub finish: &'static str,
    /// Name of the called function, when the pieces are its arguments.
    pub tool: Option<String>,
}

/// `stop` as a string or as a list.
#[derive(Deserialize, Default)]
#[serde(untagged)]
pub(super) enum Stops {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl From<Stops> for Vec<String> {
    fn from(stops: Stops) -> Self {
        match stops {
            Stops::None => Vec::new(),
            Stops::One(stop) => vec![stop],
            Stops::Many(stops) => stops,
        }
    }
}

/// The number of sequences, within the limit.
pub(super) fn sequences(n: Option<usize>) -> Result<usize, ApiError> {
    match n.unwrap_or(1) {
        0 => Err(ApiError::bad("n must be at least 1")),
        n if n > MAX_SEQUENCES => Err(ApiError::bad(format!("n must be at most {MAX_SEQUENCES}"))),
        n => Ok(n),
    }
}

/// The shape that `tool_choice` and the response format ask for.
///
/// # Errors
/// When a tool is required that is not there.
pub(super) fn shape(tools: &[Tool], choice: Option<&Value>, format: Option<&Value>) -> Result<Shape, ApiError> {
    let named = choice
        .and_then(|choice| choice.pointer("/function/name").or_else(|| choice.get("name")))
        .and_then(Value::as_str);
    let required = choice.and_then(Value::as_str) == Some("required");
    if named.is_some() || required {
        let tool = tools
            .iter()
            .find(|tool| named.is_none_or(|name| tool.name == name))
            .ok_or_else(|| ApiError::bad("tool_choice names a tool that is not in tools"))?;
        return Ok(Shape::Tool {
            name: tool.name.clone(),
            parameters: schema::instance(&tool.parameters),
        });
    }
    let Some(format) = format else { return Ok(Shape::Text) };
    Ok(match format.get("type").and_then(Value::as_str) {
        Some("json_schema") => {
            let schema = format.pointer("/json_schema/schema").or_else(|| format.get("schema"));
            Shape::Json(schema::instance(schema.unwrap_or(&Value::Null)))
        }
        Some("json_object") => Shape::Json(json!({"simulated": true})),
        _ => Shape::Text,
    })
}

/// A function that may be called.
pub(super) struct Tool {
    pub name: String,
    pub parameters: Value,
}

/// Reads tools in the form of chat completions or of responses.
pub(super) fn tools(tools: &[Value]) -> Vec<Tool> {
    tools
        .iter()
        .filter_map(|tool| {
            let function = tool.get("function").unwrap_or(tool);
            let name = function.get("name")?.as_str()?.to_owned();
            Some(Tool {
                name,
                parameters: function
                    .get("parameters")
                    .cloned()
                    .unwrap_or_else(|| json!({"type": "object"})),
            })
        })
        .collect()
}

impl Ask {
    /// Decides sequence number `choice`.
    pub(super) fn plan(&self, config: &SimulatorConfig, prompt_tokens: usize, choice: usize) -> Plan {
        let room = (config.max_model_len as usize).saturating_sub(prompt_tokens);
        let limit = self.max_tokens.map_or(room, |most| room.min(most as usize));
        let (mut pieces, tool, mut finish) = match &self.shape {
            Shape::Text => (self.text(config, limit, choice), None, "stop"),
            Shape::Json(value) => (text::pieces(&value.to_string()), None, "stop"),
            Shape::Tool { name, parameters } => {
                (text::pieces(&parameters.to_string()), Some(name.clone()), "tool_calls")
            }
        };
        if pieces.len() > limit {
            pieces.truncate(limit);
            finish = "length";
        }
        if tool.is_none() && text::cut_at_stop(&mut pieces, &self.stops) {
            finish = "stop";
        }
        Plan { pieces, finish, tool }
    }

    /// Words up to one past the limit, so that the caller sees whether the limit cut them.
    fn text(&self, config: &SimulatorConfig, limit: usize, choice: usize) -> Vec<String> {
        let seed = hash_of(&(&self.prompt, self.seed, choice));
        let past = limit.saturating_add(1);
        let length = if self.ignore_eos && self.max_tokens.is_some() {
            past
        } else {
            let natural = config.output_tokens.unwrap_or_else(|| text::natural_length(seed));
            natural.max(self.min_tokens) as usize
        };
        let mut words = (0..).map(|index| text::word(seed, index));
        let done = self.skip_continued(&mut words);
        words.take(length.saturating_sub(done).min(past)).collect()
    }

    /// Goes past the words that are already there. Returns their number; a foreign prefix is not ours to continue.
    fn skip_continued(&self, words: &mut impl Iterator<Item = String>) -> usize {
        let mut rest = self.continued.as_str();
        let mut done = 0usize;
        while !rest.is_empty() {
            let Some(after) = words
                .next()
                .and_then(|word| rest.strip_prefix(word.as_str()).map(ToOwned::to_owned))
            else {
                return done;
            };
            done = done.saturating_add(1);
            rest = self
                .continued
                .get(self.continued.len().saturating_sub(after.len())..)
                .unwrap_or_default();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(prompt: &str) -> Ask {
        Ask {
            prompt: prompt.to_owned(),
            continued: String::new(),
            max_tokens: Some(20),
            min_tokens: 0,
            ignore_eos: true,
            stops: Vec::new(),
            seed: None,
            shape: Shape::Text,
        }
    }

    #[test]
    fn answers_depend_on_prompt_seed_and_choice_only() {
        let config = SimulatorConfig::default();
        let first = ask("p").plan(&config, 1, 0).pieces;
        assert_eq!(first, ask("p").plan(&config, 1, 0).pieces);
        assert_ne!(first, ask("q").plan(&config, 1, 0).pieces);
        assert_ne!(first, ask("p").plan(&config, 1, 1).pieces);
        assert_ne!(
            first,
            Ask {
                seed: Some(1),
                ..ask("p")
            }
            .plan(&config, 1, 0)
            .pieces
        );
    }

    #[test]
    fn ignore_eos_gives_exactly_the_limit_and_a_fixed_length_ends_by_itself() {
        let plan = ask("p").plan(&SimulatorConfig::default(), 1, 0);
        assert_eq!((plan.pieces.len(), plan.finish), (20, "length"));
        let fixed = SimulatorConfig {
            output_tokens: Some(7),
            ..SimulatorConfig::default()
        };
        let plan = Ask {
            ignore_eos: false,
            ..ask("p")
        }
        .plan(&fixed, 1, 0);
        assert_eq!((plan.pieces.len(), plan.finish), (7, "stop"));
    }

    #[test]
    fn a_continued_answer_goes_on_where_it_was_cut() {
        let config = SimulatorConfig {
            output_tokens: Some(12),
            ..SimulatorConfig::default()
        };
        let whole = Ask {
            ignore_eos: false,
            ..ask("p")
        }
        .plan(&config, 1, 0)
        .pieces;
        let continued = whole.iter().take(5).map(String::as_str).collect();
        let rest = Ask {
            ignore_eos: false,
            continued,
            ..ask("p")
        }
        .plan(&config, 1, 0)
        .pieces;
        assert_eq!(rest.concat(), whole.get(5..).expect("longer").concat());
    }

    #[test]
    fn a_required_tool_is_called_with_valid_arguments() {
        let tool = json!({"type": "function", "function": {"name": "f", "parameters":
            {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
        let shape = shape(&tools(&[tool]), Some(&json!("required")), None)
            .map_err(|_| ())
            .expect("a tool");
        let plan = Ask { shape, ..ask("p") }.plan(&SimulatorConfig::default(), 1, 0);
        let arguments: Value = serde_json::from_str(&plan.pieces.concat()).expect("JSON");
        assert_eq!(
            (plan.tool.as_deref(), arguments),
            (Some("f"), json!({"city": "simulated"}))
        );
        assert!(super::shape(&[], Some(&json!("required")), None).is_err());
    }
}
