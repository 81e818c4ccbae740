//! `cloister collateral`: what is fetched, what is shown, and how it ends.

use crate::run::cloister;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

const IN_TIME: &str = "2026-02-20T00:00:00Z";
const LATE: &str = "2027-01-01T00:00:00Z";

fn data(path: &str) -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../attestation/testdata/");
    std::fs::read(format!("{root}{path}")).unwrap()
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn tdx_store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let collateral = data("tdx/assembled/phala_90c06f_2026-02_collateral_nopck.json");
    put(dir.path(), "intel/90c06f000000/platform.json", &collateral);
    put(
        dir.path(),
        "amd/Milan/cert_chain.pem",
        &data("snp/sev_cert_chain_milan.pem"),
    );
    dir
}

fn states(json: &Value) -> Vec<String> {
    let files = json["files"].as_array().unwrap();
    files
        .iter()
        .map(|file| file["state"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn show_lists_ends_and_exits_1_when_something_has_expired() {
    let dir = tdx_store();
    let store = dir.path().to_str().unwrap();
    let good = cloister(
        &["collateral", "show", "--store", store, "--now", IN_TIME, "-o", "json"],
        &[],
    );
    assert_eq!(
        (good.code, states(&good.json())),
        (0, vec!["good".to_owned(), "good".to_owned()])
    );
    // By the variable that the proxy has too.
    let variables = [("CLOISTER_COLLATERAL", store)];
    let late = cloister(&["collateral", "show", "--now", LATE, "-o", "json"], &variables);
    assert_eq!(
        (late.code, states(&late.json())),
        (1, vec!["good".to_owned(), "expired".to_owned()])
    );
    let text = cloister(&["collateral", "show", "--now", LATE], &variables).stdout;
    assert!(
        text.contains("✗ intel/90c06f000000/platform.json: EXPIRED 2026-03-"),
        "{text}"
    );
    put(dir.path(), "amd/Milan/crl.der", b"<html>");
    let broken = cloister(&["collateral", "show", "--now", IN_TIME], &variables);
    assert_eq!(broken.code, 1);
    assert!(
        broken.stdout.contains("✗ amd/Milan/crl.der: not a revocation list"),
        "{}",
        broken.stdout
    );
}

#[test]
fn an_offline_check_says_what_is_missing() {
    let dir = tdx_store();
    let store = dir.path().to_str().unwrap();
    let quote = data("tdx/gotdx_quote_v5_sample.dat");
    let bundle = json!({ "cpu": { "tee": "tdx", "quote": base64(&quote) } }).to_string();
    let path = dir.path().join("bundle.json");
    std::fs::write(&path, bundle).unwrap();
    let arguments = ["collateral", "fetch", "--offline-check", "--store", store];
    let needed = |more: &[&str]| cloister(&[&arguments, more, &["-o", "json"]].concat(), &[]).json()["needed"].clone();
    let of_quote = needed(&["--for", path.to_str().unwrap()]);
    assert_eq!(of_quote[0]["need"], "Intel collateral of 90c06f000000 (platform)");
    assert_eq!(of_quote[0]["file"]["name"], "intel/90c06f000000/platform.json");
    let missing = needed(&["--rim", "NV_GPU_DRIVER_GH100_550.144.03"]);
    assert_eq!(missing[0]["file"], Value::Null);
    let run = cloister(
        &[&arguments[..], &["--rim", "NV_GPU_DRIVER_GH100_550.144.03"]].concat(),
        &[],
    );
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("not in the store"), "{}", run.stdout);
}

#[test]
fn what_is_there_is_fetched_and_what_is_not_is_told() {
    let url = serve(|path| match path {
        "/vcek/v1/Milan/cert_chain" => Some(data("snp/sev_cert_chain_milan.pem")),
        _ => None,
    });
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("new");
    let arguments = ["collateral", "fetch", "--crl", "Milan", "--amd-kds", &url, "--store"];
    let run = cloister(
        &[&arguments[..], &[store.to_str().unwrap(), "-o", "json"]].concat(),
        &[],
    );
    assert_eq!((run.code, run.stderr.as_str()), (1, ""), "quiet in a pipe");
    let json = run.json();
    assert_eq!(json["complete"], false);
    assert_eq!(json["fetched"][0]["file"]["name"], "amd/Milan/cert_chain.pem");
    let error = json["fetched"][1]["error"].as_str().unwrap();
    assert!(error.contains(&url) && error.contains("not found"), "{error}");
    let kept = std::fs::read(store.join("amd/Milan/cert_chain.pem")).unwrap();
    assert_eq!(kept, data("snp/sev_cert_chain_milan.pem"));
}

#[test]
fn addresses_and_ids_are_checked_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().to_str().unwrap();
    let fetch = |more: &[&str]| cloister(&[&["collateral", "fetch", "--store", store], more].concat(), &[]);
    for bad in [
        ["--amd-kds", "http://kdsintf.amd.com"],
        ["--crl", "../Milan"],
        ["--fmspc", "../../etc/pw"],
        ["--ca", "other"],
    ] {
        assert_eq!(fetch(&bad).code, 2, "{bad:?}");
    }
    let run = fetch(&["--rim", "../x", "--nvidia-rim", "http://127.0.0.1:9"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("RIM id"), "{}", run.stdout);
}

/// Answers requests in turn, on threads of their own for ever.
fn serve(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let path = first.split(' ').nth(1).unwrap();
            let (status, body) = answer(path).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    url
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
