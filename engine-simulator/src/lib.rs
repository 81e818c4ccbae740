//! Simulated inference engine: vLLM's API and metrics over a latency model.
