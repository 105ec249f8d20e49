//! The documents against the program: pages that are made from it, and what the others say of commands, metrics, events and files.
//!
//! `PILLARBOX_BLESS=1` writes the generated page anew.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "docs/security.rs"]
mod security;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pillarbox_config::{KEYS, reference};
use pillarbox_testkit::daemon::binary;

/// What every version of `docs/configuration.md` begins with.
const HEAD: &str = "# Configuration\n\n<!-- Generated from the program; edit crates/config/src/reference.rs, then run the test with PILLARBOX_BLESS=1. -->\n\n\
    The file is TOML, by default `/etc/pillarbox/pillarbox.toml`. Every key has a default, so an empty file is valid. An\n\
    unknown key, a wrong type or an impossible value is refused with file, line, key and the nearest known key.\n\n\
    ```sh\npillarbox config check            # tries the file\npillarbox config show             # what is in force, secrets masked\n\
    pillarbox config explain KEY      # one key of this page\npillarbox config defaults         # the file at the end of this page\n\
    systemctl reload pillarbox        # puts a new file in force; a bad one is refused and the old one stays\n```\n\n\
    These take effect at a restart only: `[paths]` and `[directory]` (a reload that changes them is refused), `[listen]`,\n\
    `[queue]`, `[dns]` (for the checks of incoming mail), `auth.argon2`, `auth.failures_per_client`,\n\
    `auth.failure_window`, `limits.body_memory`, `limits.free_space`, `log.format` and `log.event_log_size`.\n\n\
    Sizes are octets or `\"25M\"` (K, M, G, T), durations `\"5m\"` (s, m, h, d), rates `\"500/h\"`. Environment variables\n\
    override the file: `limits.message_size` is `PILLARBOX_LIMITS__MESSAGE_SIZE`, lists are written as in TOML:\n\
    `PILLARBOX_LISTEN__SMTP='[\"127.0.0.1:2525\"]'`.\n";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages and the README: path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "md"));
    paths.sort();
    paths.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root().join(name)));
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// Runs the admin command without any configuration of this machine.
fn pillarbox(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binary("pillarbox")).args(arguments).env_remove("PILLARBOX_CONFIG").output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn configuration() -> String {
    let mut out = HEAD.to_owned();
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    for key in KEYS {
        let is_section = key.kind == "table" && (!key.path.contains('.') || key.path == "tls.acme");
        if is_section {
            write!(
                out,
                "\n## `[{}]`\n\n{}\n\n| key | what may stand there | default | meaning |\n| --- | --- | --- | --- |\n",
                key.path, key.text
            )
            .unwrap();
            continue;
        }
        if out.ends_with("'`.\n") {
            out.push_str("\n## The top of the file\n\n| key | what may stand there | default | meaning |\n| --- | --- | --- | --- |\n");
        }
        let explained = reference::explain(key.path).unwrap();
        let default =
            explained.lines().find_map(|line| line.strip_prefix("default: ")).map(|d| format!("`{}`", cell(d))).unwrap_or_default();
        writeln!(out, "| `{}` | {} | {default} | {} |", key.path, cell(key.kind), cell(key.text)).unwrap();
    }
    let (ok, defaults) = pillarbox(&["config", "defaults"]);
    assert!(ok);
    write!(out, "\n## All defaults as a file\n\n```toml\n{}```\n", defaults).unwrap();
    out
}

#[test]
fn the_configuration_page_is_what_the_program_says() {
    let path = root().join("docs/configuration.md");
    let wanted = configuration();
    if std::env::var_os("PILLARBOX_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/configuration.md differs from the program; run this test with PILLARBOX_BLESS=1");
}

/// All Rust sources of the crates that run in the daemon.
fn sources() -> Vec<String> {
    fn walk(folder: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, out);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                out.push(std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    let mut out = Vec::new();
    for krate in std::fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().path()) {
        if !krate.ends_with("testkit") {
            walk(&krate.join("src"), &mut out);
        }
    }
    out
}

/// Every text between `before` and `after` in `text`.
fn between<'a>(text: &'a str, before: &str, after: char) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split_once(after)).map(|(found, _)| found).collect()
}

