//! `cloister tenant`, `dev pki` and `receipt verify` as a user runs them.

use crate::run::{Run, cloister};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const MODEL: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn tenant(dir: &Path, arguments: &[&str]) -> Run {
    let dir = dir.to_str().unwrap();
    cloister(&[&["tenant", "--dir", dir], arguments].concat(), &[])
}

#[test]
fn a_tenant_from_create_to_token() {
    let dir = tempfile::tempdir().unwrap();
    let created = tenant(dir.path(), &["create", "acme", "-o", "json"]);
    assert_eq!(created.code, 0);
    let id = created.json()["tenantId"].as_str().unwrap().to_owned();
    assert_eq!(mode(&dir.path().join("acme/root.key")), 0o600);

    let shown = tenant(dir.path(), &["show", "acme", "--cluster", "local", "-o", "json"]);
    assert_eq!(shown.json()["tenantId"], id.as_str());
    assert_eq!(shown.json()["tenantRef"].as_str().unwrap().len(), 32);
    let elsewhere = tenant(dir.path(), &["show", "acme", "--cluster", "other", "-o", "json"]);
    assert_ne!(shown.json()["tenantRef"], elsewhere.json()["tenantRef"]);

    let issued = tenant(
        dir.path(),
        &["issue", "acme", "--cluster", "local", "--models", MODEL, "-o", "json"],
    );
    for file in ["credential", "memberKey"] {
        assert_eq!(mode(Path::new(issued.json()[file].as_str().unwrap())), 0o600);
    }

    let token = tenant(dir.path(), &["token", "acme"]);
    assert_eq!(mode(&dir.path().join("acme/token")), 0o600);
    let secret = std::fs::read_to_string(dir.path().join("acme/token")).unwrap();
    assert!(token.stdout.contains("tokenSha256: ") && !token.stdout.contains(&secret));
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tenant(dir.path(), &["create", "acme"]).code, 0);
    let before = std::fs::read(dir.path().join("acme/root.key")).unwrap();
    let again = tenant(dir.path(), &["create", "acme"]);
    assert_eq!(again.code, 3);
    assert!(again.stderr.contains("not overwritten"), "{}", again.stderr);
    assert_eq!(std::fs::read(dir.path().join("acme/root.key")).unwrap(), before);
}

#[test]
fn usage_errors_and_unusable_files_have_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tenant(dir.path(), &["issue", "acme"]).code, 2);
    assert_eq!(
        tenant(dir.path(), &["issue", "acme", "--cluster", "c", "--models", "12"]).code,
        2
    );
    let missing = tenant(dir.path(), &["show", "acme"]);
    assert_eq!(missing.code, 3);
    assert!(missing.stderr.contains("tenant create"), "{}", missing.stderr);
    assert_eq!(tenant(dir.path(), &["create", "../up"]).code, 3);
    tenant(dir.path(), &["create", "acme"]);
    let long = ["issue", "acme", "--cluster", "c", "--models", MODEL, "--life", "3601"];
    assert_eq!(tenant(dir.path(), &long).code, 3);
}

#[test]
fn help_names_the_exit_codes() {
    let help = cloister(&["--help"], &[]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("Exit codes:"));
}

#[test]
fn a_throw_away_authority_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pki");
    let arguments = [
        "dev",
        "pki",
        path.to_str().unwrap(),
        "--server",
        "scheduler=localhost,127.0.0.1",
        "--client",
        "probe",
        "-o",
        "json",
    ];
    let first = cloister(&arguments, &[]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert_eq!(first.json()["certificates"]["scheduler"], "created");
    assert_eq!(mode(&path.join("scheduler.key")), 0o600);
    assert_eq!(cloister(&arguments, &[]).json()["certificates"]["scheduler"], "kept");
}

#[test]
fn a_receipt_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (receipt, policy) = (dir.path().join("receipt.json"), dir.path().join("policy.yaml"));
    std::fs::write(&policy, "tees: [snp]\n").unwrap();
    let verify = || {
        let files = [
            "receipt",
            "verify",
            receipt.to_str().unwrap(),
            "--policy",
            policy.to_str().unwrap(),
        ];
        cloister(&files, &[])
    };
    assert_eq!(verify().code, 3, "no such file");
    std::fs::write(&receipt, "{}").unwrap();
    let refused = verify();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("REFUSED"), "{}", refused.stderr);
    std::fs::write(&policy, "trees: []\n").unwrap();
    assert_eq!(verify().code, 3, "no policy");
}
