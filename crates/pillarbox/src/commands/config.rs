//! `pillarbox config`.

use pillarbox_config::{Config, KEYS, reference};

use crate::args::ConfigVerb;
use crate::failure::{Failure, NOT_FOUND};
use crate::session::Session;

pub(crate) fn run(session: &Session, verb: ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Check => check(session),
        ConfigVerb::Show => show(session),
        ConfigVerb::Defaults => defaults(session),
        ConfigVerb::Reference => session.out.bytes(reference::markdown().as_bytes()),
        ConfigVerb::Explain { key } => explain(session, &key),
    }
}

fn check(session: &Session) -> Result<(), Failure> {
    match Config::load(session.file.as_deref()) {
        Ok(_) if session.out.json => session.out.value(&serde_json::json!({ "ok": true, "problems": [] })),
        Ok(_) => session.out.line("The configuration is fine."),
        Err(error) if session.out.json => {
            session.out.value(&serde_json::json!({ "ok": false, "problems": error.lines() }))?;
            Err(Failure::said())
        }
        Err(error) => {
            for line in error.lines() {
                anstream::eprintln!("pillarbox: {}", crate::out::safe(&line));
            }
            Err(Failure::said())
        }
    }
}

fn show(session: &Session) -> Result<(), Failure> {
    let config = session.config()?.masked();
    if session.out.json {
        return session.out.value(&config);
    }
    let text = toml::to_string(&config).map_err(|e| Failure::failed(e.to_string()))?;
    session.out.bytes(text.as_bytes())
}

fn defaults(session: &Session) -> Result<(), Failure> {
    if session.out.json {
        return session.out.value(&Config::default());
    }
    session.out.bytes(Config::default().to_commented_toml(false).as_bytes())
}

fn explain(session: &Session, key: &str) -> Result<(), Failure> {
    let Some(text) = reference::explain(key) else {
        let hint = match reference::nearest(key) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("`pillarbox config defaults` lists all {}", KEYS.len()),
        };
        return Err(Failure::new(NOT_FOUND, format!("there is no key {key:?}; {hint}")));
    };
    match reference::find(key) {
        Some(found) if session.out.json => {
            session.out.value(&serde_json::json!({ "key": found.path, "kind": found.kind, "text": found.text, "explanation": text }))
        }
        _ => session.out.bytes(text.as_bytes()),
    }
}
