//! `cloister appraise` over the real evidence, and over what is none.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cases::{Case, expected, read};
use super::run::{Run, cloister};
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T00:00:00Z";

/// Runs the command with the bundle on standard input.
fn appraise(bundle: &[u8], arguments: &[&str]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloister"))
        .args(["appraise", "-"])
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command line that is refused is so before its input is read.
    let _ = child.stdin.take().unwrap().write_all(bundle);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn genuine(bundle: &Value) -> Run {
    appraise(
        bundle.to_string().as_bytes(),
        &["--policy", "genuine", "--now", NOW, "--output", "json"],
    )
}

fn case(id: &str) -> Case {
    expected().cases.into_iter().find(|case| case.id == id).unwrap()
}

fn run_case(case: &Case, output: &str) -> Run {
    let rims = tempfile::tempdir().unwrap();
    for path in &case.rims {
        fs::write(rims.path().join(path.file_name().unwrap()), read(path)).unwrap();
    }
    let folder = rims.path().to_str().unwrap();
    let mut arguments = vec![
        "--policy", "genuine", "--now", &case.now, "--output", output, "--rims", folder,
    ];
    if let Some(nonce) = &case.nonce {
        arguments.extend(["--nonce", nonce]);
    }
    appraise(case.bundle().to_string().as_bytes(), &arguments)
}

#[test]
fn every_piece_of_real_evidence_has_its_status_and_exit_code() {
    for case in expected().cases {
        let run = run_case(&case, "json");
        let (json, affirming) = (run.json(), case.status == "affirming");
        assert_eq!(json["status"], case.status, "{}: {json:#}", case.id);
        assert_eq!(run.code, i32::from(!affirming), "{}", case.id);
        if let Some(reason) = &case.reason {
            let said = json.to_string().to_lowercase();
            assert!(said.contains(&reason.to_lowercase()), "{}: {json:#}", case.id);
        }
        for (name, tiers) in &case.submods {
            let vector = &json["submods"][name]["trustworthiness"];
            assert_eq!(vector["hardware"], tiers.hardware, "{}: {json:#}", case.id);
            assert_eq!(vector["executables"], tiers.executables, "{}: {json:#}", case.id);
        }
    }
}

#[test]
fn text_has_a_line_for_each_check_and_ends_with_the_status() {
    for (id, mark, code) in [
        ("snp-genoa-v5-oak", "✓", 0),
        ("snp-milan-vlek-level-1", "!", 1),
        ("snp-vlek-expired", "✗", 1),
    ] {
        let case = case(id);
        let run = run_case(&case, "text");
        assert_eq!(run.code, code, "{}", run.stdout);
        let last = format!("status: {}", case.status);
        assert_eq!(run.stdout.lines().last(), Some(last.as_str()));
        let marked = run.stdout.lines().any(|line| line.trim_start().starts_with(mark));
        assert!(marked, "{}", run.stdout);
    }
}

#[test]
fn genuine_says_that_it_is_no_policy_to_run_on() {
    let run = genuine(&case("snp-genoa-v5-oak").bundle());
    assert!(run.stderr.contains("no policy to run on"), "{}", run.stderr);
}

#[test]
fn an_empty_policy_affirms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, "{}").unwrap();
    for id in ["snp-genoa-v5-oak", "tdx-v4-phala"] {
        let case = case(id);
        let bundle = case.bundle().to_string();
        let arguments = [
            "--policy",
            policy.to_str().unwrap(),
            "--now",
            &case.now,
            "--output",
            "json",
        ];
        let run = appraise(bundle.as_bytes(), &arguments);
        assert_eq!((run.code, &run.json()["status"]), (1, &"contraindicated".into()));
    }
}

#[test]
fn a_bundle_can_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.json");
    fs::write(&path, case("snp-genoa-v5-oak").bundle().to_string()).unwrap();
    let arguments = ["appraise", path.to_str().unwrap(), "--policy", "genuine", "--now", NOW];
    assert_eq!(cloister(&arguments, &[]).code, 0);
}

#[test]
fn a_result_is_signed_only_with_a_key() {
    let bundle = case("snp-genoa-v5-oak").bundle().to_string();
    let arguments = ["--policy", "genuine", "--now", NOW, "--output", "jwt"];
    let run = appraise(bundle.as_bytes(), &arguments);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("openssl genpkey"), "{}", run.stderr);
    let other = cloister(&["tenant", "show", "x", "--output", "jwt"], &[]);
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("appraise only"), "{}", other.stderr);
}

/// The command must say `place` and end with 2.
fn malformed(bundle: &[u8], place: &str) {
    let run = appraise(bundle, &["--policy", "genuine", "--now", NOW]);
    assert_eq!(run.code, 2, "{place}: {}{}", run.stdout, run.stderr);
    assert!(run.stdout.is_empty(), "{}", run.stdout);
    assert!(run.stderr.contains(place), "{place} is not in: {}", run.stderr);
}

fn composite() -> Value {
    let mut bundle = case("cpu-and-gpu").bundle();
    bundle["nonce"] = "ab".repeat(32).into();
    bundle
}

