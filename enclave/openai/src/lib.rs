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
