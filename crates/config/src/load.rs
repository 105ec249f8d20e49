//! From a file and the environment to a `Config`, or to what is wrong, where.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Origin, Problem};
use crate::hostname::machine_name;
use crate::reference;
use crate::types::Config;

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_PATH: &str = "/etc/pillarbox/pillarbox.toml";

/// What the names of overriding environment variables begin with.
const PREFIX: &str = "PILLARBOX_";

impl Config {
    /// Reads `path`, or [`DEFAULT_PATH`] when there is none (its absence means defaults; a named file must exist), then the
    /// `PILLARBOX_…` variables of the environment.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.to_string_lossy().into_owned())));
        let (file, text) = match path {
            Some(path) => (path, std::fs::read_to_string(path)),
            None => (Path::new(DEFAULT_PATH), std::fs::read_to_string(DEFAULT_PATH)),
        };
        let text = match text {
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::unreadable(file, &error)),
            Ok(text) => text,
        };
        Self::from_text(&text, file, environment)
    }

    /// The same from text in hand; `file` only names it in errors.
    pub fn from_text(text: &str, file: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let source = Source::parse(text, file)?;
        let mut problems = source.unknown_keys();
        let mut overrides = Vec::new();
        for (name, value) in environment {
            match override_of(&name, &value) {
                Ok(Some(found)) => overrides.push(found),
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        // The same set of variables gives the same result whatever order the environment lists them in.
        overrides.sort_by(|a, b| a.name.cmp(&b.name));
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        if let Err(error) = toml::from_str::<Config>(text) {
            return Err(ConfigError::Invalid(vec![source.type_problem(&error)]));
        }
        let mut merged: toml::Table = toml::from_str(text).map_err(|e| ConfigError::Invalid(vec![source.type_problem(&e)]))?;
        for one in &overrides {
            let mut alone = toml::Table::new();
            insert(&mut alone, &one.path, one.value.clone());
            if let Err(error) = Config::deserialize(toml::Value::Table(alone)) {
                problems.push(one.problem(first_line(error.message())));
            }
            insert(&mut merged, &one.path, one.value.clone());
        }
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        let mut config =
            Config::deserialize(toml::Value::Table(merged)).map_err(|e| ConfigError::Invalid(vec![source.type_problem(&e)]))?;
        if config.hostname.is_empty() {
            config.hostname = machine_name();
        }
        for (key, why) in crate::validate::problems(&config) {
            let by_variable = overrides
                .iter()
                .find(|o| key == o.key() || key.starts_with(&format!("{}.", o.key())) || key.starts_with(&format!("{}[", o.key())));
            problems.push(match by_variable {
                Some(one) => Problem { origin: Origin::Environment(one.name.clone()), key, why },
                None => Problem { origin: source.origin(source.line_of(&key)), key, why },
            });
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// The name in banner, EHLO and Received: the configured one, or the machine's.
    pub fn hostname(&self) -> String {
        if self.hostname.is_empty() { machine_name() } else { self.hostname.clone() }
    }
}

/// A value from the environment.
struct Override {
    name: String,
    path: Vec<String>,
    value: toml::Value,
}

impl Override {
    fn key(&self) -> String {
        self.path.join(".")
    }
    fn problem(&self, why: impl Into<String>) -> Problem {
        Problem { origin: Origin::Environment(self.name.clone()), key: self.key(), why: why.into() }
    }
}

/// Reads one variable. Names with `__` and top-level keys are ours; anything else beginning with `PILLARBOX_` is left alone unless it looks like
/// a misspelt top-level key.
fn override_of(name: &str, text: &str) -> Result<Option<Override>, Problem> {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let key = path.join(".");
    let unknown = |near: Option<&str>| {
        let hint = near.map(|n| format!("; did you mean {PREFIX}{}?", n.to_ascii_uppercase().replace('.', "__"))).unwrap_or_default();
        Problem { origin: Origin::Environment(name.to_owned()), key: key.clone(), why: format!("unknown key{hint}") }
    };
    if !reference::is_known(&key) {
        return match path.as_slice() {
            [word] if strsim::damerau_levenshtein(word, "hostname") <= 2 => Err(unknown(Some("hostname"))),
            [_] => Ok(None),
            _ => Err(unknown(reference::nearest(&key))),
        };
    }
    // A value is TOML; a bare word that is not (a hostname, a path) is a string.
    let value = match toml::from_str::<BTreeMap<String, toml::Value>>(&format!("value = {text}\n")) {
        Ok(mut table) if table.len() == 1 => table.remove("value"),
        _ => None,
    };
    let value = match value {
        Some(value) if !(value.is_datetime()) => value,
        _ => toml::Value::String(text.to_owned()),
    };
    Ok(Some(Override { name: name.to_owned(), path, value }))
}

fn insert(table: &mut toml::Table, path: &[String], value: toml::Value) {
    match path {
        [] => {}
        [last] => {
            table.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = table.entry(first.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if !inner.is_table() {
                *inner = toml::Value::Table(toml::Table::new());
            }
            if let Some(inner) = inner.as_table_mut() {
                insert(inner, rest, value);
            }
        }
    }
}

/// The file's text with the place of each key.
struct Source<'a> {
    text: &'a str,
    file: PathBuf,
    /// Dotted path (list items as `key[0]`) → span of the key and of the value.
    places: Vec<(String, Range<usize>, Range<usize>)>,
}

impl<'a> Source<'a> {
    fn parse(text: &'a str, file: &Path) -> Result<Self, ConfigError> {
        let mut source = Self { text, file: file.to_path_buf(), places: Vec::new() };
        match DeTable::parse(text) {
            Ok(table) => {
                collect(table.get_ref(), "", &mut source.places);
                Ok(source)
            }
            Err(error) => {
                let line = error.span().map(|s| source.line(s.start));
                let why = format!("not TOML: {}", first_line(error.message()));
                Err(ConfigError::Invalid(vec![Problem { origin: source.origin(line), key: String::new(), why }]))
            }
        }
    }

    fn unknown_keys(&self) -> Vec<Problem> {
        let mut reported: Vec<String> = Vec::new();
        let mut problems = Vec::new();
        for (path, key, _) in &self.places {
            let inside = |outer: &String| path.starts_with(&format!("{outer}.")) || path.starts_with(&format!("{outer}["));
            if reference::is_known(path) || path.ends_with(']') || reported.iter().any(inside) {
                continue;
            }
            let why = match reference::nearest(path) {
                Some(near) => format!("unknown key; did you mean {near}?"),
                None => "unknown key; `pillarbox config defaults` lists them all".into(),
            };
            problems.push(Problem { origin: self.origin(Some(self.line(key.start))), key: path.clone(), why });
            reported.push(path.clone());
        }
        problems
    }

    /// What serde found, with the innermost key whose value it points into.
    fn type_problem(&self, error: &toml::de::Error) -> Problem {
        let span = error.span();
        let holder = span.as_ref().and_then(|span| {
            let around = |r: &Range<usize>| r.start <= span.start && span.end <= r.end;
            self.places.iter().filter(|(_, key, value)| around(value) || around(key)).min_by_key(|(_, _, value)| value.len())
        });
        Problem {
            origin: self.origin(span.as_ref().map(|s| self.line(s.start))),
            key: holder.map(|(path, ..)| path.clone()).unwrap_or_default(),
            why: first_line(error.message()),
        }
    }

    /// The line of a key, or of the nearest table around it.
    fn line_of(&self, key: &str) -> Option<usize> {
        let mut path = key;
        loop {
            if let Some((_, key, value)) = self.places.iter().find(|(p, ..)| p == path) {
                let at = if key.is_empty() { value.start } else { key.start };
                return Some(self.line(at));
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|&b| b == b'\n').count() + 1
    }

    fn origin(&self, line: Option<usize>) -> Origin {
        Origin::File { path: self.file.clone(), line }
    }
}

fn collect(table: &DeTable<'_>, prefix: &str, places: &mut Vec<(String, Range<usize>, Range<usize>)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        places.push((path.clone(), key.span(), value.span()));
        collect_value(value.get_ref(), &path, places);
    }
}

fn collect_value(value: &DeValue<'_>, path: &str, places: &mut Vec<(String, Range<usize>, Range<usize>)>) {
    match value {
        DeValue::Table(inner) => collect(inner, path, places),
        DeValue::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                let path = format!("{path}[{n}]");
                places.push((path.clone(), item.span().start..item.span().start, item.span()));
                collect_value(item.get_ref(), &path, places);
            }
        }
        _ => {}
    }
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::from_text(text, Path::new("p.toml"), [])
    }
    fn with_env(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_text(text, Path::new("p.toml"), env.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }
    fn error(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_gives_the_defaults_and_a_hostname() {
        let config = load("").unwrap();
        assert!(!config.hostname.is_empty());
        assert_eq!(Config { hostname: String::new(), ..config }, Config::default());
    }

    #[test]
    fn a_missing_file_is_fine_only_when_nobody_named_it() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.toml");
        let error = Config::load(Some(&missing)).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_nearest_key() {
        assert_eq!(error("\n[limits]\nmesage_size = 1\n"), "p.toml:3: limits.mesage_size: unknown key; did you mean limits.message_size?");
        assert_eq!(error("message_size = \"1M\""), "p.toml:1: message_size: unknown key; did you mean limits.message_size?");
        assert_eq!(error("[listn]\nsmtp = []\n"), "p.toml:1: listn: unknown key; did you mean listen?");
        assert_eq!(
            error("[[relay.routes]]\ndomain = \"a.b\"\nvai = \"mx\"\n"),
            "p.toml:3: relay.routes[0].vai: unknown key; did you mean relay.routes[].via?"
        );
        assert!(error("zzzzqqq = 1").contains("config defaults"));
    }

    #[test]
    fn several_unknown_keys_are_all_told() {
        let error = load("hostnam = \"a\"\n[limits]\nx_y = 1\n").unwrap_err();
        assert_eq!(error.lines().len(), 2);
        assert!(error.to_string().contains("and 1 more"));
    }

    #[test]
    fn wrong_types_are_named_with_line_and_key() {
        let text = error("[limits]\n\nrecipients = \"many\"\n");
        assert!(text.starts_with("p.toml:3: limits.recipients: invalid type: string \"many\""), "{text}");
        let text = error("[limits]\ncommand_timeout = 5\n");
        assert!(text.starts_with("p.toml:2: limits.command_timeout: "), "{text}");
        let text = error("[queue]\nretry = [\"1m\", \"soon\"]\n");
        assert!(text.starts_with("p.toml:2: queue.retry") && text.contains("\"soon\" is not a duration"), "{text}");
        let text = error("[[relay.routes]]\ndomain = \"x.org\"\n");
        assert!(text.contains("relay.routes") && text.contains("via"), "{text}");
    }

    #[test]
    fn text_that_is_not_toml_is_refused_with_its_line() {
        assert!(error("\n\nhostname = \n").starts_with("p.toml:3: not TOML"), "{}", error("\n\nhostname = \n"));
        assert!(error("[limits]\nrecipients = 1\nrecipients = 2\n").starts_with("p.toml:3: "));
    }

    #[test]
    fn impossible_values_are_named_with_line_and_key() {
        let text = error("[screen]\ndmarc = \"inforce\"\n");
        assert_eq!(text, "p.toml:2: screen.dmarc: \"inforce\" is none of \"enforce\", \"report-only\", \"off\"; did you mean \"enforce\"?");
        let text = error("[listen]\nsmtp = [\"[::]:25\",\n  \"localhost\"]\n");
        assert!(text.starts_with("p.toml:3: listen.smtp[1]: \"localhost\" is not an address"), "{text}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = with_env(
            "[listen]\nsmtp = [\"[::]:25\"]\nhttp = [\"127.0.0.1:80\"]\n",
            &[
                ("PILLARBOX_LISTEN__SMTP", "[\"127.0.0.1:2525\"]"),
                ("PILLARBOX_HOSTNAME", "mail.example.org"),
                ("PILLARBOX_LIMITS__MESSAGE_SIZE", "25M"),
                ("PILLARBOX_AUTH__ARGON2__ITERATIONS", "3"),
                ("PILLARBOX_TLS__ACME__CONTACT", "mailto:a@example.org"),
                ("PILLARBOX_SOMETHING_ELSE", "1"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(config.listen.smtp, ["127.0.0.1:2525"]);
        assert_eq!(config.listen.http, ["127.0.0.1:80"]);
        assert_eq!(config.hostname, "mail.example.org");
        assert_eq!(config.limits.message_size.to_string(), "25M");
        assert_eq!(config.auth.argon2.iterations, 3);
        assert!(config.tls.acme.is_some());
    }

    #[test]
    fn wrong_variables_are_named() {
        let text = with_env("", &[("PILLARBOX_LISTEN__SMPT", "[]")]).unwrap_err().to_string();
        assert_eq!(text, "environment variable PILLARBOX_LISTEN__SMPT: listen.smpt: unknown key; did you mean PILLARBOX_LISTEN__SMTP?");
        let text = with_env("", &[("PILLARBOX_HOSTNAM", "x")]).unwrap_err().to_string();
        assert!(text.contains("PILLARBOX_HOSTNAME"), "{text}");
        let text = with_env("", &[("PILLARBOX_LIMITS__RECIPIENTS", "many")]).unwrap_err().to_string();
        assert!(text.starts_with("environment variable PILLARBOX_LIMITS__RECIPIENTS: limits.recipients: invalid type"), "{text}");
        let text = with_env("", &[("PILLARBOX_LISTEN__SMTP", "[\"x\"]")]).unwrap_err().to_string();
        assert!(text.starts_with("environment variable PILLARBOX_LISTEN__SMTP: listen.smtp[0]: "), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_loads_or_is_refused(text in "[a-z\\[\\].=\"0-9 \n]{0,80}") {
            let _ = load(&text);
        }
    }
}
