use clap::{CommandFactory, Parser};

use super::*;

const REF: &str = "00112233445566778899aabbccddeeff";

fn yaml() -> String {
    format!(
        "
listen: 127.0.0.1:0
tls: {{ ca: ca.pem, certificate: s.pem, key: s.key }}
clusterId: test
enclaves: [ https://127.0.0.1:9001 ]
tenants: [ {{ tenantRef: {REF} }} ]
credentials: [ {{ tokenSha256: {hash}, tenantRefs: [ {REF} ] }} ]
",
        hash = "ab".repeat(32)
    )
}

fn load(yaml: &str, flags: &[&str]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scheduler.yaml");
    std::fs::write(&path, yaml).unwrap();
    let config = ["cloister-scheduler", "--config", path.to_str().unwrap()];
    let flags = Flags::try_parse_from(config.iter().chain(flags)).map_err(|error| error.to_string())?;
    Config::load(flags).map_err(|error| error.to_string())
}

fn problem(yaml: &str) -> String {
    load(yaml, &[]).expect_err("refused")
}

#[test]
fn the_flags_are_sound() {
    Flags::command().debug_assert();
}

#[test]
fn the_example_of_the_help_loads() {
    let help = Flags::command().render_long_help().to_string();
    let start = help.find("  listen:").unwrap();
    let end = help.find("`cloister tenant show`").unwrap();
    let example = help[start..end].replace("<64 hex digits>", &"ab".repeat(32));
    let config = load(&example, &[]).unwrap();
    assert_eq!(
        config.policy.quantum,
        Duration::from_secs(2),
        "the example states the defaults"
    );
    let minimal = load(&yaml(), &[]).unwrap();
    assert_eq!(
        (config.policy, config.timeouts, config.limits),
        (minimal.policy, minimal.timeouts, minimal.limits)
    );
    assert_eq!(config.tenants, minimal.tenants);
}

#[test]
fn flags_win_over_the_file() {
    let flags = [
        "--listen",
        "127.0.0.1:1",
        "--tenant",
        &format!("{REF}:3:7"),
        "--enclave",
        "https://h:1,https://h:2",
        "--lease-quantum-millis",
        "5",
    ];
    let config = load(&yaml(), &flags).unwrap();
    assert_eq!(config.listen.port(), 1);
    assert_eq!((config.tenants[0].weight, config.tenants[0].max_queued), (3, 7));
    assert_eq!(config.enclaves.len(), 2);
    assert_eq!(config.policy.quantum, Duration::from_millis(5));
}

#[test]
fn malformed_flags_are_refused() {
    for flags in [
        ["--tenant", "xyz"],
        ["--tenant", &format!("{REF}:x")],
        ["--tenant", &format!("{REF}:1:2:3")],
        ["--credential", REF],
        ["--credential", &format!("{}:x", "ab".repeat(32))],
    ] {
        load(&yaml(), &flags).expect_err("refused");
    }
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    assert!(problem("").contains("listen is not set"), "{}", problem(""));
    let without_key = yaml().replace(", key: s.key", "");
    assert!(problem(&without_key).contains("--tls-key"));
    assert!(problem(&format!("{}\ntypo: 1", yaml())).contains("typo"));
    assert!(load(&yaml(), &["--config", "/nonexistent"]).is_err());
}

#[test]
fn what_cannot_work_is_refused() {
    let hash = "ab".repeat(32);
    let tenant = format!("{{ tenantRef: {REF} }}");
    let credential = format!("{{ tokenSha256: {hash}, tenantRefs: [ {REF} ] }}");
    let cases = [
        ("clusterId: test", "clusterId: ''".to_owned(), "clusterId"),
        ("[ https://127.0.0.1:9001 ]", "[]".to_owned(), "enclaves"),
        (
            "[ https://127.0.0.1:9001 ]",
            "[ 'not an address' ]".to_owned(),
            "enclaves[0]",
        ),
        (
            "[ https://127.0.0.1:9001 ]",
            "[ https://a:1, https://a:1 ]".to_owned(),
            "enclaves[1]",
        ),
        (tenant.as_str(), format!("{tenant}, {tenant}"), "tenants[1]"),
        (tenant.as_str(), format!("{{ tenantRef: {REF}, weight: 0 }}"), "weight"),
        (
            tenant.as_str(),
            format!("{{ tenantRef: {REF}, weight: 101 }}"),
            "weight",
        ),
        (
            tenant.as_str(),
            format!("{{ tenantRef: {REF}, maxQueued: 0 }}"),
            "maxQueued",
        ),
        (credential.as_str(), String::new(), "credentials"),
        (
            credential.as_str(),
            format!("{credential}, {credential}"),
            "credentials[1]",
        ),
        (
            credential.as_str(),
            format!("{{ tokenSha256: {hash}, tenantRefs: [] }}"),
            "tenantRefs is empty",
        ),
        (
            credential.as_str(),
            format!("{{ tokenSha256: {hash}, tenantRefs: [ {} ] }}", "ff".repeat(16)),
            "not among tenants",
        ),
        (
            "clusterId: test",
            "clusterId: test\nlease: { quantumMillis: 0 }".to_owned(),
            "quantumMillis",
        ),
        (
            "clusterId: test",
            "clusterId: test\nlease: { maxInFlight: 0 }".to_owned(),
            "lease",
        ),
        (
            "clusterId: test",
            "clusterId: test\nlimits: { streamWindowBytes: 100 }".to_owned(),
            "streamWindowBytes",
        ),
        (
            "clusterId: test",
            "clusterId: test\nlimits: { streamsPerConnection: 0 }".to_owned(),
            "streamsPerConnection",
        ),
        (
            "clusterId: test",
            "clusterId: test\nlimits: { streamsPerConnection: 200000 }".to_owned(),
            "streamsPerConnection",
        ),
    ];
    for (from, to, expected) in cases {
        let changed = yaml().replace(from, &to);
        assert_ne!(changed, yaml());
        let problem = problem(&changed);
        assert!(problem.contains(expected), "{problem} should name {expected}");
    }
}
