//! Reads what test programs print: how many tests passed, failed and were skipped, and why.

use std::{fmt, ops::AddAssign};

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

/// A line of the tests' output, as the reader of the whole run sees it.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line<'a> {
    /// To be shown.
    Shown(&'a str),
    /// One of the many that only say that all is well.
    Hidden,
}

/// Follows the output of `cargo test -- --show-output`.
///
/// A test that cannot run on this machine prints `skipped: REASON` and returns. The test runner counts it as passed and
/// hides its output, hence `--show-output`; here it is counted as skipped, and the output of passed tests is hidden again.
#[derive(Debug, Default)]
pub(super) struct CargoTest {
    counts: Counts,
    skipped: Vec<String>,
    /// In the part that repeats the output of passed tests, and the one of them whose output it is, until it says that it
    /// was skipped.
    in_successes: bool,
    test: Option<String>,
    /// Skipped tests that the next result counts as passed.
    passed_by_skipping: u64,
}

// === impl Counts ===

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl Counts {
    /// Reads `N passed, N failed` with an optional `, N skipped`: the closing line of a test script.
    pub(super) fn from_closing_line(line: &str) -> Option<Self> {
        let mut parts = line.trim().split(", ");
        let counts = Self {
            passed: number(parts.next()?, "passed")?,
            failed: number(parts.next()?, "failed")?,
            skipped: match parts.next() {
                Some(part) => number(part, "skipped")?,
                None => 0,
            },
        };
        parts.next().is_none().then_some(counts)
    }

    /// Reads `test result: ok. N passed; N failed; N ignored; …`: the closing line of each of Rust's test programs.
    fn from_test_result(line: &str) -> Option<Self> {
        let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut parts = numbers.split("; ");
        Some(Self {
            passed: number(parts.next()?, "passed")?,
            failed: number(parts.next()?, "failed")?,
            skipped: number(parts.next()?, "ignored")?,
        })
    }
}

fn number(text: &str, unit: &str) -> Option<u64> {
    text.strip_suffix(unit)?.trim_end().parse().ok()
}

// === impl CargoTest ===

impl CargoTest {
    /// Takes the next line, without its end.
    pub(super) fn line<'a>(&mut self, line: &'a str) -> Line<'a> {
        if let Some(mut counts) = Counts::from_test_result(line) {
            let moved = std::mem::take(&mut self.passed_by_skipping).min(counts.passed);
            counts.passed -= moved;
            counts.skipped += moved;
            self.counts += counts;
            self.in_successes = false;
            return Line::Shown(line);
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if self.in_successes {
            self.success(line);
            return Line::Hidden;
        }
        if let Some((test, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            if let Some(reason) = verdict.strip_prefix("ignored") {
                let reason = reason
                    .strip_prefix(", ")
                    .unwrap_or("ignored in the code, which gives no reason");
                self.skipped.push(format!("{test}: {reason}"));
            }
            if verdict == "ok" || verdict.starts_with("ignored") {
                return Line::Hidden;
            }
        }
        if line.is_empty() || line.starts_with("running ") {
            Line::Hidden
        } else {
            Line::Shown(line)
        }
    }

    fn success(&mut self, line: &str) {
        if let Some(test) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.test = Some(test.to_owned());
        }
        // The first reason of a test is the one that counts.
        if let Some(reason) = line.strip_prefix("skipped: ")
            && let Some(test) = self.test.take()
        {
            self.skipped.push(format!("{test}: {reason}"));
            self.passed_by_skipping += 1;
        }
    }

    /// The sum over all test programs, and one line per skipped test.
    pub(super) fn finish(self) -> (Counts, Vec<String>) {
        (self.counts, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(output: &str) -> (Vec<&str>, Counts, Vec<String>) {
        let mut reader = CargoTest::default();
        let shown = output
            .lines()
            .filter(|line| reader.line(line) == Line::Shown(line))
            .collect();
        let (counts, skipped) = reader.finish();
        (shown, counts, skipped)
    }

    #[test]
    fn sums_test_programs_and_hides_what_passed() {
        let (shown, counts, skipped) = follow(
            "\nrunning 3 tests\ntest a::b ... ok\ntest c ... ignored, takes hours\ntest d ... ignored\n\nsuccesses:\n\n\
             ---- a::b stdout ----\nnoise\n\n\nsuccesses:\n    a::b\n\n\
             test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
             running 1 test\ntest e - should panic ... ok\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert_eq!(
            counts,
            Counts {
                passed: 2,
                failed: 0,
                skipped: 2
            }
        );
        assert_eq!(
            skipped,
            ["c: takes hours", "d: ignored in the code, which gives no reason"]
        );
    }

    #[test]
    fn shows_failures() {
        let (shown, counts, _) = follow(
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nnoise\n\nsuccesses:\n    a\n\n\
             failures:\n\n---- b stdout ----\nassertion failed\n\nfailures:\n    b\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            counts,
            Counts {
                passed: 1,
                failed: 1,
                skipped: 0
            }
        );
        assert!(
            shown.contains(&"assertion failed") && shown.contains(&"test b ... FAILED"),
            "{shown:?}"
        );
        assert!(!shown.contains(&"noise"), "{shown:?}");
    }

    #[test]
    fn a_test_that_says_so_is_skipped_not_passed() {
        let (_, counts, skipped) = follow(
            "successes:\n\n---- real stdout ----\nskipped: no engine\nskipped: no model\n\n---- plain stdout ----\nhello\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            counts,
            Counts {
                passed: 2,
                failed: 0,
                skipped: 1
            }
        );
        assert_eq!(skipped, ["real: no engine"]);
    }

    #[test]
    fn closing_lines_are_read_exactly() {
        let counts = |passed, failed, skipped| {
            Some(Counts {
                passed,
                failed,
                skipped,
            })
        };
        assert_eq!(Counts::from_closing_line("3 passed, 1 failed"), counts(3, 1, 0));
        assert_eq!(
            Counts::from_closing_line("3 passed, 0 failed, 2 skipped\n"),
            counts(3, 0, 2)
        );
        for line in [
            "",
            "3 passed",
            "all passed, 0 failed",
            "3 passed, 1 failed, 1 skipped, 1 lost",
            "-1 passed, 0 failed",
        ] {
            assert_eq!(Counts::from_closing_line(line), None, "{line}");
        }
        assert_eq!(
            Counts {
                passed: 3,
                failed: 1,
                skipped: 2
            }
            .to_string(),
            "3 passed, 1 failed, 2 skipped"
        );
    }
}
