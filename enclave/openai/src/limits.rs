//! Caps on what a peer controls. Counts are of elements, lengths are in bytes.

/// Longest request body. The sealed session allows no more.
pub const MAX_BODY: usize = 8 << 20;
/// Names in one object of a request; OpenAI's largest object has fewer than 50.
pub const MAX_NAMES: usize = 512;
/// Deepest nesting inside a JSON schema.
pub const MAX_SCHEMA_DEPTH: usize = 32;
/// Longest JSON schema, as written by the client.
pub const MAX_SCHEMA: usize = 256 << 10;
/// Messages of a chat, or items of a response's input.
pub const MAX_MESSAGES: usize = 4096;
/// Content parts of one message.
pub const MAX_PARTS: usize = 256;
/// Images of one request.
pub const MAX_IMAGES: usize = 32;
/// Tools of one request, as OpenAI allows.
pub const MAX_TOOLS: usize = 128;
/// Tool calls of one assistant message.
pub const MAX_TOOL_CALLS: usize = 128;
/// Longest function, schema or participant name, as OpenAI allows.
pub const MAX_NAME: usize = 64;
/// Longest description of a function.
pub const MAX_DESCRIPTION: usize = 64 << 10;
/// Longest identifier of a call, an item or a user.
pub const MAX_ID: usize = 512;
/// Stop sequences, as OpenAI allows.
pub const MAX_STOPS: usize = 4;
/// Longest stop sequence.
pub const MAX_STOP: usize = 256;
/// Entries of `logit_bias`, as OpenAI allows.
pub const MAX_LOGIT_BIAS: usize = 300;
/// Entries of `metadata`, as OpenAI allows.
pub const MAX_METADATA: usize = 16;
/// Longest value in `metadata`, as OpenAI allows.
pub const MAX_METADATA_VALUE: usize = 512;
/// Prompts of one completion request.
pub const MAX_PROMPTS: usize = 64;
/// Answers of one request: prompts times `n`.
pub const MAX_OUTPUTS: usize = 128;
/// Largest `n`.
pub const MAX_N: i64 = 16;
/// Inputs of one embedding request, as OpenAI allows.
pub const MAX_INPUTS: usize = 2048;
/// Tokens of one prompt that is given as numbers.
pub const MAX_TOKENS: usize = 1 << 20;
/// Largest token id and largest `max_tokens`.
pub const MAX_TOKEN: i64 = i32::MAX as i64;
/// Longest server-sent event of the engine.
pub const MAX_EVENT: usize = 1 << 20;
/// Longest unary answer of the engine: 2048 embeddings of 4096 dimensions in base64.
pub const MAX_ANSWER: usize = 64 << 20;
/// Longest error body of the engine that is looked at.
pub const MAX_ERROR: usize = 64 << 10;
/// Longest text that one streamed answer may hold where it has to be kept whole.
pub const MAX_TEXT: usize = 16 << 20;
/// Tool calls of one answer.
pub const MAX_ANSWER_CALLS: usize = 256;
/// Items of one response.
pub const MAX_ITEMS: usize = 512;
