//! The program: its exit codes and its end.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use cloister_transport::pki::{self, Existing, Usage};

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cloister-scheduler"));
    program.env_clear();
    program
}

fn start(args: &[&str]) -> (tempfile::TempDir, Child) {
    let dir = tempfile::tempdir().unwrap();
    pki::create(dir.path(), Existing::Keep).unwrap();
    pki::issue(
        dir.path(),
        "scheduler",
        &["localhost"],
        Usage::ServerAndClient,
        Existing::Keep,
    )
    .unwrap();
    let tenant = "ab".repeat(16);
    let config = format!(
        "
listen: 127.0.0.1:0
tls: {{ ca: ca.pem, certificate: scheduler.pem, key: scheduler.key }}
clusterId: test
enclaves: [ https://127.0.0.1:9 ]
tenants: [ {{ tenantRef: {tenant} }} ]
credentials: [ {{ tokenSha256: {}, tenantRefs: [ {tenant} ] }} ]
",
        "cd".repeat(32)
    );
    let path = dir.path().join("scheduler.yaml");
    std::fs::write(&path, config).unwrap();
    let child = program()
        .arg("--config")
        .arg(path)
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (dir, child)
}

#[test]
fn a_signal_ends_it_with_success() {
    for signal in ["TERM", "INT"] {
        let (_dir, mut child) = start(&["--log-format", "json"]);
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = log.any(|line| line.unwrap().contains("listening"));
        assert!(listening, "it says when it listens");
        let killed = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        // What is left of the log, so that the program never waits for its reader.
        let rest: Vec<_> = log.map(Result::unwrap).collect();
        assert!(rest.iter().any(|line| line.contains("stopping")), "{rest:?}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_wrong_command_line_or_configuration_is_2() {
    let code = |args: &[&str]| program().args(args).stderr(Stdio::null()).status().unwrap().code();
    assert_eq!(code(&["--no-such-flag"]), Some(2));
    assert_eq!(code(&["--config", "/nonexistent"]), Some(2));
    assert_eq!(code(&[]), Some(2), "nothing is configured");
    let (_dir, mut child) = start(&["--lease-quantum-millis", "0"]);
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn what_cannot_be_opened_is_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_dir, child) = start(&["--listen", &address]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains(&address) && message.contains("cannot listen"),
        "{message}"
    );

    let (_dir, mut child) = start(&["--tls-key", "/nonexistent"]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn the_help_says_what_is_needed() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for needed in ["CLOISTER_CONFIG", "clusterId:", "Exit codes:", "SIGTERM"] {
        assert!(help.contains(needed), "{needed}");
    }
}