/// The rows of the metrics page: name, kind, labels, meaning.
fn told_metrics() -> Vec<(String, String, BTreeSet<String>, String)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `pillarbox_")?.strip_suffix(" |")?.splitn(4, '|').map(str::trim).collect();
        // Alarms stand in a table of two columns below.
        let [name, kind, labels, meaning] = cells.try_into().ok()?;
        let labels = labels.split(';').filter_map(|label| label.trim().strip_prefix('`')?.split('`').next().map(str::to_owned)).collect();
        Some((format!("pillarbox_{}", name.trim_end_matches('`')), kind.to_owned(), labels, meaning.to_owned()))
    };
    page("metrics.md").lines().filter_map(row).collect()
}

#[test]
fn the_metrics_page_names_every_metric_with_its_labels_and_no_other() {
    let mut counted = BTreeSet::<(String, String, BTreeSet<String>)>::new();
    for source in sources() {
        for kind in ["counter", "gauge", "histogram"] {
            for call in source.split(&format!("{kind}!(")).skip(1) {
                let call = call.split(';').next().unwrap_or_default();
                let Some((name, rest)) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) else { continue };
                let labels = rest.split("\" =>").filter_map(|before| before.rsplit_once('"')).map(|(_, label)| label.to_owned());
                counted.insert((name.to_owned(), kind.to_owned(), labels.take(rest.matches("\" =>").count()).collect()));
            }
        }
    }
    let told: BTreeSet<_> = told_metrics().into_iter().map(|(name, kind, labels, _)| (name, kind, labels)).collect();
    assert!(counted.len() > 30, "{counted:?}");
    assert_eq!(counted, told);
}

#[test]
fn the_metrics_explain_themselves_in_the_words_of_the_page() {
    let source = std::fs::read_to_string(root().join("crates/pillarboxd/src/counting.rs")).unwrap();
    let listed: BTreeSet<(String, bool, String)> = source
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim().strip_prefix("(\"")?.strip_suffix("\"),")?.splitn(3, ", ").collect();
            let [name, kind, help] = cells.try_into().unwrap_or_else(|_| panic!("{line}"));
            let help = help.trim_start_matches('"').replace("\\\"", "\"");
            Some((name.trim_end_matches('"').to_owned(), kind == "Labelled", help))
        })
        .collect();
    let sentence = |meaning: &str| {
        let plain = meaning.replace('`', "");
        let mut letters = plain.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        format!("{first}{}.", letters.as_str().trim_end_matches('.'))
    };
    let told: BTreeSet<_> =
        told_metrics().into_iter().map(|(name, _, labels, meaning)| (name, !labels.is_empty(), sentence(&meaning))).collect();
    assert_eq!(listed, told);
}

#[test]
fn the_dashboard_and_the_alarms_ask_for_metrics_that_exist() {
    let told = page("metrics.md");
    let board = std::fs::read_to_string(root().join("etc/grafana/pillarbox.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&board).unwrap();
    let names = |text: &str| -> BTreeSet<String> {
        let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
        text.split("pillarbox_").skip(1).map(name).filter(|n| n.contains('_')).collect()
    };
    let asked = names(&board);
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        assert!(told.contains(&format!("| `pillarbox_{name}` |")), "pillarbox_{name}");
    }
}

#[test]
fn the_events_page_names_every_event() {
    let text = page("events.md");
    let mut events: BTreeSet<String> =
        sources().iter().flat_map(|s| between(s, " event = \"", '"').into_iter().map(str::to_owned).collect::<Vec<_>>()).collect();
    // Of the queue's events the name is a field of a type.
    events.extend(["deliver", "defer", "bounce", "expire"].map(str::to_owned));
    for wanted in ["connect", "auth", "accept", "reject", "disconnect"] {
        assert!(events.contains(wanted), "{events:?}");
    }
    for event in events {
        assert!(text.contains(&format!("| `{event}` |")), "{event}");
    }
}

#[test]
fn links_lead_to_files_that_are_there() {
    for (path, text) in pages() {
        let folder = path.parent().unwrap();
        for target in between(&text, "](", ')') {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{}: {target}", path.display());
        }
    }
}

/// The lines of all fenced blocks in a language, a block a text.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut found, mut open): (Vec<String>, Option<String>) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(fence), None) => open = Some(if fence == language { String::new() } else { "\0".to_owned() }),
            (Some(_), Some(_)) => found.extend(open.take().filter(|block| !block.starts_with('\0'))),
            (None, Some(block)) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// Commands of the shell examples: lines that begin with `pillarbox `, up to a comment, a pipe or a further command.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in blocks(text, "sh") {
        for line in block.lines().filter(|line| line.starts_with("pillarbox ")) {
            let end = [" #", " |", " &&", " >", " \\"].iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
            found.extend(line.get(..end).map(str::to_owned));
        }
    }
    found
}

