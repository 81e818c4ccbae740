//! Relying-party library and local OpenAI-compatible proxy.

pub mod backend;
pub mod failure;
pub mod files;
pub mod openai;
pub mod proxy;
mod random;
pub mod retry;

#[cfg(test)]
mod fake;
