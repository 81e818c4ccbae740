//! The sequence of configfs-tsm, and each way in which it does not give a report.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use cloister_enclave_attester::tsm::{
    self, Blobs, Configfs, MAX_AUXBLOB_LEN, MAX_ENTRIES, MAX_OUTBLOB_LEN, MAX_TRIES, Provider, TsmError,
};

use crate::fake_configfs::{FakeConfigfs, left};

const DATA: [u8; 64] = [0xab; 64];

/// A kernel whose report is the data twice, beside a certificate.
fn kernel() -> FakeConfigfs {
    FakeConfigfs::new("sev_guest", |inblob| {
        ([inblob, inblob].concat(), b"certificate".to_vec())
    })
}

/// What comes of it; whatever that is, no request is left.
fn collect(kernel: &FakeConfigfs) -> Result<Blobs, TsmError> {
    let made = tsm::report(kernel, Provider::SevGuest, &DATA);
    assert_eq!(left(kernel.dir().path()), [""; 0], "a request was left");
    made
}

fn refusal(kernel: &FakeConfigfs, words: &[&str]) -> TsmError {
    let error = collect(kernel).unwrap_err();
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    error
}

#[test]
fn a_report_and_what_came_with_it_are_read() {
    let made = collect(&kernel()).unwrap();
    assert_eq!(made.outblob, [0xab; 128]);
    assert_eq!(made.auxblob, b"certificate");
}

#[test]
fn an_empty_auxblob_is_none() {
    let kernel = FakeConfigfs::new("sev_guest", |inblob| (inblob.to_vec(), Vec::new()));
    assert_eq!(collect(&kernel).unwrap().auxblob, b"");
}

#[test]
fn a_report_under_which_the_generation_moved_is_asked_for_again() {
    let kernel = kernel();
    kernel.intrusions.store(MAX_TRIES - 1, Ordering::SeqCst);
    assert_eq!(collect(&kernel).unwrap().outblob, [0xab; 128]);
    assert_eq!(kernel.intrusions.load(Ordering::SeqCst), 0);
}

#[test]
fn a_generation_that_always_moves_is_refused() {
    let kernel = kernel();
    kernel.intrusions.store(MAX_TRIES, Ordering::SeqCst);
    let error = refusal(&kernel, &["another process wrote to", "cloister-0", "find out which"]);
    assert!(matches!(error, TsmError::Moved { .. }));
    assert_eq!(kernel.intrusions.load(Ordering::SeqCst), 0, "no more tries than said");
}

#[test]
fn a_busy_tee_is_asked_again_and_then_refused() {
    let mut kernel = kernel();
    kernel.fails = Some(("outblob", 16));
    assert!(matches!(refusal(&kernel, &["in a row"]), TsmError::Moved { .. }));
}

#[test]
fn another_provider_is_refused() {
    let mut kernel = kernel();
    kernel.provider = "tdx_guest";
    let error = refusal(&kernel, &["tdx_guest", "sev_guest", "tee.kind"]);
    assert!(matches!(error, TsmError::OtherProvider { .. }));
}

#[test]
fn an_empty_or_too_long_outblob_is_refused() {
    let empty = FakeConfigfs::new("sev_guest", |_| (Vec::new(), Vec::new()));
    refusal(&empty, &["outblob", "empty", "kernel's log"]);
    let long = FakeConfigfs::new("sev_guest", |_| (vec![1; MAX_OUTBLOB_LEN + 1], Vec::new()));
    refusal(&long, &["outblob", "longer than any report"]);
    let long = FakeConfigfs::new("sev_guest", |_| {
        (vec![1; MAX_OUTBLOB_LEN], vec![1; MAX_AUXBLOB_LEN + 1])
    });
    refusal(&long, &["auxblob", "longer"]);
    let longest = FakeConfigfs::new("sev_guest", |_| (vec![1; MAX_OUTBLOB_LEN], vec![1; MAX_AUXBLOB_LEN]));
    assert!(collect(&longest).is_ok());
}

#[test]
fn a_generation_that_is_no_number_is_refused() {
    let mut kernel = kernel();
    for text in ["", "one\n", "-1\n", "0\n\n", "18446744073709551616\n"] {
        kernel.generation = Some(text);
        refusal(&kernel, &["generation", "not a number"]);
    }
    kernel.generation = Some("0000000000000000000000000000000000000000000000000000000000000000\n");
    refusal(&kernel, &["generation", "longer than one line"]);
}

#[test]
fn permission_denied_says_on_what_and_what_to_do() {
    for (operation, errno) in [("make", 13), ("inblob", 13), ("outblob", 13), ("provider", 1)] {
        let mut kernel = kernel();
        kernel.fails = Some((operation, errno));
        let path = if operation == "make" { "cloister-0" } else { operation };
        let error = refusal(&kernel, &["may not", path, "run as root"]);
        assert!(matches!(error, TsmError::Denied { .. }), "{operation}");
    }
}

#[test]
fn a_kernel_without_provider_or_interface_says_so() {
    let mut kernel = kernel();
    kernel.fails = Some(("make", 6));
    refusal(&kernel, &["no TEE answers", "modprobe sev-guest"]);
    let absent = Configfs::new(PathBuf::from("/nonexistent/tsm/report"));
    let error = tsm::report(&absent, Provider::TdxGuest, &DATA).unwrap_err();
    assert!(matches!(error, TsmError::Absent(_)), "{error}");
    assert!(error.to_string().contains("Linux 6.7"), "{error}");
}

#[test]
fn other_failures_name_the_file() {
    for (operation, words) in [
        ("make", ["cannot make", "cloister-0"]),
        ("inblob", ["cannot write", "inblob"]),
        ("outblob", ["cannot read", "outblob"]),
        ("auxblob", ["cannot read", "auxblob"]),
    ] {
        let mut kernel = kernel();
        kernel.fails = Some((operation, 5));
        refusal(&kernel, &words);
    }
}

#[test]
fn a_left_over_request_is_passed_by_and_too_many_are_refused() {
    let kernel = kernel();
    let dir = kernel.dir();
    fs::create_dir(dir.path().join("cloister-0")).unwrap();
    let made = tsm::report(&kernel, Provider::SevGuest, &DATA).unwrap();
    assert_eq!(made.outblob, [0xab; 128]);
    assert_eq!(left(dir.path()), ["cloister-0"], "another's request is not touched");
    for number in 1..MAX_ENTRIES {
        fs::create_dir(dir.path().join(format!("cloister-{number}"))).unwrap();
    }
    let error = tsm::report(&kernel, Provider::SevGuest, &DATA).unwrap_err();
    assert!(matches!(error, TsmError::Occupied { .. }), "{error}");
    assert!(error.to_string().contains("rmdir"), "{error}");
}

#[test]
fn a_request_that_cannot_be_removed_is_an_error() {
    let mut kernel = kernel();
    kernel.fails = Some(("remove", 16));
    let error = tsm::report(&kernel, Provider::SevGuest, &DATA).unwrap_err().to_string();
    assert!(
        error.contains("cannot remove") && error.contains("cloister-0"),
        "{error}"
    );
}

#[test]
fn the_provider_is_told_without_a_report() {
    let kernel = kernel();
    assert_eq!(tsm::provider(&kernel).unwrap(), "sev_guest");
    assert_eq!(left(kernel.dir().path()), [""; 0]);
}
