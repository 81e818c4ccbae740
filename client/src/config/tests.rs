use super::*;
use clap::Parser;

/// Flags as the command line gives them, without the environment of whoever runs the tests.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    flags: ProxyFlags,
}

const DIGEST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn file() -> String {
    format!(
        "listen: 127.0.0.1:9999\nendpoint: https://scheduler:8443\nca: ca.pem\nclusterId: local\ncredential: credential\n\
         memberKey: member.key\nouterToken: /etc/token\npolicy: policy.yaml\nmodels:\n  m: \"{DIGEST}\"\n"
    )
}

fn load(yaml: &str, flags: &[&str]) -> Result<ProxyConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.yaml");
    std::fs::write(&path, yaml).unwrap();
    let mut flags = Command::try_parse_from([&["proxy"], flags].concat()).unwrap().flags;
    flags.config = Some(path.clone());
    let mut config = ProxyConfig::load(&flags)?;
    // The directory is gone after this.
    config.ca = config.ca.strip_prefix(dir.path()).unwrap_or(&config.ca).to_owned();
    Ok(config)
}

fn error(yaml: &str, flags: &[&str]) -> String {
    load(yaml, flags).unwrap_err().to_string()
}

#[test]
fn a_file_with_the_required_keys_is_enough() {
    let config = load(&file(), &[]).unwrap();
    assert_eq!(config.listen.port(), 9999);
    assert_eq!(config.ca, PathBuf::from("ca.pem"), "relative to the file");
    assert_eq!(config.outer_token, PathBuf::from("/etc/token"), "absolute as it is");
    assert_eq!(config.collateral, None);
    assert_eq!(config.candidates, 2);
    assert_eq!(config.timeouts.queue, Duration::from_secs(120));
    assert_eq!(config.timeouts.first_byte, Duration::from_secs(345));
    assert_eq!((config.retries.attempts, config.retries.after_execution), (4, false));
    assert_eq!(config.models["m"], [DIGEST.parse::<ModelDigest>().unwrap()]);
}

#[test]
fn flags_win_over_the_file() {
    let other = format!("n={OTHER}+{DIGEST}");
    let flags = [
        "--listen",
        "127.0.0.1:1",
        "--ca",
        "other.pem",
        "--candidates",
        "4",
        "--timeouts-idle-seconds",
        "7",
        "--collateral",
        "store",
        "--retries-attempts",
        "1",
        "--retries-after-execution",
        "true",
        "--models",
        &other,
    ];
    let config = load(&file(), &flags).unwrap();
    assert_eq!(config.listen.port(), 1);
    assert_eq!(
        config.ca,
        PathBuf::from("other.pem"),
        "a flag is relative to the working directory"
    );
    assert_eq!(config.candidates, 4);
    assert_eq!(config.collateral, Some(PathBuf::from("store")));
    assert_eq!(config.timeouts.idle, Duration::from_secs(7));
    assert_eq!((config.retries.attempts, config.retries.after_execution), (1, true));
    assert_eq!(
        config.models.keys().collect::<Vec<_>>(),
        ["n"],
        "models are replaced, not merged"
    );
    assert_eq!(config.models["n"].len(), 2);
}

#[test]
fn flags_alone_are_enough() {
    let model = format!("m={DIGEST}");
    let flags = Command::try_parse_from([
        "proxy",
        "--endpoint",
        "https://s",
        "--ca",
        "ca",
        "--cluster-id",
        "c",
        "--credential",
        "c",
        "--member-key",
        "k",
        "--outer-token",
        "t",
        "--policy",
        "p",
        "--models",
        &model,
    ]);
    let config = ProxyConfig::load(&flags.unwrap().flags).unwrap();
    assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
}

#[test]
fn missing_keys_are_named_in_all_three_forms() {
    for (key, flag, variable) in [
        ("endpoint", "--endpoint", "CLOISTER_ENDPOINT"),
        ("memberKey", "--member-key", "CLOISTER_MEMBER_KEY"),
        ("models", "--models", "CLOISTER_MODELS"),
    ] {
        let without: String = file()
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        let without = if key == "models" {
            without.replace(&format!("  m: \"{DIGEST}\"\n"), "")
        } else {
            without
        };
        let text = error(&without, &[]);
        assert!(
            text.contains(key) && text.contains(flag) && text.contains(variable),
            "{text}"
        );
    }
}

#[test]
fn every_key_has_a_variable_of_its_own_name() {
    use clap::CommandFactory;
    for argument in Command::command().get_arguments() {
        let Some(long) = argument.get_long().filter(|long| *long != "help") else {
            continue;
        };
        let variable = format!("CLOISTER_{}", long.replace('-', "_").to_uppercase());
        assert_eq!(argument.get_env().unwrap(), variable.as_str());
    }
}

#[test]
fn unknown_keys_are_refused() {
    assert!(error(&format!("{}plaintext: true\n", file()), &[]).contains("plaintext"));
    assert!(error(&format!("{}timeouts: {{forever: 1}}\n", file()), &[]).contains("forever"));
}

#[test]
fn out_of_bounds_is_refused() {
    for flags in [
        &["--listen", "0.0.0.0:80"][..],
        &["--listen", "nowhere"],
        &["--endpoint", "http://s"],
        &["--endpoint", "https://s/path"],
        &["--candidates", "0"],
        &["--candidates", "5"],
        &["--timeouts-queue-seconds", "121"],
        &["--timeouts-idle-seconds", "0"],
        &["--retries-attempts", "0"],
        &["--retries-attempts", "17"],
        &["--max-in-flight", "0"],
        &["--cluster-id", ""],
    ] {
        assert!(
            matches!(load(&file(), flags), Err(ConfigError::Invalid { .. })),
            "{flags:?}"
        );
    }
    assert!(
        load(&file().replace(&format!("\"{DIGEST}\""), "[]"), &[]).is_err(),
        "a name without digest"
    );
    assert!(Command::try_parse_from(["proxy", "--models", "m=1234"]).is_err());
    assert!(Command::try_parse_from(["proxy", "--models", DIGEST]).is_err());
}
