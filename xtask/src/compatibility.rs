//! The compatibility table of the README: what the tests with the official client run.
//!
//! Those tests fail unless `tests/e2e/compatibility.json` is exactly what passed; here it becomes Markdown.

use std::{fmt::Write, fs, path::Path};

use serde_json::Value;

use crate::{
    error::{Context, Result, bail},
    workspace::root,
};

const TABLE: &str = "tests/e2e/compatibility.json";
const README: &str = "README.md";
const BEGIN: &str = "<!-- compatibility:begin -->\n";
const END: &str = "<!-- compatibility:end -->";

/// Writes the table into the README, or with `check` only compares.
///
/// # Errors
///
/// The table is not as the tests write it, the README has no place for it, or with `check` the README differs.
pub(crate) fn generate(check: bool) -> Result<()> {
    let path = root().join(README);
    let old = fs::read_to_string(&path).context(README)?;
    let new = replaced(&old, &markdown(&read(&root().join(TABLE))?)?)?;
    if old == new {
        return Ok(());
    }
    if check {
        bail!("the compatibility table in {README} is not that of {TABLE}: run `cargo xtask gen`");
    }
    fs::write(&path, new).context(README)
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).context(path.display())?;
    serde_json::from_str(&text).context(path.display())
}

/// The table in Markdown; an endpoint is named in the first of its rows.
fn markdown(table: &Value) -> Result<String> {
    let mut text = String::from("| endpoint | feature | |\n|---|---|---|\n");
    let mut last = "";
    for row in table.as_array().map(Vec::as_slice).unwrap_or_default() {
        let field = |name: &str| match row.get(name).and_then(Value::as_str) {
            Some(text) if !text.contains(['|', '\n']) => Ok(text),
            _ => bail!("{TABLE}: a row has no text {name}, or one that a table cannot hold"),
        };
        let (endpoint, feature, note) = (field("endpoint")?, field("feature")?, field("note")?);
        let shown = match endpoint {
            _ if endpoint == last => String::new(),
            // A method and a path, or words.
            _ if endpoint.contains('/') => format!("`{endpoint}`"),
            _ => endpoint.to_owned(),
        };
        last = endpoint;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {shown} | {feature} | {note} |");
    }
    if last.is_empty() {
        bail!("{TABLE} has no rows: the tests with the official client write them");
    }
    Ok(text)
}

/// `text` with `table` between the marks.
fn replaced(text: &str, table: &str) -> Result<String> {
    if let Some((before, rest)) = text.split_once(BEGIN)
        && let Some((_, after)) = rest.split_once(END)
    {
        return Ok(format!("{before}{BEGIN}{table}{END}{after}"));
    }
    bail!("{README} has no line {} with {END} after it", BEGIN.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_become_a_table() {
        let table = json!([
            {"endpoint": "GET /v1/models", "feature": "List", "note": ""},
            {"endpoint": "GET /v1/models", "feature": "One", "note": "by `id`"},
            {"endpoint": "All", "feature": "Errors", "note": ""},
        ]);
        assert_eq!(
            markdown(&table).unwrap(),
            "| endpoint | feature | |\n|---|---|---|\n\
             | `GET /v1/models` | List |  |\n|  | One | by `id` |\n| All | Errors |  |\n"
        );
    }

    #[test]
    fn rows_that_are_not_right_are_refused() {
        for table in [
            json!([]),
            json!({}),
            json!([{"endpoint": "All", "feature": "a"}]),
            json!([{"endpoint": "All", "feature": "a | b", "note": ""}]),
        ] {
            assert!(markdown(&table).is_err(), "{table}");
        }
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("before\n{BEGIN}old\n{END}\nafter\n");
        assert_eq!(
            replaced(&text, "new\n").unwrap(),
            format!("before\n{BEGIN}new\n{END}\nafter\n")
        );
        assert!(replaced("nothing here", "new\n").is_err());
    }
}
