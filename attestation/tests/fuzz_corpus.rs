//! The functions that cargo-fuzz calls, on the real evidence and on simple changes of it, without cargo-fuzz.

use std::path::{Path, PathBuf};
use std::{env, fs};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

#[path = "../fuzz/targets.rs"]
mod targets;

/// Changes of one file for one target, by the tier of the tests.
fn changes() -> usize {
    match env::var("CLOISTER_TEST_TIER").as_deref() {
        Ok("full") => 512,
        _ => 12,
    }
}

/// Larger files are event logs, which no target reads.
const MAX_LEN: u64 = 128 * 1024;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.metadata().unwrap().len() <= MAX_LEN {
            found.push(path);
        }
    }
}

/// A file, and what it is the hex or base64 of.
fn readings(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let text: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let decoded = hex::decode(&text).ok().or_else(|| BASE64_STANDARD.decode(&text).ok());
    [Some(bytes), decoded].into_iter().flatten().collect()
}

/// Numbers that are the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

fn changed(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = numbers.below(bytes.len());
    match numbers.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_within(at..),
        2 => drop(bytes.drain(at..(at + 8).min(bytes.len()))),
        3 => bytes[at..].fill(0xff),
        4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
        _ => bytes[at] ^= 1 << numbers.below(8),
    }
    bytes
}

#[test]
fn every_target_comes_back_from_the_real_evidence_and_from_changes_of_it() {
    let mut corpus = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"), &mut corpus);
    corpus.sort();
    assert!(corpus.len() > 80, "{}", corpus.len());
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for bytes in corpus.iter().flat_map(|path| readings(path)) {
        for (_, target) in targets::TARGETS {
            target(&bytes);
            for _ in 0..changes() {
                target(&changed(&bytes, &mut numbers));
            }
        }
    }
    for (_, target) in targets::TARGETS {
        target(&[]);
    }
}

#[test]
fn every_target_is_fuzzed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), targets::TARGETS.len());
    for (name, _) in targets::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let program = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("targets::{name}(data)")), "{name}");
    }
}
