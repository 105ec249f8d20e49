//! What the tests of the screen share: a name server that answers from a script, and the folder of other people's test data.

#![allow(dead_code, unreachable_pub)]

pub mod dns;

use std::path::PathBuf;

/// Others' data: `$PILLARBOX_DATA`, or `../shared/data` beside the workspace. `None`, and a word on standard error, when it is not
/// there; a failure instead where `PILLARBOX_REQUIRE_PEERS=1`.
pub fn data(file: &str) -> Option<String> {
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

/// The documents of a YAML file.
pub fn yaml(text: &str) -> Vec<yaml_rust2::Yaml> {
    yaml_rust2::YamlLoader::load_from_str(text).expect("the published test data is YAML")
}
