//! What the batch does: latencies, limits, the prefix cache, cancellation, faults, and the log of it.

mod support;

use std::time::Duration;

use cloister_engine_simulator::{BatchEntry, Faults, Profile, ResetFault, SimulatorConfig};
use futures::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::Rig;
use tokio::time::Instant;

const CHAT: &str = "/v1/chat/completions";

fn ask(words: usize, tokens: u32, salt: &str) -> Value {
    let prompt: String = (0..words).map(|word| format!(" w{word}")).collect();
    json!({
        "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "ignore_eos": true, "cache_salt": salt,
    })
}

/// The head and first piece of an answer may come before the batch has the request.
async fn until_running(rig: &Rig) {
    while rig.simulator.running() == 0 {
        tokio::task::yield_now().await;
    }
}

fn cached(answer: &Value) -> u64 {
    answer
        .pointer("/usage/prompt_tokens_details/cached_tokens")
        .and_then(Value::as_u64)
        .expect("cached tokens")
}

/// Runs paused time, so that every latency is exact and takes no time.
fn profile(max_num_seqs: usize) -> SimulatorConfig {
    let profile = Profile {
        max_num_seqs,
        ..Profile::H100_8B
    };
    SimulatorConfig {
        profile,
        ..SimulatorConfig::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_request_takes_what_the_profile_says() {
    let rig = Rig::new(profile(16));
    let begun = Instant::now();
    let answer = rig.post(CHAT, &ask(1000, 11, "a")).await;
    let prompt = answer
        .pointer("/usage/prompt_tokens")
        .and_then(Value::as_u64)
        .expect("tokens");
    let expected = Duration::from_micros(30_000 + 250 * prompt + 10 * 12_000);
    let off = begun.elapsed().abs_diff(expected);
    // Timers are a millisecond coarse.
    assert!(
        off <= Duration::from_millis(3),
        "{:?} against {expected:?}",
        begun.elapsed()
    );
    // Cached tokens cost nothing.
    let begun = Instant::now();
    let answer = rig.post(CHAT, &ask(1000, 1, "a")).await;
    let expected = Duration::from_micros(30_000 + 250 * (prompt - cached(&answer)));
    assert!(
        begun.elapsed().abs_diff(expected) <= Duration::from_millis(3),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_is_twice_as_slow_and_the_rest_waits() {
    let rig = Rig::new(profile(4));
    let begun = Instant::now();
    let body = ask(1, 101, "a");
    join_all((0..8).map(|_| rig.post(CHAT, &body))).await;
    let rounds = begun.elapsed().as_secs_f64() / 0.012 / 100.0;
    assert!(
        (3.9..4.4).contains(&rounds),
        "two rounds at half the speed, not {rounds}"
    );
    assert!(rig.simulator.batches().iter().all(|entry| entry.batch.len() <= 4));
}

#[tokio::test]
async fn the_log_shows_who_shared_a_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("batches");
    let config = SimulatorConfig {
        batch_log: Some(path.clone()),
        ..SimulatorConfig::default()
    };
    let rig = Rig::new(SimulatorConfig {
        profile: Profile {
            inter_token: Duration::from_millis(1),
            ..Profile::INSTANT
        },
        ..config
    });
    let (one, two) = (ask(5, 20, "one"), ask(5, 20, "two"));
    tokio::join!(rig.post(CHAT, &one), rig.post(CHAT, &two));
    let entries = rig.simulator.batches();
    let mixed = entries.iter().any(|entry| {
        let mut salts: Vec<_> = entry
            .batch
            .iter()
            .filter_map(|member| member.cache_salt.as_deref())
            .collect();
        salts.sort_unstable();
        salts == ["one", "two"]
    });
    assert!(mixed, "{entries:?}");
    assert_eq!(entries.last().map(|entry| entry.batch.len()), Some(0));
    let written: Vec<BatchEntry> = std::fs::read_to_string(&path)
        .expect("a log")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    assert_eq!(written, entries);
}

#[tokio::test]
async fn the_prefix_cache_hits_under_its_salt_until_the_reset() {
    let rig = Rig::new(SimulatorConfig::default());
    let (own, foreign) = (ask(100, 2, "own"), ask(100, 2, "foreign"));
    assert_eq!(cached(&rig.post(CHAT, &own).await), 0);
    assert!(cached(&rig.post(CHAT, &own).await) >= 96);
    assert_eq!(cached(&rig.post(CHAT, &foreign).await), 0);
    assert_eq!(
        rig.post("/reset_prefix_cache", &Value::Null).await,
        json!({"success": true})
    );
    assert_eq!(cached(&rig.post(CHAT, &own).await), 0);
}

#[tokio::test]
async fn reset_faults_are_as_named() {
    let rig = Rig::new(SimulatorConfig::default());
    let body = ask(100, 2, "own");
    rig.post(CHAT, &body).await;
    for (reset, answer) in [
        (ResetFault::Empty, ""),
        (ResetFault::Refused, "{\"success\":false}"),
        (ResetFault::Leak, "{\"success\":true}"),
    ] {
        rig.simulator.set_faults(Faults {
            reset,
            ..Faults::default()
        });
        assert_eq!(rig.text("POST", "/reset_prefix_cache", &Value::Null).await.1, answer);
        assert!(cached(&rig.post(CHAT, &body).await) > 0, "{reset:?} resets nothing");
    }
    rig.simulator.set_faults(Faults {
        ignore_salt: true,
        ..Faults::default()
    });
    rig.post(CHAT, &ask(100, 2, "own")).await;
    assert!(
        cached(&rig.post(CHAT, &ask(100, 2, "foreign")).await) > 0,
        "a cache that ignores salts mixes them"
    );
}

#[tokio::test]
async fn a_reset_in_use_is_refused() {
    let rig = Rig::new(profile(16));
    let mut body = ask(5, 100_000, "a");
    body["stream"] = json!(true);
    let mut response = rig.send("POST", CHAT, &body).await.expect("an answer");
    response.body_mut().frame().await.expect("a frame").expect("a chunk");
    until_running(&rig).await;
    assert_eq!(
        rig.post("/reset_prefix_cache", &Value::Null).await,
        json!({"success": false})
    );
}

#[tokio::test]
async fn a_closed_connection_leaves_the_batch() {
    for stream in [true, false] {
        let rig = Rig::new(profile(16));
        let mut body = ask(5, 100_000, "a");
        body["stream"] = json!(stream);
        let sent = rig.send("POST", CHAT, &body);
        if stream {
            let mut response = sent.await.expect("an answer");
            response.body_mut().frame().await.expect("a frame").expect("a chunk");
            until_running(&rig).await;
        } else {
            tokio::select! { _ = sent => panic!("it takes long"), () = until_running(&rig) => {} }
        }
        while rig.simulator.running() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_dying_engine_cuts_the_stream_before_its_end() {
    let rig = Rig::new(SimulatorConfig::default());
    rig.simulator.set_faults(Faults {
        die_after_tokens: Some(3),
        ..Faults::default()
    });
    let mut body = ask(5, 10, "a");
    assert!(
        rig.send("POST", CHAT, &body)
            .await
            .expect("a head")
            .into_body()
            .collect()
            .await
            .is_err()
    );
    body["stream"] = json!(true);
    let mut response = rig.send("POST", CHAT, &body).await.expect("a head");
    let mut text = Vec::new();
    let error = loop {
        match response.body_mut().frame().await {
            Some(Ok(frame)) => text.extend_from_slice(frame.data_ref().expect("data")),
            Some(Err(error)) => break error,
            None => panic!("a clean end"),
        }
    };
    let text = String::from_utf8(text).expect("text");
    assert_eq!(text.matches("\"content\":").count(), 1 + 3, "{text}, {error}");
    assert!(!text.contains("[DONE]"));
}

#[tokio::test(start_paused = true)]
async fn sixty_four_streams_of_a_thousand_tokens_all_end() {
    let rig = Rig::new(profile(64));
    let answers = join_all((0..64).map(|stream| {
        let mut body = ask(50 + stream, 1000, "a");
        body["stream"] = json!(true);
        let rig = &rig;
        async move { rig.events(CHAT, &body).await }
    }))
    .await;
    for events in answers {
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        assert!(events.len() > 1000);
    }
}
