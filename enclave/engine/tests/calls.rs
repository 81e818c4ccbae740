//! Calls: what comes back, what cancels, and what becomes of an engine that misbehaves.

#[allow(dead_code)]
mod support;

use std::time::Duration;

use cloister_enclave_engine::{Dialect, Engine, EngineError, EngineStatus, Timeouts};
use futures::StreamExt;
use serde_json::{Value, json};
use support::{CHAT, Rig, ask, context, simulator_config, timeouts};

fn streamed(tokens: u32) -> Value {
    let mut body = ask("tenant", tokens);
    body["stream"] = json!(true);
    body
}

/// A simulator with latencies, so that there is something to cancel.
async fn slow() -> Rig {
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        config.operator_arguments = vec!["--profile".to_owned(), "8b-h100".to_owned()];
        config
    });
    rig.engine.start().await.expect("started");
    rig
}

#[tokio::test]
async fn a_call_comes_back_whole_and_streamed() {
    let rig = Rig::running(&[]).await;
    assert_eq!(rig.engine.dialect(), Some(Dialect::Vllm));
    let whole = rig.post(CHAT, &ask("tenant", 5)).await;
    assert_eq!(whole.pointer("/usage/completion_tokens"), Some(&json!(5)));
    let mut response = rig.call(CHAT, &streamed(5)).await.expect("an answer");
    assert_eq!(
        response.content_type.as_deref(),
        Some("text/event-stream; charset=utf-8")
    );
    let mut text = Vec::new();
    while let Some(piece) = response.body.next().await {
        text.extend_from_slice(&piece.expect("a piece"));
    }
    assert!(String::from_utf8(text).expect("text").ends_with("data: [DONE]\n\n"));
    drop(response);
    let refused = rig.call(CHAT, &json!({"messages": []})).await.expect("an answer");
    assert_eq!(refused.status.as_u16(), 400, "an error of the engine is an answer");
}

#[tokio::test]
async fn dropping_the_answer_ends_the_generation() {
    let rig = slow().await;
    let mut response = rig.call(CHAT, &streamed(100_000)).await.expect("an answer");
    response.body.next().await.expect("a piece").expect("bytes");
    // The first piece may come before the batch has the request.
    while rig.engine.load().await.expect("a load").running == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.engine.live_calls(), 1);
    drop(response);
    rig.until_idle().await;
    while rig.engine.live_calls() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn dropping_the_call_ends_the_generation() {
    let rig = slow().await;
    let body = ask("tenant", 100_000);
    let begun = async {
        while rig.engine.load().await.expect("a load").running == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { _ = rig.call(CHAT, &body) => panic!("it takes long"), () = begun => {} }
    rig.until_idle().await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_an_error() {
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        config.timeouts = Timeouts {
            first_byte: Duration::from_millis(100),
            idle: Duration::from_millis(100),
            ..timeouts()
        };
        config
    });
    rig.engine.start().await.expect("started");
    rig.faults(&json!({"hang": true})).await;
    let error = rig.call(CHAT, &ask("tenant", 5)).await.err().expect("an error");
    assert!(matches!(error, EngineError::Timeout { what: "answer", .. }), "{error}");
    // The head of a stream comes at once, then nothing.
    rig.faults(&json!({"slow": 1e6})).await;
    rig.engine.stop().await;
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        config.operator_arguments = ["--profile", "8b-h100", "--faults", "{\"slow\":1000000.0}"]
            .map(ToOwned::to_owned)
            .into();
        config.timeouts = Timeouts {
            idle: Duration::from_millis(100),
            ..timeouts()
        };
        config
    });
    rig.engine.start().await.expect("started");
    let mut response = rig.call(CHAT, &streamed(5)).await.expect("a head");
    let error = loop {
        match response.body.next().await.expect("no clean end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            EngineError::Timeout {
                what: "further output",
                ..
            }
        ),
        "{error}"
    );
    assert!(response.body.next().await.is_none(), "nothing follows an error");
    rig.until_idle().await;
}

#[tokio::test]
async fn a_stream_that_dies_is_an_error_and_no_end() {
    let rig = Rig::running(&[]).await;
    rig.faults(&json!({"dieAfterTokens": 3})).await;
    let mut response = rig.call(CHAT, &streamed(10)).await.expect("a head");
    let mut text = Vec::new();
    let error = loop {
        match response.body.next().await.expect("no clean end") {
            Ok(piece) => text.extend_from_slice(&piece),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            EngineError::Broken {
                during: "reading the answer"
            }
        ),
        "{error}"
    );
    assert!(!String::from_utf8_lossy(&text).contains("[DONE]"));
}

#[tokio::test]
async fn an_engine_that_exits_is_noticed_and_replaced() {
    let rig = Rig::running(&[]).await;
    let mut status = rig.engine.status();
    rig.faults(&json!({"exitAfterTokens": 2})).await;
    let mut response = rig.call(CHAT, &streamed(10)).await.expect("a head");
    while let Some(Ok(_)) = response.body.next().await {}
    status
        .wait_for(|status| *status == EngineStatus::Exited { generation: 1 })
        .await
        .expect("noticed");
    assert!(!rig.engine.is_alive());
    assert!(matches!(
        rig.call(CHAT, &ask("tenant", 5)).await,
        Err(EngineError::NotRunning)
    ));
    drop(response);
    let _proof = rig.engine.restart(&context(1)).await.expect("a proof");
    assert_eq!(*status.borrow_and_update(), EngineStatus::Ready { generation: 2 });
    rig.post(CHAT, &ask("tenant", 5)).await;
}

#[tokio::test]
async fn sixty_four_streams_at_once_all_end() {
    let rig = slow().await;
    let streams = (0..64).map(|_| async {
        let mut response = rig.call(CHAT, &streamed(5)).await.expect("an answer");
        let mut text = Vec::new();
        while let Some(piece) = response.body.next().await {
            text.extend_from_slice(&piece.expect("a piece"));
        }
        assert!(text.ends_with(b"data: [DONE]\n\n"));
    });
    futures::future::join_all(streams).await;
    rig.until_idle().await;
}
