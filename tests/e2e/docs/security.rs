//! `docs/security.md` against the sources: each test that it names exists, and what it says by reading the sources is read here.

use std::path::{Path, PathBuf};

use super::{page, root};

/// Folders in which a file of the page may lie: it names them from the workspace or from `crates`.
fn find(name: &str) -> Option<PathBuf> {
    [root().join(name), root().join("crates").join(name)].into_iter().find(|path| path.exists())
}

/// Pieces in backquotes, in order.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The paragraphs that name tests: from `Tests:` to the empty line.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("Tests: ") {
            open = Some(String::new());
        }
        match &mut open {
            Some(_) if line.is_empty() => found.extend(open.take()),
            Some(paragraph) => {
                paragraph.push_str(line);
                paragraph.push(' ');
            }
            None => {}
        }
    }
    found.extend(open);
    found
}

#[test]
fn every_test_that_the_page_names_exists() {
    let text = page("security.md");
    let (mut files, mut functions) = (0, 0);
    for paragraph in paragraphs(&text) {
        let mut last: Option<PathBuf> = None;
        for name in quoted(&paragraph) {
            let is_function = !name.contains('/') && !name.contains('.') && name.contains('_');
            if is_function {
                let file = last.as_ref().unwrap_or_else(|| panic!("`{name}` follows no file: {paragraph}"));
                let source = std::fs::read_to_string(file).unwrap();
                assert!(source.contains(&format!("fn {name}(")), "{} has no test {name}", file.display());
                functions += 1;
            } else if name.contains('/') || name.contains('.') {
                // A dialogue beside the one named before may go without its folder.
                let beside = last.as_ref().and_then(|l| Some(l.parent()?.join(name))).filter(|path| path.exists());
                let file = find(name).or(beside).unwrap_or_else(|| panic!("there is no {name}: {paragraph}"));
                files += 1;
                last = Some(file);
            } else {
                // The fuzz targets.
                assert!(Path::new(&root()).join(format!("tests/fuzz/fuzz_targets/{name}.rs")).exists(), "there is no fuzz target {name}");
            }
        }
    }
    assert!(files > 60 && functions > 60, "{files} files, {functions} functions");
}

#[test]
fn every_class_of_attack_has_its_tests() {
    for section in page("security.md").split("\n## ").skip(2) {
        let title = section.lines().next().unwrap_or_default();
        assert!(!paragraphs(section).is_empty(), "{title}: no tests");
        assert!(section.contains("\n*"), "{title}: what the attack is");
    }
}

/// Sources of a crate that are no tests.
fn sources(folder: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() {
            if !["tests", "benches", "testing"].contains(&name.as_str()) {
                sources(&entry, visit);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&entry).unwrap();
            visit(&entry, text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        }
    }
}

#[test]
fn no_crate_of_the_daemon_starts_a_process_but_for_the_hook() {
    let mut seen = 0;
    for krate in std::fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().path()) {
        // The admin command asks `dovecot --version`; the testkit is for tests.
        if krate.ends_with("testkit") || krate.ends_with("pillarbox") {
            continue;
        }
        sources(&krate.join("src"), &mut |path, text| {
            seen += 1;
            let starts =
                ["process::Command", "Command::new", "posix_spawn", "unistd::fork", "unistd::execv"].iter().any(|word| text.contains(word));
            assert!(!starts || path.ends_with("pillarboxd/src/hook.rs"), "{} starts a process", path.display());
        });
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn every_advisory_that_is_let_pass_has_a_written_reason() {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny: toml::Table = toml::from_str(&text).unwrap();
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let ignored = deny["advisories"]["ignore"].as_array().unwrap();
    assert!(!ignored.is_empty());
    for one in ignored {
        let reason = one.get("reason").and_then(toml::Value::as_str).unwrap_or_else(|| panic!("{one} has no reason"));
        // Which crate, through what, and why it does no harm.
        assert!(reason.split_whitespace().count() >= 8, "{one}: more than that");
        let krate = reason.split_whitespace().next().unwrap_or_default();
        assert!(lock.contains(&format!("name = \"{krate}\"\n")), "{krate} is no dependency any more: remove its entry");
    }
}