#[test]
fn each_field_missing_or_of_another_type_is_named() {
    let fields = [
        "/cpu/tee",
        "/cpu/report",
        "/cpu/vek",
        "/devices/0/arch",
        "/devices/0/evidence",
        "/devices/0/certificate",
    ];
    for pointer in fields {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut missing = composite();
        missing
            .pointer_mut(parent)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove(name);
        malformed(missing.to_string().as_bytes(), name);
        for wrong in [json!(1), json!([]), json!({})] {
            let mut bundle = composite();
            *bundle.pointer_mut(pointer).unwrap() = wrong;
            malformed(bundle.to_string().as_bytes(), "standard input");
        }
    }
    for pointer in [
        "/cpu/report",
        "/cpu/vek",
        "/devices/0/evidence",
        "/devices/0/certificate",
        "/nonce",
    ] {
        let mut bundle = composite();
        *bundle.pointer_mut(pointer).unwrap() = "%".into();
        malformed(bundle.to_string().as_bytes(), pointer.rsplit('/').next().unwrap());
    }
    let mut collateral = case("tdx-v4-phala").bundle();
    collateral["cpu"]["collateral"]
        .as_object_mut()
        .unwrap()
        .remove("tcb_info");
    malformed(collateral.to_string().as_bytes(), "tcb_info");
}

#[test]
fn oversized_fields_are_named() {
    for (pointer, length) in [
        ("/cpu/report", 1 << 17),
        ("/cpu/vek", 1 << 17),
        ("/devices/0/evidence", 1 << 17),
    ] {
        let mut bundle = composite();
        *bundle.pointer_mut(pointer).unwrap() = "A".repeat(length).into();
        malformed(bundle.to_string().as_bytes(), pointer.rsplit('/').next().unwrap());
    }
    let mut many = composite();
    many["devices"] = vec![many["devices"][0].clone(); 17].into();
    malformed(many.to_string().as_bytes(), "devices");
    malformed(&vec![b' '; 1 << 21], "longer than");
}

#[test]
fn what_is_no_json_object_is_refused_with_a_hint() {
    let report = String::from_utf8(read("nvidia/e2e_pass/report.hex")).unwrap();
    for input in [
        report.as_bytes(),
        b"",
        b"[]",
        b"\"\"",
        b"-----BEGIN CERTIFICATE-----",
        &read("snp/oak_genoa.bin"),
    ] {
        malformed(input, "not a JSON object");
    }
    malformed(b"{}", "no evidence");
    malformed(b"{\"extra\": 1}", "extra");
}

#[test]
fn a_truncated_bundle_is_refused_wherever_it_ends() {
    let whole = composite().to_string();
    for end in (1..whole.len()).step_by(whole.len() / 40) {
        malformed(&whole.as_bytes()[..end], "standard input");
    }
}

#[test]
fn options_that_cannot_be_read_are_named() {
    let bundle = composite().to_string();
    let run = |arguments: &[&str]| appraise(bundle.as_bytes(), arguments);
    let with = |option: &'static str, value: &'static str| {
        let mut arguments = vec!["--policy", "genuine", "--now", NOW];
        arguments.extend([option, value]);
        arguments
    };
    for (arguments, place) in [
        (vec!["--policy", "genuine", "--now", "yesterday"], "--now"),
        (vec!["--policy", "genuine", "--now", "1969-12-31T23:59:59Z"], "--now"),
        (with("--nonce", "xyz"), "--nonce"),
        (with("--nonce", ""), "--nonce"),
        (with("--rims", "/no/such/folder"), "/no/such/folder"),
        (vec!["--policy", "/no/such/policy", "--now", NOW], "/no/such/policy"),
    ] {
        let run = run(&arguments);
        assert_eq!(run.code, 2, "{place}: {}", run.stderr);
        assert!(run.stderr.contains(place), "{place}: {}", run.stderr);
    }
    let missing = cloister(
        &["appraise", "/no/such/bundle", "--policy", "genuine", "--now", NOW],
        &[],
    );
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("/no/such/bundle"), "{}", missing.stderr);
}

#[test]
fn a_policy_that_does_not_parse_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, "unknownKey: 1").unwrap();
    let bundle = composite().to_string();
    let run = appraise(bundle.as_bytes(), &["--policy", policy.to_str().unwrap(), "--now", NOW]);
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("policy.yaml") && run.stderr.contains("unknownKey"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_unreadable_manifest_is_reported_and_hides_no_other() {
    let case = case("gpu-hopper-complete");
    let rims = tempfile::tempdir().unwrap();
    for path in &case.rims {
        fs::write(rims.path().join(path.file_name().unwrap()), read(path)).unwrap();
    }
    fs::write(rims.path().join("broken.xml"), b"<SoftwareIdentity").unwrap();
    std::os::unix::fs::symlink(Path::new("/no/such/file"), rims.path().join("dangling.swidtag")).unwrap();
    let folder = rims.path().to_str().unwrap();
    let arguments = ["--policy", "genuine", "--now", &case.now, "--rims", folder];
    let run = appraise(case.bundle().to_string().as_bytes(), &arguments);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    for name in ["broken.xml", "dangling.swidtag"] {
        assert!(run.stderr.contains(name), "{}", run.stderr);
    }
}
