//! `pillarbox status`.

use pillarbox_control::api::StatusInfo;

use crate::failure::Failure;
use crate::out::{Mood, age, mood, safe, size};
use crate::session::Session;

pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    let info: StatusInfo = session.api().await?.get("/v1/status").await?;
    if session.out.json {
        session.out.value(&info)?;
    } else {
        text(session, &info)?;
    }
    if info.healthy { Ok(()) } else { Err(Failure::said()) }
}

fn text(session: &Session, info: &StatusInfo) -> Result<(), Failure> {
    let out = session.out;
    let state = if info.running { mood("running", Mood::Good) } else { mood("not running", Mood::Bad) };
    out.line(format!("Pillarbox {} on {}: {state}", info.version, safe(&info.hostname)))?;
    for listener in &info.listeners {
        out.line(format!("  {:12} {}", listener.name, safe(&listener.address)))?;
    }
    for certificate in &info.certificates {
        let kind = if certificate.self_signed { mood(", self-signed", Mood::Middling) } else { String::new() };
        out.line(format!("  certificate  {} until {}{kind}", safe(&certificate.name), certificate.not_after))?;
    }
    let queue = &info.queue;
    if info.running {
        let oldest = if queue.messages > 0 { format!(", the oldest {} old", age(queue.oldest_seconds)) } else { String::new() };
        out.line(format!("  queue        {} messages, {} recipients{oldest}", queue.messages, queue.recipients))?;
    }
    for disk in &info.disks {
        out.line(format!("  disk         {}: {} of {} free", safe(&disk.path), size(disk.free_bytes), size(disk.total_bytes)))?;
    }
    if info.running {
        let files = if info.sandbox.files == "full" { "files".to_owned() } else { format!("files {}", info.sandbox.files) };
        let calls = if info.sandbox.calls { "system calls" } else { "system calls none" };
        out.line(format!("  sandbox      {}, {calls}", safe(&files)))?;
    }
    for note in &info.notes {
        out.line(format!("  note         {}", safe(note)))?;
    }
    for problem in &info.problems {
        out.line(format!("{} {}", mood("!", Mood::Bad), safe(problem)))?;
    }
    Ok(())
}
