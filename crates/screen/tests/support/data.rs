//! The folder of other people's test data, and reading it.

#![allow(unreachable_pub)]

use std::path::PathBuf;

/// Others' data: `$PILLARBOX_DATA`, or `../shared/data` beside the workspace. `None`, and a word on standard error, when it is not
/// there; a failure instead where `PILLARBOX_REQUIRE_PEERS=1`.
pub fn read(file: &str) -> Option<String> {
    let folder = std::env::var_os("PILLARBOX_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = folder.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{}: {error}", path.display());
            eprintln!("skipped: {}: {error}", path.display());
            None
        }
    }
}

/// The documents of a YAML file. Two cases of one name, which YAML forbids and the suites have, are told apart by a mark.
pub fn yaml(text: &str) -> Vec<yaml_rust2::Yaml> {
    let mut seen = std::collections::HashSet::new();
    let mut unique = String::with_capacity(text.len());
    for line in text.lines() {
        if line == "---" {
            seen.clear();
        }
        let key = line.strip_prefix("  ").and_then(|rest| rest.trim_end().strip_suffix(':')).filter(|key| !key.contains(' '));
        match key {
            Some(key) if !seen.insert(key.to_owned()) => unique.push_str(&format!("  {key}_again:")),
            _ => unique.push_str(line),
        }
        unique.push('\n');
    }
    yaml_rust2::YamlLoader::load_from_str(&unique).expect("the published test data is YAML")
}
