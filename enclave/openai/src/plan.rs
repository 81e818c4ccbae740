//! What the answer filter has to know about the request.

use zeroize::Zeroizing;

use crate::Dialect;

/// How an answer is to be read and what the client is to see.
pub(crate) struct Plan {
    pub(crate) served_model: String,
    pub(crate) dialect: Dialect,
    pub(crate) stream: bool,
    /// Whether a streaming client asked for the usage. A unary answer always has it.
    pub(crate) include_usage: bool,
    pub(crate) answer: Answer,
}

/// The kind of answer.
pub(crate) enum Answer {
    Chat(ChatPlan),
    Response(ChatPlan, ResponsePlan),
    Completion(CompletionPlan),
    Embedding(EmbeddingPlan),
}

/// A chat at the engine.
pub(crate) struct ChatPlan {
    pub(crate) choices: usize,
    /// Alternatives per token that the client asked for; none means no logprobs.
    pub(crate) top_logprobs: Option<u8>,
    /// The functions of which one call was demanded as JSON.
    pub(crate) forced: Option<Vec<String>>,
}

/// What `/v1/responses` adds to a chat.
pub(crate) struct ResponsePlan {
    /// A JSON object with the settings of the request that a response repeats.
    pub(crate) echo: Zeroizing<Vec<u8>>,
}

/// Completions at the engine.
pub(crate) struct CompletionPlan {
    pub(crate) outputs: usize,
    /// Answers per prompt.
    pub(crate) n: usize,
    pub(crate) logprobs: Option<u8>,
}

/// Embeddings at the engine.
pub(crate) struct EmbeddingPlan {
    pub(crate) inputs: usize,
    pub(crate) base64: bool,
}
