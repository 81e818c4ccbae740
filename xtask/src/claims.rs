//! The claims of SECURITY.md, each with the test that holds it: a test that is named must exist.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Result, bail},
    workspace::root,
};

const DOCUMENT: &str = "SECURITY.md";
/// How the document says what a name looks like.
const FORM: (&str, &str) = ("folder", "test");

/// Folders of a package in which its tests are.
const PLACES: [&str; 2] = ["src", "tests"];

/// Checks that every `folder::test` of the document is a test in that folder's package.
///
/// # Errors
///
/// Names the tests that do not exist.
pub(crate) fn check() -> Result<()> {
    let document = root().join(DOCUMENT);
    let text = fs::read_to_string(&document).context(document.display())?;
    let mut sources = BTreeMap::new();
    let mut missing = Vec::new();
    for (folder, test) in named(&text) {
        if !sources.contains_key(folder) {
            sources.insert(folder, tests_of(&root().join(folder))?);
        }
        if !sources.get(folder).is_some_and(|source| has_test(source, test)) {
            missing.push(format!("{folder}::{test}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{DOCUMENT} names tests that do not exist:\n  {}", missing.join("\n  "))
}

/// Every `folder::test` between backquotes. Paths of code, which name types and methods, are not of this form.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_folder = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || "/-".contains(c));
    let is_test = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|code| code.split_once("::"))
        .filter(move |name| *name != FORM && is_folder(name.0) && is_test(name.1))
}

/// All source text of a package in which tests can be; empty if there is no such package.
fn tests_of(package: &Path) -> Result<String> {
    let mut text = String::new();
    let mut folders: Vec<PathBuf> = PLACES.iter().map(|place| package.join(place)).collect();
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder).context(folder.display())? {
            let path = entry.context(folder.display())?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).context(path.display())?);
            }
        }
    }
    Ok(text)
}

/// Whether a function of this name is run as a test: `#[test]` or `#[tokio::test]` is among the attributes above it, `#[ignore]` is
/// not.
fn has_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let is_head = |line: &str| line.strip_prefix("async ").unwrap_or(line).starts_with(&head);
    let mut heads = (0..lines.len()).filter(|&index| lines.get(index).is_some_and(|line| is_head(line)));
    heads.any(|index| {
        let above = lines.iter().take(index).rev();
        let attributes = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let has = |name| attributes.clone().any(|line| line.starts_with(name));
        (has("#[test]") || has("#[tokio::test")) && !has("#[ignore")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_tests_are_read() {
        let text = "A name is `folder::test`.\n| a | `session::replayed`, `enclave/lease::no_walk` |\ncode: `Type::method`, `cargo xtask`, plain::text";
        assert_eq!(
            named(text).collect::<Vec<_>>(),
            [("session", "replayed"), ("enclave/lease", "no_walk")]
        );
    }

    #[test]
    fn only_what_is_run_is_a_test() {
        let source = "#[tokio::test(start_paused = true)]\n// Why.\n#[expect(x)]\nasync fn one() {}\n#[test]\nfn two() {}\n\n#[test]\n\nfn three() {}\n    #[test]\n    fn four(a: u8) {}\nfn five() {}\n#[test]\n#[ignore = \"slow\"]\nfn six() {}";
        let found = ["one", "two", "three", "four", "five", "six"].map(|name| has_test(source, name));
        assert_eq!(found, [true, true, false, true, false, false]);
    }

    #[test]
    fn a_test_is_found_by_its_whole_name() {
        let own = tests_of(&root().join("xtask")).unwrap();
        assert!(has_test(&own, "a_test_is_found_by_its_whole_name"));
        assert!(!has_test(&own, "a_test_is_found"));
        assert!(!has_test(&own, "tests_of"), "a function that is no test");
        assert_eq!(tests_of(&root().join("no/such/package")).unwrap(), "");
    }
}