#[test]
fn commands_of_the_examples_exist_with_their_options() {
    let mut tried = 0;
    let mut helps = std::collections::BTreeMap::<String, Option<String>>::new();
    for (path, text) in pages() {
        for command in commands(&text) {
            let words: Vec<&str> = command.split_whitespace().skip(1).collect();
            let plain: Vec<&str> = words.iter().copied().filter(|w| !w.starts_with('-')).collect();
            let noun = plain.first().copied().unwrap_or_default();
            let mut help_of = |arguments: &[&str]| {
                let mut asked = arguments.to_vec();
                asked.push("--help");
                let known =
                    helps.entry(asked.join(" ")).or_insert_with(|| Some(pillarbox(&asked)).filter(|(ok, _)| *ok).map(|(_, text)| text));
                known.clone()
            };
            let Some(mut help) = help_of(&[noun]) else { panic!("{}: `{command}`: there is no {noun}", path.display()) };
            if help.contains("\nCommands:\n") {
                let verb = plain.get(1).copied().unwrap_or_default();
                help = help_of(&[noun, verb]).unwrap_or_else(|| panic!("{}: `{command}`: {noun} has no {verb}", path.display()));
            }
            for option in words.iter().filter(|w| w.starts_with("--") && w.len() > 2) {
                let name = option.split('=').next().unwrap_or(option);
                assert!(help.contains(name), "{}: `{command}`: there is no {name}", path.display());
            }
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
}

#[test]
fn keys_that_the_pages_show_are_keys() {
    let mut tried = 0;
    for (path, text) in pages() {
        for block in blocks(&text, "toml") {
            let value: toml::Table = toml::from_str(&block).unwrap_or_else(|e| panic!("{}: {e}\n{block}", path.display()));
            for (table, inner) in &value {
                match inner {
                    toml::Value::Table(keys) => {
                        for key in keys.keys() {
                            assert!(reference::is_known(&format!("{table}.{key}")), "{}: {table}.{key}", path.display());
                            tried += 1;
                        }
                    }
                    _ => assert!(reference::is_known(table), "{}: {table}", path.display()),
                }
            }
        }
    }
    assert!(tried > 15, "{tried}");
}

/// Every word that begins with two hyphens.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.len() > 2 && word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn the_daemon_s_manual_page_names_its_options_and_no_others() {
    let output = Command::new(binary("pillarboxd")).arg("--help").output().unwrap();
    let known = options(&String::from_utf8(output.stdout).unwrap());
    assert!(known.contains("--config"));
    let page = std::fs::read_to_string(root().join("packaging/man/pillarboxd.8")).unwrap();
    assert_eq!(options(&page.replace("\\-", "-")), known);
}

/// Words of the system, which stand in no source of ours.
const THE_SYSTEMS: [&str; 2] = ["Connection timed out", "Connection refused"];

#[test]
fn the_messages_in_troubleshooting_are_those_of_the_program() {
    // As written in the sources, but for line breaks and escapes in their literals.
    let sources: String = sources().concat();
    let mut plain = String::with_capacity(sources.len());
    let mut rest = sources.as_str();
    while let Some((before, after)) = rest.split_once("\\\n") {
        plain.push_str(before);
        rest = after.trim_start_matches(' ');
    }
    plain.push_str(rest);
    let plain = plain.replace("\\\"", "\"");
    let mut tried = 0;
    for line in page("troubleshooting.md").lines() {
        let Some(first) = line.strip_prefix("| ").and_then(|line| line.split(" | ").next()) else { continue };
        for quote in first.split('`').skip(1).step_by(2) {
            // What differs from case to case is written as an ellipsis there.
            for part in quote.split('…').map(str::trim).filter(|part| part.len() > 3 && !THE_SYSTEMS.iter().any(|s| part.contains(s))) {
                assert!(plain.contains(part), "docs/troubleshooting.md quotes {quote:?}, but nothing says {part:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
}
