//! `pillarbox trace`.

use pillarbox_control::escaped;
use serde_json::Value;

use crate::failure::Failure;
use crate::out::{Mood, mood, safe};
use crate::session::Session;

/// Fields that stand in the line's beginning, or say nothing to a reader.
const HEAD: [&str; 5] = ["timestamp", "time", "event", "id", "level"];

pub(crate) async fn run(session: &Session, what: &str, limit: usize) -> Result<(), Failure> {
    let found: Vec<Value> = session.api().await?.get(&format!("/v1/trace?what={}&limit={limit}", escaped(what))).await?;
    if session.out.json {
        return session.out.value(&found);
    }
    for event in &found {
        session.out.line(line(event))?;
    }
    Ok(())
}

pub(super) fn line(event: &Value) -> String {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("");
    let kind = text("event");
    let kind = match kind {
        "deliver" | "accept" => mood(kind, Mood::Good),
        "defer" => mood(kind, Mood::Middling),
        "reject" | "bounce" | "expire" => mood(kind, Mood::Bad),
        other => safe(other),
    };
    let time = if text("timestamp").is_empty() { text("time") } else { text("timestamp") };
    let mut out = format!("{} {kind} {}", safe(time), safe(text("id")));
    for (name, value) in event.as_object().into_iter().flatten() {
        if HEAD.contains(&name.as_str()) {
            continue;
        }
        let shown = match value {
            Value::String(s) if s.is_empty() => continue,
            Value::String(s) if s.contains(' ') => format!("{s:?}"),
            Value::String(s) => s.clone(),
            Value::Null => continue,
            other => other.to_string(),
        };
        out.push_str(&format!(" {}={}", safe(name), safe(&shown)));
    }
    out
}
