//! The proof, and everything that must keep it from being made.

#[allow(dead_code)]
mod support;

use std::time::Duration;

use cloister_attestation::SwitchIsolation;
use cloister_enclave_engine::{
    Engine, EngineError, EngineStatus, Ledger, OwnedEngine, ScrubContext, ScrubFailure, ScrubMethod, StartError,
    Timeouts,
};
use futures::StreamExt;
use serde_json::json;
use support::{CHAT, Rig, ask, context, simulator_config};

type Expected<'a> = &'a dyn Fn(&ScrubFailure) -> bool;

#[tokio::test]
async fn nothing_is_cached_after_a_scrub_and_the_process_stays() {
    let rig = Rig::running(&[]).await;
    let before = *rig.engine.status().borrow();
    assert_eq!(rig.cached("tenant").await, 0);
    assert!(rig.cached("tenant").await > 0, "the same tenant hits");
    assert_eq!(rig.cached("another").await, 0, "another salt misses");
    let proof = rig.engine.scrub(&context(1)).await.expect("a proof");
    assert_eq!(
        (proof.method(), proof.epoch(), proof.generation()),
        (ScrubMethod::Reset, 1, 1)
    );
    assert_eq!(rig.cached("tenant").await, 0, "nothing of the epoch is left");
    assert_eq!(*rig.engine.status().borrow(), before);
}

#[tokio::test]
async fn proofs_differ_by_what_they_prove() {
    let rig = Rig::running(&[]).await;
    let mut digests = Vec::new();
    for change in 0..5 {
        let mut context = context(9);
        match change {
            1 => context.nonce = [8; 32],
            2 => context.epoch = 2,
            3 => context.ledger = Ledger { begun: 4, ended: 4 },
            4 => context.boot_id = cloister_attestation::BootId::from_bytes([6; 16]),
            _ => {}
        }
        digests.push(rig.engine.scrub(&context).await.expect("a proof").digest());
    }
    let restarted = rig.engine.restart(&context(9)).await.expect("a proof");
    assert_eq!((restarted.method(), restarted.generation()), (ScrubMethod::Restart, 2));
    digests.push(restarted.digest());
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[tokio::test]
async fn an_open_ledger_is_refused_by_scrub_and_restart() {
    let rig = Rig::running(&[]).await;
    let open = ScrubContext {
        ledger: Ledger { begun: 3, ended: 2 },
        ..context(1)
    };
    assert!(matches!(
        rig.engine.scrub(&open).await,
        Err(ScrubFailure::LedgerOpen(1))
    ));
    assert!(rig.engine.is_alive(), "an open ledger stops nothing");
    assert!(matches!(
        rig.engine.restart(&open).await,
        Err(ScrubFailure::LedgerOpen(1))
    ));
}

#[tokio::test]
async fn a_call_that_is_still_open_is_refused() {
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &["--profile", "8b-h100"]);
        config.operator_arguments.drain(..2);
        config.timeouts = Timeouts {
            drain: Duration::from_millis(50),
            ..support::timeouts()
        };
        config
    });
    rig.engine.start().await.expect("started");
    let mut body = ask("tenant", 100_000);
    body["stream"] = json!(true);
    let response = rig.call(CHAT, &body).await.expect("an answer");
    assert_eq!(rig.engine.live_calls(), 1);
    assert!(matches!(
        rig.engine.scrub(&context(1)).await,
        Err(ScrubFailure::CallsLive(1))
    ));
    drop(response);
    let proof = rig.engine.scrub(&context(1)).await.expect("a proof once it is gone");
    assert_eq!(proof.method(), ScrubMethod::Reset);
}

#[tokio::test]
async fn a_call_that_comes_in_between_is_seen() {
    let rig = Rig::running(&[]).await;
    // Polled in this order: the scrub is on its way when the call begins, and goes on long after the call has ended.
    let context = context(1);
    let (scrubbed, _) = futures::future::join(rig.engine.scrub(&context), rig.post(CHAT, &ask("tenant", 1))).await;
    assert!(scrubbed.is_err(), "whatever it met first");
    assert!(rig.engine.scrub(&context).await.is_ok());
}

