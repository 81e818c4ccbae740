//! The crate through its public API: what reaches an engine, what reaches a client, and what reaches neither.

mod filter;
mod properties;
mod refusals;
mod sanitize;
mod support;
