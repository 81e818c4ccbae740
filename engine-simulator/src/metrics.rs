//! `/metrics` as vLLM writes it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Load as it is shown; the batch sets it, the routes read it.
#[derive(Default)]
pub(crate) struct Load {
    running: AtomicU64,
    waiting: AtomicU64,
    blocks: AtomicU64,
}

impl Load {
    pub(crate) fn set(&self, running: u64, waiting: u64, blocks: u64) {
        self.running.store(running, Ordering::Release);
        self.waiting.store(waiting, Ordering::Release);
        self.blocks.store(blocks, Ordering::Release);
    }

    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::Acquire)
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }
}

/// The text of `/metrics`.
pub(crate) fn render(load: &Load, model: &str, kv_blocks: usize, never_idle: bool) -> String {
    let running = load.running().max(u64::from(never_idle));
    let usage = load.blocks.load(Ordering::Acquire) as f64 / kv_blocks.max(1) as f64;
    let mut text = String::new();
    for (name, help, value) in [
        (
            "num_requests_running",
            "requests in model execution batches",
            running as f64,
        ),
        (
            "num_requests_waiting",
            "requests waiting to be processed",
            load.waiting() as f64,
        ),
        (
            "kv_cache_usage_perc",
            "KV-cache usage, 1 means 100 percent",
            usage.min(1.0),
        ),
    ] {
        // A string takes every write.
        let _ = writeln!(text, "# HELP vllm:{name} Simulated: {help}.");
        let _ = writeln!(text, "# TYPE vllm:{name} gauge");
        let _ = writeln!(text, "vllm:{name}{{engine=\"0\",model_name=\"{model}\"}} {value:?}");
    }
    text
}
