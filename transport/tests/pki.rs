//! The throw-away authority.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use cloister_transport::{
    ClientAuth, TlsFiles,
    pki::{self, Existing, Outcome, PkiError, Usage},
    server_config,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn issue(dir: &Path, subjects: &[&str], usage: Usage) -> Result<Outcome, PkiError> {
    pki::issue(dir, "server", subjects, usage, Existing::Keep)
}

#[test]
fn files_are_whole_and_keys_are_private() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    assert_eq!(pki::create(&dir, Existing::Keep).unwrap(), Outcome::Created);
    assert_eq!(
        issue(&dir, &["localhost", "::1"], Usage::Server).unwrap(),
        Outcome::Created
    );
    assert_eq!(mode(&dir), 0o700);
    for key in ["ca.key", "server.key"] {
        assert_eq!(mode(&dir.join(key)), 0o600);
    }
    let mut names = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    assert_eq!(names, ["ca.key", "ca.pem", "server.key", "server.pem"]);
    let files = TlsFiles {
        ca: dir.join("ca.pem"),
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
    };
    server_config(&files, ClientAuth::Required).unwrap();
}

#[test]
fn repeating_a_call_keeps_what_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pki::create(dir, Existing::Keep).unwrap();
    issue(dir, &["localhost"], Usage::Server).unwrap();
    let before = fs::read(dir.join("server.pem")).unwrap();
    assert_eq!(pki::create(dir, Existing::Keep).unwrap(), Outcome::Kept);
    assert_eq!(issue(dir, &["localhost"], Usage::Server).unwrap(), Outcome::Kept);
    assert_eq!(fs::read(dir.join("server.pem")).unwrap(), before);
}

#[test]
fn a_certificate_that_does_not_do_what_is_asked_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pki::create(dir, Existing::Keep).unwrap();
    let created = |subjects: &[&str], usage| {
        assert_eq!(issue(dir, subjects, usage).unwrap(), Outcome::Created);
        assert_eq!(issue(dir, subjects, usage).unwrap(), Outcome::Kept);
    };
    created(&["localhost"], Usage::Server);
    created(&["localhost", "127.0.0.1"], Usage::Server);
    created(&["localhost"], Usage::ServerAndClient);
    // Its key is gone, exposed, or another's.
    fs::remove_file(dir.join("server.key")).unwrap();
    created(&["localhost"], Usage::Server);
    fs::set_permissions(dir.join("server.key"), Permissions::from_mode(0o644)).unwrap();
    created(&["localhost"], Usage::Server);
    assert_eq!(mode(&dir.join("server.key")), 0o600);
    pki::issue(dir, "other", &["localhost"], Usage::Server, Existing::Keep).unwrap();
    fs::copy(dir.join("other.key"), dir.join("server.key")).unwrap();
    created(&["localhost"], Usage::Server);
    // Its authority is another.
    assert_eq!(pki::create(dir, Existing::Replace).unwrap(), Outcome::Created);
    created(&["localhost"], Usage::Server);
}

#[test]
fn an_authority_that_is_not_good_is_neither_used_nor_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let other = tempfile::tempdir().unwrap();
    pki::create(dir, Existing::Keep).unwrap();
    pki::create(other.path(), Existing::Keep).unwrap();
    fs::copy(other.path().join("ca.key"), dir.join("ca.key")).unwrap();
    let certificate = fs::read(dir.join("ca.pem")).unwrap();
    for result in [
        pki::create(dir, Existing::Keep),
        issue(dir, &["localhost"], Usage::Server),
    ] {
        assert!(matches!(result, Err(PkiError::Authority { .. })), "{result:?}");
    }
    fs::set_permissions(dir.join("ca.key"), Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(pki::create(dir, Existing::Keep), Err(PkiError::Pem(_))));
    fs::remove_file(dir.join("ca.key")).unwrap();
    assert!(matches!(pki::create(dir, Existing::Keep), Err(PkiError::Pem(_))));
    assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), certificate);
    pki::create(dir, Existing::Replace).unwrap();
    issue(dir, &["localhost"], Usage::Server).unwrap();
}

#[test]
fn what_a_cut_off_run_left_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.key"), "half").unwrap();
    fs::write(dir.path().join("ca.key.new"), "half").unwrap();
    fs::set_permissions(dir.path().join("ca.key.new"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(pki::create(dir.path(), Existing::Keep).unwrap(), Outcome::Created);
    assert_eq!(mode(&dir.path().join("ca.key")), 0o600);
    assert!(!dir.path().join("ca.key.new").exists());
}

#[test]
fn names_stay_in_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    pki::create(dir.path(), Existing::Keep).unwrap();
    let long = "a".repeat(64);
    for name in ["", "ca", "../x", "a/b", ".x", "-x", "A", "a b", "a\0", &long] {
        let result = pki::issue(dir.path(), name, &["localhost"], Usage::Server, Existing::Keep);
        assert!(matches!(result, Err(PkiError::Name(_))), "{name:?}: {result:?}");
    }
    for subjects in [&[][..], &["not a name"], &["*"], &[""]] {
        let result = issue(dir.path(), subjects, Usage::Server);
        assert!(matches!(result, Err(PkiError::SubjectName(_))), "{result:?}");
    }
}
