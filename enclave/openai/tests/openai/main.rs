//! The crate through its public API: what reaches an engine, what reaches a client, and what reaches neither.

mod broken;
mod cases;
mod filter;
mod properties;
mod refusals;
mod refusals_other;
mod sanitize;
mod support;
