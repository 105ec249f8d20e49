//! `docs/standards.md`, made from the dialogues, `tests/dialogs/standards.toml` and what Postfix was seen to answer.
//!
//! `PILLARBOX_BLESS=1` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use pillarbox_testkit::Dialog;

use super::postfix::Record;
use super::{folder, name, play};

/// A row of the table.
struct Row {
    key: String,
    standard: String,
    means: String,
    tests: Vec<String>,
    /// Why there is no test, where there is none.
    missing: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(folder().join("standards.toml")).unwrap();
    let table: toml::Table = toml::from_str(&text).unwrap_or_else(|e| panic!("standards.toml: {e}"));
    let rows = table["row"].as_array().unwrap_or_else(|| panic!("standards.toml holds no [[row]]"));
    let text = |row: &toml::Value, key: &str| row.get(key).and_then(toml::Value::as_str).unwrap_or_default().replace('\n', " ");
    rows.iter()
        .map(|row| Row {
            key: text(row, "key"),
            standard: text(row, "standard"),
            means: text(row, "means"),
            tests: row
                .get("tests")
                .and_then(toml::Value::as_array)
                .map(|tests| tests.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect())
                .unwrap_or_default(),
            missing: text(row, "missing"),
        })
        .collect()
}

fn all() -> Vec<Dialog> {
    Dialog::load_all(&folder()).unwrap_or_else(|e| panic!("{e}"))
}

/// What GitHub and others make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>();
    kept.replace(' ', "-")
}

/// A test as a link: `file`, `folder` or `file#test`.
fn link(test: &str) -> String {
    match test.split_once('#') {
        Some((file, test)) => format!("[{test}](../{file})"),
        None => format!("[{test}](../{test})"),
    }
}

fn page() -> String {
    let (rows, dialogs) = (rows(), all());
    let lines: usize =
        dialogs.iter().map(|d| std::fs::read_to_string(&d.path).unwrap().lines().filter(|l| l.starts_with(['C', 'R'])).count()).sum();
    let mut out = String::from(
        "# Standards\n\n<!-- Generated from tests/dialogs; edit the dialogues or tests/dialogs/standards.toml, then run the test standards_page_is_current with PILLARBOX_BLESS=1. -->\n\n",
    );
    write!(
        out,
        "What this server keeps, and the tests that show it. {} dialogues with {lines} lines of client input lie in `tests/dialogs`, a folder a\n\
         standard; a person can read them (`C:` is the client, `S:` the server, `pillarbox-testkit`'s `dialog` module says the rest). Each is\n\
         played against the real daemon over real sockets: in the clear and again inside TLS, submission on 587 and on 465, LMTP on TCP and on a Unix\n\
         socket, some octet by octet.\n\n\
         To play them against another server, whose users are those of `tests/e2e/dialogs/world.rs`:\n\n\
         ```sh\nPILLARBOX_DIALOG_TARGET=192.0.2.1:25 PILLARBOX_DIALOG_FILTER=rfc5321 \\\n    cargo nextest run -p pillarbox-tests -E 'test(another_server)' --no-capture\n```\n\n\
         `PILLARBOX_DIALOG_STARTTLS=1` plays them inside TLS, `PILLARBOX_DIALOG_LISTENER=submission` those of another port.\n\n\
         ## At a glance\n\n| standard | dialogues | other tests |\n| --- | --- | --- |\n",
        dialogs.len()
    )
    .unwrap();
    let of = |row: &Row| dialogs.iter().filter(|d| d.fact("row").lines().any(|r| r == row.key)).collect::<Vec<_>>();
    for row in &rows {
        writeln!(out, "| [{}](#{}) | {} | {} |", row.standard, anchor(&row.standard), of(row).len(), row.tests.len()).unwrap();
    }
    for row in &rows {
        write!(out, "\n## {}\n\n{}\n", row.standard, row.means).unwrap();
        if !row.missing.is_empty() {
            write!(out, "\n{}\n", row.missing).unwrap();
        }
        let dialogs = of(row);
        if !dialogs.is_empty() {
            out.push_str("\nDialogues:\n\n");
        }
        for dialog in dialogs {
            let (name, listener) = (name(dialog), play::listener(dialog));
            let place = if listener == "smtp" { String::new() } else { format!(", {listener}") };
            let rfc = dialog.fact("rfc");
            let rfc = if rfc.starts_with(|c: char| c.is_ascii_digit()) { format!("RFC {rfc}") } else { rfc.to_owned() };
            writeln!(out, "* [{name}](../tests/dialogs/{name}.dialog) ({rfc}{place}): {}", dialog.fact("about")).unwrap();
        }
        if !row.tests.is_empty() {
            let links: Vec<String> = row.tests.iter().map(|t| link(t)).collect();
            write!(out, "\nOther tests: {}\n", links.join(", ")).unwrap();
        }
    }
    out.push_str(&Record::load().page());
    out
}

#[test]
fn standards_page_is_current() {
    let path = root().join("docs/standards.md");
    let page = page();
    if std::env::var_os("PILLARBOX_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(found.lines()).position(|(new, old)| new != old);
    assert!(
        found == page,
        "docs/standards.md is not what the dialogues and tables make (line {}); run this test with PILLARBOX_BLESS=1",
        differs.map_or(0, |n| n + 1)
    );
}

#[test]
fn every_dialogue_says_what_it_is_and_every_row_has_a_test() {
    let (rows, dialogs) = (rows(), all());
    let known: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    for dialog in &dialogs {
        let name = name(dialog);
        assert!(!dialog.fact("rfc").is_empty() && !dialog.fact("about").is_empty(), "{name} lacks @rfc or @about");
        assert!(!dialog.fact("row").is_empty(), "{name} lacks @row");
        for row in dialog.fact("row").lines() {
            assert!(known.contains(row), "{name}: @row {row} is not in standards.toml");
        }
    }
    for row in &rows {
        let played = dialogs.iter().any(|d| d.fact("row").lines().any(|r| r == row.key));
        assert!(played || !row.tests.is_empty() || !row.missing.is_empty(), "nothing shows {}", row.standard);
        for test in &row.tests {
            let (file, function) = test.split_once('#').unwrap_or((test, ""));
            let path = root().join(file);
            assert!(path.exists(), "{}: there is no {file}", row.key);
            let defined = function.is_empty() || std::fs::read_to_string(&path).unwrap().contains(&format!("fn {function}("));
            assert!(defined, "{}: {file} has no test {function}", row.key);
        }
    }
}
