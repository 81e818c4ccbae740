//! Relying-party library and local OpenAI-compatible proxy.
