//! OpenAI requests and answers as the enclave lets them through: an allow-list, pure.
//!
//! # Expected flow
//!
//! 1. [`Endpoint::from_path`] names the endpoint; any other path is refused.
//! 2. [`sanitize`] parses the decrypted body into types of its own and writes the body for the engine anew. What is not on the
//!    allow-list is refused, so nothing that this crate does not know reaches the engine.
//! 3. The engine is called with [`EngineRequest::path`] and [`EngineRequest::body`].
//! 4. [`EngineRequest::response_filter`] takes the engine's status; its bytes go through [`ResponseFilter::push`] and the end through
//!    [`ResponseFilter::finish`]. What comes out is what the client sees.
//!
//! A streamed answer is complete only when `finish` says so: what `push` yields before may be shown, but an error must follow it if
//! `finish` fails.
//!
//! # Where engines differ from OpenAI
//!
//! - `/v1/responses` is translated to a chat here, so that every engine gives the same, stateless responses.
//! - A demanded tool call (`tool_choice` of `required` or a function) is a JSON answer under a schema for llama.cpp; it yields one call.
//!   With `auto`, llama.cpp calls tools only if the model's chat template knows them.
//! - llama.cpp counts one output only in the usage of a unary answer with several; streams are added up.
//! - `reasoning_effort` reaches vLLM as one of its three words; llama.cpp has no such setting and does not get it.
//!
//! # Guarantees
//!
//! - No text of the engine is copied into an error, and no value of the request is.
//! - An answer that the engine cut short is an error, never a short success.
//! - Buffers that hold prompt or answer are zeroised; types that hold them have no `Debug` or `Display` with content.

mod error;
mod filter;
pub mod limits;
mod plan;
mod request;
mod secret;

pub use self::{
    error::{ApiError, ErrorCode},
    filter::{FilterOptions, ResponseFilter, Summary},
    request::{Context, Dialect, Endpoint, EngineRequest, RequestMeta, sanitize},
};
