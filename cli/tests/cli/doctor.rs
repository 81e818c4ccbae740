//! `cloister doctor`: precedence of the configuration's sources, and each check up to the network.

use crate::run::{Run, cloister};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const MODEL: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A directory with everything that a proxy needs, but a scheduler.
struct Set {
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl Set {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let tenants = path("tenants");
        let run = |arguments: &[&str]| assert_eq!(cloister(arguments, &[]).code, 0, "{arguments:?}");
        run(&["tenant", "--dir", &tenants, "create", "acme"]);
        run(&["tenant", "--dir", &tenants, "token", "acme"]);
        run(&[
            "tenant",
            "--dir",
            &tenants,
            "issue",
            "acme",
            "--cluster",
            "local",
            "--models",
            MODEL,
        ]);
        run(&["dev", "pki", &path("pki")]);
        std::fs::write(path("policy.yaml"), "tees: [snp]\n").unwrap();
        let config = dir.path().join("proxy.yaml");
        // A port of the discard service: nothing answers there.
        let yaml = format!(
            "listen: 127.0.0.1:1111\nendpoint: https://127.0.0.1:9\nca: pki/ca.pem\nclusterId: local\n\
             credential: tenants/acme/members/default/credential\nmemberKey: tenants/acme/members/default/member.key\n\
             outerToken: tenants/acme/token\npolicy: policy.yaml\nmodels: {{m: \"{MODEL}\"}}\n\
             timeouts: {{connectSeconds: 2}}\n"
        );
        std::fs::write(&config, yaml).unwrap();
        Self { dir, config }
    }

    fn doctor(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        let config = self.config.to_str().unwrap();
        cloister(
            &[&["doctor", "-o", "json", "--config", config], arguments].concat(),
            variables,
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The status and the detail of one check.
fn check(run: &Run, name: &str) -> (String, String) {
    let report = run.json();
    let found = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == name)
        .unwrap()
        .clone();
    (
        found["status"].as_str().unwrap().to_owned(),
        found["detail"].as_str().unwrap().to_owned(),
    )
}

fn open_to_others(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let set = Set::new();
    let listen =
        |arguments: &[&str], variables: &[(&str, &str)]| check(&set.doctor(arguments, variables), "configuration").1;
    let variable = [("CLOISTER_LISTEN", "127.0.0.1:2222")];
    assert!(listen(&[], &[]).contains("listen 127.0.0.1:1111"));
    assert!(listen(&[], &variable).contains("listen 127.0.0.1:2222"));
    assert!(listen(&["--listen", "127.0.0.1:3333"], &variable).contains("listen 127.0.0.1:3333"));
    let models = format!("x={MODEL},y={MODEL}");
    assert!(listen(&[], &[("CLOISTER_MODELS", &models)]).contains("models x, y"));
}

#[test]
fn without_a_scheduler_the_endpoint_fails_and_what_needs_it_is_skipped() {
    let set = Set::new();
    let run = set.doctor(&[], &[]);
    assert_eq!(run.code, 1);
    for name in ["configuration", "files", "credential"] {
        assert_eq!(check(&run, name).0, "ok", "{name}: {}", run.stdout);
    }
    assert_eq!(check(&run, "endpoint").0, "failed");
    for name in ["outer token", "key configurations", "evidence", "policy", "models"] {
        assert_eq!(check(&run, name).0, "skipped", "{name}");
    }
}

#[test]
fn the_store_of_collateral_is_looked_at_when_there_is_one() {
    let set = Set::new();
    let store = set.path("store");
    let look = || {
        check(
            &set.doctor(&["--collateral", store.to_str().unwrap()], &[]),
            "collateral",
        )
    };
    assert_eq!(look().0, "failed", "no such directory");
    std::fs::create_dir_all(store.join("amd/Milan")).unwrap();
    let chain = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../attestation/testdata/snp/sev_cert_chain_milan.pem"
    );
    std::fs::copy(chain, store.join("amd/Milan/cert_chain.pem")).unwrap();
    let (status, detail) = look();
    assert_eq!(status, "ok");
    assert!(detail.contains("1 file, all good until 2045-"), "{detail}");
    std::fs::write(store.join("amd/Milan/crl.der"), "none").unwrap();
    let (status, detail) = look();
    assert_eq!(status, "warning");
    assert!(detail.contains("amd/Milan/crl.der"), "{detail}");
}

#[test]
fn every_failure_says_what_to_do() {
    let set = Set::new();
    let config = set.config.to_str().unwrap();
    let text = cloister(&["doctor", "--config", config], &[]);
    assert!(
        text.stdout.contains("✗ endpoint") && text.stdout.contains("-> check that the scheduler runs"),
        "{}",
        text.stdout
    );
    assert!(text.stdout.contains("Requests will fail."));
}

#[test]
fn a_configuration_that_is_none_fails_first() {
    let set = Set::new();
    for arguments in [
        &["--listen", "0.0.0.0:80"][..],
        &["--candidates", "9"],
        &["--endpoint", "http://plain"],
    ] {
        let run = set.doctor(arguments, &[]);
        assert_eq!(run.code, 1);
        assert_eq!(check(&run, "configuration").0, "failed");
        assert_eq!(check(&run, "files").0, "skipped");
    }
}

#[test]
fn secrets_open_to_others_fail() {
    for file in [
        "tenants/acme/token",
        "tenants/acme/members/default/member.key",
        "tenants/acme/members/default/credential",
    ] {
        let set = Set::new();
        open_to_others(&set.path(file));
        let (status, detail) = check(&set.doctor(&[], &[]), "files");
        assert_eq!(status, "failed");
        assert!(detail.contains("0644") && detail.contains(file), "{detail}");
    }
}

#[test]
fn unusable_files_fail() {
    for (file, content) in [
        ("policy.yaml", "trees: []\n"),
        ("pki/ca.pem", "nothing"),
        ("tenants/acme/token", "two words"),
    ] {
        let set = Set::new();
        std::fs::write(set.path(file), content).unwrap();
        assert_eq!(check(&set.doctor(&[], &[]), "files").0, "failed", "{file}");
    }
}

#[test]
fn credentials_that_do_not_count_fail() {
    let set = Set::new();
    let (status, detail) = check(&set.doctor(&["--cluster-id", "elsewhere"], &[]), "credential");
    assert_eq!(status, "failed");
    assert!(detail.contains("another cluster"), "{detail}");
    let (status, detail) = check(&set.doctor(&["--models", &format!("m={OTHER}")], &[]), "credential");
    assert_eq!(status, "failed");
    assert!(detail.contains(OTHER), "{detail}");
}

#[test]
fn a_proxy_does_not_start_on_what_the_doctor_refuses() {
    let set = Set::new();
    let config = set.config.to_str().unwrap();
    assert_eq!(
        cloister(&["proxy", "--config", config, "--listen", "0.0.0.0:80"], &[]).code,
        3
    );
    open_to_others(&set.path("tenants/acme/token"));
    assert_eq!(cloister(&["proxy", "--config", config], &[]).code, 3);
}
