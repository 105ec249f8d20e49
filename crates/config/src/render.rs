//! The configuration back to text: the effective one with secrets masked, and a commented file.

use crate::endpoint::mask_url;
use crate::reference::{KEYS, Key};
use crate::types::Config;

impl Config {
    /// A copy in which no password remains: what may be shown or logged.
    pub fn masked(&self) -> Self {
        let mut copy = self.clone();
        copy.directory.url = mask_url(&copy.directory.url);
        copy.relay.smarthost = mask_url(&copy.relay.smarthost);
        for route in &mut copy.relay.routes {
            route.via = mask_url(&route.via);
        }
        copy
    }

    /// The whole configuration as TOML with an explanation above each key. With `only_changed`, keys that have their default value are
    /// written as comments, so that the file says at a glance what was decided here.
    pub fn to_commented_toml(&self, only_changed: bool) -> String {
        let mine = value_of(self);
        let defaults = value_of(&Config::default());
        let mut out = String::from(
            "# Pillarbox. Every key has a default; `pillarbox config explain KEY` says more, `pillarbox config check` tries this file.\n# Sizes: \"25M\" or octets. Durations: \"5m\". Rates: \"500/h\". Environment variables override keys: PILLARBOX_LISTEN__SMTP='[…]'.\n",
        );
        for key in KEYS.iter().filter(|k| !k.path.contains('[')) {
            self.write_key(key, &mine, &defaults, only_changed, &mut out);
        }
        out
    }

    fn write_key(&self, key: &Key, mine: &toml::Value, defaults: &toml::Value, only_changed: bool, out: &mut String) {
        let (table, word) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        // Small tables are written inline, below their own entry.
        if is_inline(table) {
            return;
        }
        let value = get(mine, key.path);
        let absent = value.is_none();
        if key.kind == "table" && !is_inline(key.path) {
            let off = if absent { "# " } else { "" };
            out.push_str(&format!("\n{}{off}[{}]\n", wrapped(key.text), key.path));
            return;
        }
        out.push_str(&wrapped(key.text));
        for item in KEYS.iter().filter(|k| k.path.strip_prefix(key.path).is_some_and(|r| r.starts_with("[]."))) {
            let name = item.path.rsplit_once('.').map_or(item.path, |(_, w)| w);
            out.push_str(&wrapped(&format!("  {name}: {}", item.text)));
        }
        if is_inline(key.path) {
            for item in KEYS.iter().filter(|k| k.path.strip_prefix(key.path).is_some_and(|r| r.starts_with('.'))) {
                let name = item.path.rsplit_once('.').map_or(item.path, |(_, w)| w);
                out.push_str(&wrapped(&format!("  {name}: {}", item.text)));
            }
        }
        let default = get(defaults, key.path).cloned().or_else(|| acme_default(key.path));
        let shown = value.cloned().or_else(|| default.clone());
        let unchanged = absent || (only_changed && shown == default);
        let off = if unchanged { "# " } else { "" };
        if let Some(shown) = shown {
            out.push_str(&format!("{off}{word} = {}\n", inline(&shown)));
        }
    }
}

/// The default of one key as TOML.
pub(crate) fn default_of(path: &str) -> Option<String> {
    if path == "hostname" {
        return None;
    }
    match get(&value_of(&Config::default()), path).cloned().or_else(|| acme_default(path))? {
        toml::Value::Table(_) => None,
        value => Some(inline(&value)),
    }
}

fn acme_default(path: &str) -> Option<toml::Value> {
    let rest = path.strip_prefix("tls.acme.")?;
    toml::Value::try_from(crate::types::Acme::default()).ok()?.get(rest).cloned()
}

fn is_inline(path: &str) -> bool {
    path == "auth.argon2" || path == "mailbox.deliver_to_domains"
}

fn value_of(config: &Config) -> toml::Value {
    // Every type in `Config` has a TOML form; the empty table only answers the signature.
    toml::Value::try_from(config).unwrap_or_else(|_| toml::Value::Table(toml::Table::new()))
}

fn get<'a>(value: &'a toml::Value, path: &str) -> Option<&'a toml::Value> {
    path.split('.').try_fold(value, |v, word| v.get(word))
}

/// TOML on one line.
fn inline(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(table) => {
            let items: Vec<String> = table.iter().map(|(k, v)| format!("{} = {}", bare_or_quoted(k), inline(v))).collect();
            if items.is_empty() { "{}".into() } else { format!("{{ {} }}", items.join(", ")) }
        }
        toml::Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() }
}

/// Comment lines of at most 110 characters.
fn wrapped(text: &str) -> String {
    let indent: String = text.chars().take_while(|c| *c == ' ').collect();
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() > 106 {
            out.push_str(&format!("# {indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        out.push_str(&format!("# {indent}{line}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Config {
        let config = Config::from_text(text, Path::new("p"), []).unwrap();
        let named = text.lines().any(|l| l.starts_with("hostname"));
        if named && !text.contains("hostname = \"\"") { config } else { Config { hostname: String::new(), ..config } }
    }

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        let text = Config::default().to_commented_toml(false);
        assert_eq!(read(&text), Config::default());
        assert_eq!(read(&Config::default().to_commented_toml(true)), Config::default());
    }

    #[test]
    fn every_key_is_printed_even_those_that_are_off() {
        let text = Config::default().to_commented_toml(true);
        for key in KEYS {
            let word = key.path.rsplit_once('.').map_or(key.path, |(_, w)| w);
            assert!(text.contains(word), "{}", key.path);
        }
        // Taking the comment signs from all settings and the optional table gives a file that loads as well.
        let on: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest)
                    if rest.starts_with('[')
                        || rest
                            .split_once(" = ")
                            .is_some_and(|(k, _)| k.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())) =>
                {
                    format!("{rest}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let mut expected = Config::default();
        expected.tls.acme = Some(crate::types::Acme::default());
        assert_eq!(read(&on), expected);
    }

    #[test]
    fn what_was_changed_comes_back() {
        let mut config = Config { hostname: "mail.example.org".into(), ..Config::default() };
        config.listen.smtp = vec!["127.0.0.1:2525".into()];
        config.tls.acme = Some(crate::types::Acme { contact: "mailto:a@example.org".into(), ..Default::default() });
        config.mailbox.deliver_to_domains.insert("a.org".into(), "maildir".into());
        config.relay.routes =
            vec![crate::types::RelayRoute { domain: Some("x.org".into()), sender: None, via: "mx".into(), password_file: "".into() }];
        for only_changed in [true, false] {
            assert_eq!(read(&config.to_commented_toml(only_changed)), config);
        }
    }

    #[test]
    fn no_password_is_shown() {
        let text = "directory = { backend = \"postgres\", url = \"postgres://u:geheim@db/x\" }";
        let shown = toml::to_string(&Config::from_text(text, Path::new("p"), []).unwrap().masked()).unwrap();
        assert!(!shown.contains("geheim") && shown.contains("u:***@db"), "{shown}");
    }
}
