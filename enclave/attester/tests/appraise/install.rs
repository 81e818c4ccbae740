//! The file of the SIMULATED TEE.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cloister_attestation::{Endorsements, Tee, appraise};
use cloister_enclave_attester::simulated::FILE_NAME;
use cloister_enclave_attester::{AttesterError, CpuTee, SimulatedTee};
use tempfile::tempdir;

use crate::support::{MEASUREMENT, NONCE, evidence_by, policy, workload, write};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_installed_tee_is_accepted_under_the_hash_that_was_told_and_kept_when_installed_again() {
    let parent = tempdir().unwrap();
    let dir = parent.path().join("state/tee");
    let root = SimulatedTee::install(&dir).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join(FILE_NAME)), 0o600);
    let content = fs::read(dir.join(FILE_NAME)).unwrap();
    assert_eq!(SimulatedTee::install(&dir).unwrap(), root);
    assert_eq!(SimulatedTee::root_hash(&dir).unwrap(), root);
    assert_eq!(fs::read(dir.join(FILE_NAME)).unwrap(), content);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left behind");

    let tee = SimulatedTee::open(&dir, MEASUREMENT).unwrap();
    assert_eq!(tee.tee(), Tee::Simulated);
    assert_eq!(tee.measurement().as_bytes(), &MEASUREMENT);
    let evidence = evidence_by(&tee, workload());
    let mut policy = policy();
    policy.danger.simulated_tee = Some(root);
    // By the machine's clock: the certificates were made a moment ago.
    let seconds = fs::metadata(dir.join(FILE_NAME)).unwrap().modified().unwrap();
    let seconds = seconds.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = cloister_attestation::UnixTime(seconds);
    let result = appraise(&evidence, &NONCE, now, &policy, &Endorsements::default()).unwrap();
    assert_eq!(result.platform_id(), tee.platform_id());
    let again = SimulatedTee::open(&dir, MEASUREMENT).unwrap();
    assert_eq!(again.platform_id(), tee.platform_id(), "the chip stays the same");
}

#[test]
fn two_that_install_at_once_agree() {
    let dir = tempdir().unwrap();
    let install = || SimulatedTee::install(dir.path()).unwrap();
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(install);
        (install(), other.join().unwrap())
    });
    assert_eq!(one, two);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempdir().unwrap();
    for mode in [0o640, 0o604] {
        write(&dir.path().join(FILE_NAME), "", mode);
        let opened = SimulatedTee::open(dir.path(), MEASUREMENT);
        assert!(matches!(opened, Err(AttesterError::Permissions(_))));
    }
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    for text in [
        "",
        "damaged",
        "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
    ] {
        write(&path, text, 0o600);
        assert!(matches!(
            SimulatedTee::install(dir.path()),
            Err(AttesterError::Damaged(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn nothing_is_opened_where_nothing_was_installed() {
    let dir = tempdir().unwrap();
    let opened = SimulatedTee::open(dir.path(), MEASUREMENT);
    assert!(matches!(opened, Err(AttesterError::Io { action: "open", .. })));
}

#[test]
fn neither_debug_output_nor_errors_show_the_key() {
    let tee = &crate::support::world().tee;
    let shown = format!("{tee:?}");
    assert!(shown.starts_with("SimulatedTee { measurement: Measurement("), "{shown}");
}
