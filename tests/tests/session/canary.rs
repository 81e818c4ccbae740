//! A marker in a prompt is where it has to be, and nowhere else.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_tests::{
    chain::{Chain, Options},
    enclave::{Enclave, Setup},
    openai,
    process::{contains, scan_memory},
    real::{self, RealEngine},
    site::{MODEL, Site},
    tenant::{chat, random, stream},
};
use serde_json::{Value, json};

/// A word that is nowhere by chance, in every form in which it could be found.
struct Marker {
    word: String,
    forms: Vec<Vec<u8>>,
}

impl Marker {
    fn new() -> Self {
        let letters = random().map(|byte| char::from(b'a' + byte % 26));
        let word: String = letters.iter().take(24).collect();
        let mut forms = vec![
            word.clone().into_bytes(),
            hex::encode(&word).into_bytes(),
            hex::encode_upper(&word).into_bytes(),
            word.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            word.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ];
        // Base64 depends on where the word begins; the letters at both ends, on what is beside it.
        for offset in 0..3 {
            let encoded = STANDARD.encode([&vec![b'-'; offset], word.as_bytes()].concat());
            let from = if offset == 0 { 0 } else { 4 };
            forms.push(encoded.as_bytes()[from..encoded.len() - 4].to_vec());
        }
        Self { word, forms }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| contains(bytes, form))
    }

    /// Files below `folder` that hold it.
    fn files(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
            let name = entry.file_name();
            if kind.is_dir() {
                found.extend(self.files(&path));
            }
            let named = self.is_in(name.as_encoded_bytes());
            if named || kind.is_file() && fs::read(&path).is_ok_and(|bytes| self.is_in(&bytes)) {
                found.push(path.display().to_string());
            }
        }
        found
    }
}

/// Requests that fail in one way or another, each with the marker in it.
fn failing(word: &str) -> Vec<Value> {
    let mut unknown_model = chat("hello", 4);
    unknown_model["model"] = json!(word);
    let mut unknown_field = chat(word, 4);
    unknown_field["surprise"] = json!(word);
    let mut wrong_type = chat(word, 4);
    wrong_type["temperature"] = json!(word);
    let mut remote_media = chat(word, 4);
    remote_media["messages"][0]["content"] =
        json!([{"type": "image_url", "image_url": {"url": format!("https://{word}.example/")}}]);
    let mut tool = chat(word, 4);
    tool["tool_choice"] = json!({"type": "function", "function": {"name": word}});
    vec![
        unknown_model,
        unknown_field,
        wrong_type,
        remote_media,
        tool,
        json!(word),
    ]
}

async fn canary(setup: Setup, simulated: bool) {
    let marker = Marker::new();
    let enclave = Enclave::start(&Site::new(), &setup.log("trace")).await;
    let options = Options {
        log: "trace",
        ..Options::default()
    };
    let mut chain = Chain::start(&enclave, 1, &options).await;
    let proxy = chain.proxies[0].address;
    let prompt = format!("the word is {}", marker.word);
    let engine = enclave.engine_pid().await;
    let scheduler = chain.scheduler.pid();

    // While the engine works on it.
    let running = openai::start_chat(proxy, &stream(&prompt, if simulated { 400 } else { 60 }))
        .await
        .begun()
        .await;
    let in_engine = scan_memory(engine, &marker.forms).expect("the engine's memory");
    assert!(!in_engine.is_empty(), "the scan does not find what is there");
    let in_scheduler = scan_memory(scheduler, &marker.forms).expect("the scheduler's memory");
    assert!(in_scheduler.is_empty(), "in the scheduler's memory: {in_scheduler:?}");
    assert!(running.finish().await.is_done());

    assert!(openai::chat(proxy, &chat(&prompt, 4)).await.looks_successful());
    if simulated {
        enclave.engine().set_faults(json!({"slow": 0.01})).await;
    }
    let large = format!("{prompt} {}", "and so on ".repeat(if simulated { 20_000 } else { 50 }));
    assert!(openai::chat(proxy, &chat(&large, 4)).await.looks_successful());
    for body in failing(&marker.word) {
        let reply = openai::chat(proxy, &body).await;
        assert!(reply.error_code().is_some(), "{body}: {reply:?}");
        assert!(!marker.is_in(reply.body.as_bytes()), "in an error: {reply:?}");
        let headers = format!("{:?}", reply.headers);
        assert!(!marker.is_in(headers.as_bytes()), "in a header: {headers}");
    }
    if simulated {
        enclave.engine().set_faults(json!({"echoError": true})).await;
        for body in [chat(&prompt, 4), stream(&prompt, 4)] {
            let reply = openai::chat(proxy, &body).await;
            assert!(
                !reply.looks_successful() && !marker.is_in(reply.body.as_bytes()),
                "{reply:?}"
            );
        }
    }

    let in_scheduler = scan_memory(scheduler, &marker.forms).expect("the scheduler's memory");
    assert!(in_scheduler.is_empty(), "in the scheduler's memory: {in_scheduler:?}");
    assert_eq!(marker.files(enclave.site().path()), Vec::<String>::new());
    assert!(marker.files(Path::new("/dev/shm")).is_empty(), "in shared memory");
    // There are logs, and they were at their most talkative.
    assert!(chain.scheduler.log().contains("INFO") && chain.proxies[0].child.log().contains("DEBUG"));
    // At the end, too: whatever is flushed.
    assert!(chain.scheduler.stop().await.success());
    assert!(chain.proxies[0].child.stop().await.success());
    assert_eq!(marker.files(enclave.site().path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_is_in_the_engine_and_nowhere_else() {
    canary(Setup::simulator(&["--profile", "8b-h100"]), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_is_in_the_real_engine_and_nowhere_else() {
    let Some(engine) = RealEngine::find() else { return };
    let _turn = real::turn().await;
    canary(Setup::real(&engine), false).await;
}

#[test]
fn the_marker_is_found_in_every_form() {
    let marker = Marker::new();
    for offset in 0..6 {
        let text = [&b"a prompt "[..offset], marker.word.as_bytes(), b" and more"].concat();
        assert!(marker.is_in(STANDARD.encode(&text).as_bytes()), "{offset}");
        assert!(marker.is_in(hex::encode(&text).as_bytes()));
        assert!(marker.is_in(&text));
    }
    assert!(!marker.is_in(MODEL.as_bytes()));
}
