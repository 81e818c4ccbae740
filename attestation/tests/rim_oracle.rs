//! The verifier of reference manifests against an independent one in Python (`oracle/rim.py`): lxml's canonical XML and
//! OpenSSL's signatures.
//!
//! Skipped where `CLOISTER_RIM_ORACLE` does not name a folder with the packages of `oracle/requirements.txt`; `cargo xtask test`
//! fetches them and names it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cloister_attestation::UnixTime;
use cloister_attestation::nvidia::rim::{RimRefusal, c14n, verify, xml};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

/// Generated documents; all of them in one run of Python.
const DOCUMENTS: usize = 400;

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The oracle with `arguments`; nothing, said why, where its packages are not.
fn oracle(arguments: &[&Path], input: &str) -> Option<Value> {
    let Some(packages) = env::var_os("CLOISTER_RIM_ORACLE") else {
        println!(
            "skipped: CLOISTER_RIM_ORACLE names no folder with lxml and cryptography (cargo xtask test fetches them)"
        );
        return None;
    };
    let mut child = Command::new("python3")
        .arg(crate_dir().join("oracle/rim.py"))
        .args(arguments)
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// All manifests of the test data as XML.
fn manifests(scratch: &Path) -> Vec<PathBuf> {
    let data = crate_dir().join("testdata/nvidia");
    let mut found = Vec::new();
    for folder in ["rims", "e2e_pass"] {
        for entry in fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("swidtag" | "xml") => found.push(path),
                Some("b64") => {
                    let text: String = fs::read_to_string(&path).unwrap().split_whitespace().collect();
                    let decoded = scratch.join("decoded.swidtag");
                    fs::write(&decoded, BASE64_STANDARD.decode(text).unwrap()).unwrap();
                    found.push(decoded);
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_oracle_agrees_on_every_manifest() {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let files = manifests(&scratch);
    assert_eq!(files.len(), 18);
    let root = crate_dir().join("testdata/nvidia/roots/verifier_RIM_root.pem");
    let arguments = [Path::new("verify"), &root]
        .into_iter()
        .chain(files.iter().map(PathBuf::as_path));
    let Some(found) = oracle(&arguments.collect::<Vec<_>>(), "") else {
        return;
    };
    let mut accepted = 0;
    for file in &files {
        let theirs = &found[file.to_str().unwrap()];
        let holds = |what: &str| theirs[what].as_bool().unwrap();
        assert!(holds("chain"), "{file:?}");
        // A second before its first certificate ends, so that only the signature and the content count.
        let now = UnixTime(theirs["notAfter"].as_u64().unwrap());
        match verify(&fs::read(file).unwrap(), now) {
            Ok(ours) => {
                accepted += 1;
                assert!(holds("digest") && holds("signature"), "{file:?}");
                assert_eq!(
                    (ours.tag_id(), ours.chip(), ours.version()),
                    (
                        theirs["tagId"].as_str().unwrap(),
                        theirs["name"].as_str().unwrap(),
                        theirs["version"].as_str().unwrap()
                    )
                );
                let active: BTreeMap<String, Vec<String>> = ours
                    .active()
                    .map(|(index, values)| (index.to_string(), values.iter().map(ToString::to_string).collect()))
                    .collect();
                assert_eq!(serde_json::to_value(active).unwrap(), theirs["active"], "{file:?}");
                assert_eq!(theirs["measurements"], ours.measurements().len());
                assert_eq!(ours.valid_until(), now);
                let begin = UnixTime(theirs["notBefore"].as_u64().unwrap());
                assert!(ours.is_valid_at(begin) && !ours.is_valid_at(UnixTime(begin.0 - 1)));
            }
            Err(RimRefusal::Digest) => assert!(!holds("digest"), "{file:?}"),
            Err(RimRefusal::Signature) => assert!(holds("digest") && !holds("signature"), "{file:?}"),
            Err(other) => panic!("{file:?}: {other}"),
        }
    }
    assert_eq!(accepted, 14);
}

#[test]
fn the_oracle_writes_the_same_canonical_form() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut documents: Vec<String> = (0..DOCUMENTS)
        .map(|_| element(0).new_tree(&mut runner).unwrap().current().render(&[]))
        .collect();
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    documents.extend(manifests(&scratch).iter().map(|file| fs::read_to_string(file).unwrap()));
    let encoded: Vec<String> = documents
        .iter()
        .map(|document| BASE64_STANDARD.encode(document))
        .collect();
    let Some(theirs) = oracle(&[Path::new("c14n")], &serde_json::to_string(&encoded).unwrap()) else {
        return;
    };
    for (document, theirs) in documents.iter().zip(theirs.as_array().unwrap()) {
        let parsed = xml::parse(document.as_bytes()).unwrap_or_else(|error| panic!("{error}: {document}"));
        let ours = c14n::document(&parsed, None);
        let theirs = BASE64_STANDARD.decode(theirs.as_str().unwrap()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&ours),
            String::from_utf8_lossy(&theirs),
            "{document:?}"
        );
        // What is canonical is its own canonical form, and says the same.
        let again = xml::parse(&ours).unwrap();
        assert_eq!(c14n::document(&again, None), ours, "{document:?}");
    }
}

/// An element to be written in one of the many ways that mean the same.
#[derive(Debug, Clone)]
struct Generated {
    prefix: usize,
    local: String,
    /// Declared whether it is used or not.
    declared: Vec<usize>,
    attributes: Vec<(usize, String, Vec<Piece>)>,
    children: Vec<Child>,
    space: &'static str,
    quote: char,
}

#[derive(Debug, Clone)]
enum Child {
    Element(Generated),
    Text(Vec<Piece>),
}

/// A character, as it is or as a reference.
#[derive(Debug, Clone)]
enum Piece {
    Plain(&'static str),
    Number(u32),
    Hexadecimal(u32),
    Named(&'static str),
}

/// Prefixes and what each is bound to wherever it is declared. Two have one namespace.
const PREFIXES: [(&str, &str); 4] = [
    ("", "http://default/"),
    ("b", "urn:z"),
    ("a", "http://a/?q=1#f"),
    ("c", "http://default/"),
];
/// No prefix; for an element without the default namespace, for an attribute without any.
const NO_PREFIX: usize = 4;

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        6 => prop::sample::select(vec!["x", "0", " ", "é", "😀", ">", "\t", "\n", "\r", "\r\n", "\u{85}", "\u{2028}"])
            .prop_map(Piece::Plain),
        1 => prop::sample::select(vec![9, 10, 13, 32, 34, 38, 60, 62, 0x85, 0xfffd, 0x1f600]).prop_map(Piece::Number),
        1 => prop::sample::select(vec![9, 10, 13, 39, 0x26, 0x3c, 0x41, 0x10ffff]).prop_map(Piece::Hexadecimal),
        1 => prop::sample::select(vec!["amp", "lt", "gt", "quot", "apos"]).prop_map(Piece::Named),
    ]
}

fn element(depth: u32) -> BoxedStrategy<Generated> {
    let attribute = (
        0..=NO_PREFIX,
        "[A-Za-z_][A-Za-z0-9_.-]{0,3}",
        prop::collection::vec(piece(), 0..8),
    );
    let text = prop::collection::vec(piece(), 1..8).prop_map(Child::Text);
    let child = match depth {
        0..3 => prop_oneof![element(depth + 1).prop_map(Child::Element), text].boxed(),
        _ => text.boxed(),
    };
    let tag = (
        0..=NO_PREFIX,
        "[A-Za-z_][A-Za-z0-9_.-]{0,3}",
        prop::collection::vec(0..PREFIXES.len(), 0..3),
    );
    let style = (
        prop::sample::select(vec![" ", "\n\t", "  "]),
        prop::sample::select(vec!['"', '\'']),
    );
    (
        tag,
        prop::collection::vec(attribute, 0..4),
        prop::collection::vec(child, 0..4),
        style,
    )
        .prop_map(
            |((prefix, local, declared), attributes, children, (space, quote))| Generated {
                prefix,
                local,
                declared,
                attributes,
                children,
                space,
                quote,
            },
        )
        .boxed()
}

impl Generated {
    /// The element in the scope of prefixes that are declared further out.
    fn render(&self, outer: &[usize]) -> String {
        let mut scope = outer.to_vec();
        let mut parts = Vec::new();
        // No default namespace unless it is meant, or in force already.
        let used = self
            .attributes
            .iter()
            .map(|(prefix, ..)| *prefix)
            .filter(|prefix| *prefix != 0);
        let used: Vec<usize> = used
            .chain([self.prefix])
            .filter(|prefix| *prefix != NO_PREFIX)
            .collect();
        let missing = used.iter().filter(|prefix| !outer.contains(prefix));
        let mut declared: Vec<usize> = missing.chain(&self.declared).copied().collect();
        declared.sort_unstable();
        declared.dedup();
        for prefix in declared.into_iter().rev() {
            let (name, uri) = PREFIXES[prefix];
            let name = if name.is_empty() {
                "xmlns".to_owned()
            } else {
                format!("xmlns:{name}")
            };
            parts.push(format!("{name}={q}{uri}{q}", q = self.quote));
            scope.push(prefix);
        }
        let mut seen = Vec::new();
        for (prefix, local, value) in &self.attributes {
            // Without a prefix an attribute has no namespace.
            let (prefix, uri) = match *prefix {
                0 | NO_PREFIX => ("", ""),
                prefix => PREFIXES[prefix],
            };
            if seen.contains(&(uri, local)) || local.eq_ignore_ascii_case("id") || local.starts_with("xml") {
                continue;
            }
            seen.push((uri, local));
            let name = qualified(prefix, local);
            parts.insert(
                parts.len() / 2,
                format!("{name} = {q}{}{q}", render_all(value, self.quote), q = self.quote),
            );
        }
        let prefix = PREFIXES.get(self.prefix).map_or("", |(prefix, _)| *prefix);
        let name = qualified(prefix, &self.local);
        let space = self.space;
        let head: String = parts.iter().map(|part| format!("{space}{part}")).collect();
        if self.children.is_empty() && space == "  " {
            return format!("<{name}{head}{space}/>");
        }
        let content: String = self.children.iter().map(|child| child.render(&scope)).collect();
        format!("<{name}{head}>{content}</{name}{space}>")
    }
}

impl Child {
    fn render(&self, scope: &[usize]) -> String {
        match self {
            Self::Element(element) => element.render(scope),
            Self::Text(pieces) => render_all(pieces, '"'),
        }
    }
}

fn qualified(prefix: &str, local: &str) -> String {
    match prefix {
        "" => local.to_owned(),
        prefix => format!("{prefix}:{local}"),
    }
}

fn render_all(pieces: &[Piece], quote: char) -> String {
    let render = |piece: &Piece| match piece {
        Piece::Plain(text) if text.starts_with(quote) => "&#34;".to_owned(),
        Piece::Plain(text) => (*text).to_owned(),
        Piece::Number(number) => format!("&#{number};"),
        Piece::Hexadecimal(number) => format!("&#x{number:X};"),
        Piece::Named(name) => format!("&{name};"),
    };
    pieces.iter().map(render).collect()
}
