//! The little of OpenAI's API that the proxy itself has to understand: paths, errors, `model` and `stream` of a
//! request, and where an event stream ends. Everything else passes through as the bytes that it is.

mod done;
mod error;
mod peek;

pub use done::{DoneGate, MAX_EVENT_BYTES};
pub use error::{error_body, error_event, error_response};
pub use peek::{MAX_MODEL_NAME_BYTES, Peeked, peek};

/// An endpoint whose requests are sealed.
pub use cloister_session::inner::ApiPath as Endpoint;

/// Whether `stream: true` means anything here.
pub fn streams(endpoint: Endpoint) -> bool {
    !matches!(endpoint, Endpoint::Embeddings)
}
