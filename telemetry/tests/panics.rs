//! A panic's message never reaches the log: run in a process of its own, because the hook and standard error are global.

use std::process::{Command, Output};

use cloister_telemetry::{LogFormat, Options};

const CANARY: &str = "CANARY-5b1d";
const ROLE: &str = "CLOISTER_TEST_PANICS_AS";

/// Runs this test program again; it panics in the way of `role`.
fn run(test: &str, role: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env("RUST_BACKTRACE", "full")
        .output()
        .unwrap()
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

fn format() -> LogFormat {
    match role().as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    }
}

fn panic_with_content() {
    // In another thread, so that the test program itself ends well.
    let thread = std::thread::spawn(|| {
        // Fails, and quotes what it failed on.
        CANARY.parse::<u8>().map_err(|_| CANARY).expect(CANARY)
    });
    assert!(thread.join().is_err());
}

#[test]
fn a_panic_is_logged_by_its_place_only() {
    if role().is_some() {
        let options = Options {
            log_format: format(),
            log_filter: Some("trace".to_owned()),
            otlp_endpoint: None,
        };
        let _guard = cloister_telemetry::init("panics", &options).unwrap();
        panic_with_content();
        return;
    }
    for role in ["text", "json"] {
        let output = run("a_panic_is_logged_by_its_place_only", role);
        assert!(output.status.success());
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(!log.contains(CANARY), "{log}");
        assert!(!String::from_utf8(output.stdout).unwrap().contains(CANARY));
        let line = log.lines().find(|line| line.contains("panicked")).unwrap();
        assert!(line.contains("telemetry/tests/panics.rs:"), "{line}");
        if role == "json" {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["level"], "ERROR");
        }
    }
}

#[test]
fn without_the_hook_the_canary_would_be_seen() {
    if role().is_some() {
        panic_with_content();
        return;
    }
    let output = run("without_the_hook_the_canary_would_be_seen", "text");
    assert!(String::from_utf8(output.stderr).unwrap().contains(CANARY));
}