#[tokio::test]
async fn every_way_to_misbehave_leaves_no_proof() {
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        let short = Duration::from_millis(300);
        config.timeouts = Timeouts {
            control: short,
            drain: short,
            ..support::timeouts()
        };
        config
    });
    rig.engine.start().await.expect("started");
    let unconfirmed = |failure: &ScrubFailure| matches!(failure, ScrubFailure::ResetUnconfirmed(_));
    let cases: [(serde_json::Value, Expected<'_>); 8] = [
        (json!({"reset": "empty"}), &unconfirmed),
        (json!({"reset": "refused"}), &unconfirmed),
        (json!({"reset": "missing"}), &|f| {
            matches!(f, ScrubFailure::Engine(EngineError::Status { status: 404, .. }))
        }),
        (json!({"reset": "hang"}), &|f| {
            matches!(f, ScrubFailure::Engine(EngineError::Timeout { .. }))
        }),
        (json!({"reset": "leak"}), &|f| matches!(f, ScrubFailure::ProbeHit(1..))),
        (json!({"neverIdle": true}), &|f| matches!(f, ScrubFailure::NotIdle(_))),
        (json!({"noMetrics": true}), &|f| {
            matches!(f, ScrubFailure::Engine(EngineError::Malformed { .. }))
        }),
        (json!({"hideCachedTokens": true}), &|f| {
            matches!(f, ScrubFailure::ProbeBlind)
        }),
    ];
    for (number, (faults, expected)) in (10u8..).zip(cases) {
        rig.faults(&faults).await;
        let failure = rig.engine.scrub(&context(number)).await.expect_err("no proof");
        assert!(expected(&failure), "{faults}: {failure}");
    }
    // A restart needs none of its cooperation.
    let proof = rig.engine.restart(&context(1)).await.expect("a proof");
    assert_eq!((proof.method(), proof.generation()), (ScrubMethod::Restart, 2));
}

#[tokio::test]
async fn work_after_the_reset_is_seen() {
    let rig = Rig::running(&["--faults", "{\"neverIdle\":true}"]).await;
    // A restart looks, too.
    let failure = rig.engine.restart(&context(1)).await.expect_err("no proof");
    assert!(
        matches!(
            failure,
            ScrubFailure::NotEmpty {
                running: 1,
                waiting: 0,
                kv_in_use: false
            }
        ),
        "{failure}"
    );
    assert_eq!(
        *rig.engine.status().borrow(),
        EngineStatus::Stopped,
        "and leaves nothing running"
    );
}

#[tokio::test]
async fn a_version_that_is_not_listed_is_restarted() {
    let rig = Rig::running(&["--engine-version", "0.11.0"]).await;
    let proof = rig.engine.scrub(&context(1)).await.expect("a proof");
    assert_eq!((proof.method(), proof.generation()), (ScrubMethod::Restart, 2));
}

#[tokio::test]
async fn vision_and_restart_isolation_are_restarted() {
    for change in [0, 1] {
        let rig = Rig::new(|runtime_dir| {
            let mut config = simulator_config(runtime_dir, &[]);
            match change {
                0 => config.vision = true,
                _ => config.isolation = SwitchIsolation::Restart,
            }
            config
        });
        rig.engine.start().await.expect("started");
        let proof = rig.engine.scrub(&context(1)).await.expect("a proof");
        assert_eq!(proof.method(), ScrubMethod::Restart);
    }
}

#[tokio::test]
async fn an_engine_with_adapters_is_refused() {
    let rig = Rig::simulator(&["--faults", "{\"lora\":true}"]);
    let error = rig.engine.start().await.expect_err("refused");
    assert!(matches!(error, StartError::UnclearableState(_)), "{error}");
    assert_eq!(*rig.engine.status().borrow(), EngineStatus::Stopped);
}

#[tokio::test]
async fn forbidden_arguments_are_refused_before_anything_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = simulator_config(directory.path().join("run"), &["--kv-transfer-config", "{}"]);
    assert!(matches!(OwnedEngine::new(config), Err(StartError::Forbidden(_))));
    let mut config = simulator_config(directory.path().join("run"), &[]);
    config
        .operator_environment
        .insert("VLLM_ALLOW_RUNTIME_LORA_UPDATING".to_owned(), "1".to_owned());
    assert!(matches!(OwnedEngine::new(config), Err(StartError::Forbidden(_))));
    assert!(!directory.path().join("run").exists());
}

#[tokio::test]
async fn an_engine_that_does_not_run_proves_nothing() {
    let rig = Rig::simulator(&[]);
    assert!(matches!(
        rig.engine.scrub(&context(1)).await,
        Err(ScrubFailure::Engine(EngineError::NotRunning))
    ));
    assert!(matches!(rig.engine.load().await, Err(EngineError::NotRunning)));
    let mut proofs = futures::stream::iter([rig.engine.restart(&context(1)).await]);
    let first = proofs.next().await.expect("one").expect("a proof");
    assert_eq!((first.method(), first.generation()), (ScrubMethod::Restart, 1));
}
