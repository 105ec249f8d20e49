//! `pillarbox node`, and what the queue's verbs do over several nodes.

use std::path::Path;

use hyper::Method;
use pillarbox_control::api::{EvacuateFrom, Evacuated, NodeLine, NodeState};
use pillarbox_control::{ClientError, escaped};

use super::{news, queue};
use crate::args::{NodeVerb, QueueFilter};
use crate::failure::{Failure, Trying};
use crate::out::{age, safe};
use crate::prompt::consent;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: NodeVerb) -> Result<(), Failure> {
    match verb {
        NodeVerb::List { all } => list(session, all).await,
        NodeVerb::Remove { node, yes } => remove(session, &node, yes).await,
    }
}

/// Asks first, since mail may be in the queue that the node left.
async fn remove(session: &Session, node: &str, yes: bool) -> Result<(), Failure> {
    let question = format!("Forget the node {}? Mail left in its queue folder cannot be evacuated afterwards.", safe(node));
    consent(yes, &question)?;
    let path = format!("/v1/nodes/{}", escaped(node));
    session.api().await?.done(Method::DELETE, &path).await?;
    session.out.done(format!("{node} is forgotten."))
}

async fn list(session: &Session, all: bool) -> Result<(), Failure> {
    let mut nodes: Vec<NodeLine> = session.api().await?.get("/v1/nodes").await?;
    nodes.retain(|line| all || line.node.state != NodeState::Evacuated);
    session.out.list(&nodes, &["NODE", "STATE", "HEARD", "QUEUE", "VERSION", "FOLDER"], |line| {
        let node = &line.node;
        let name = if line.this { format!("{} (this)", node.name) } else { node.name.clone() };
        let heard = format!("{} ago", age(node.seen_seconds));
        vec![name, state(line), heard, queue::counted(node.messages), node.version.clone(), node.folder.clone()]
    })
}

fn state(line: &NodeLine) -> String {
    let by = line.node.adopter.as_deref().unwrap_or("another node");
    match line.node.state {
        NodeState::Live => "live".into(),
        NodeState::Silent => "silent".into(),
        NodeState::Stopped => "stopped".into(),
        NodeState::Adopting => format!("being taken over by {by}"),
        NodeState::Evacuated => format!("taken over by {by}"),
    }
}

/// `queue list --all-nodes`: each node's queue in turn, page by page. A node that does not answer is named on standard error, and the exit code
/// says that the list is not whole.
pub(super) async fn list_queues(session: &Session, filter: &QueueFilter) -> Result<(), Failure> {
    let (out, api) = (session.out, session.api().await?);
    let nodes: Vec<NodeLine> = api.get("/v1/nodes").await?;
    let (mut listed, mut silent) = (0usize, false);
    for line in nodes.iter().filter(|line| line.node.state != NodeState::Evacuated) {
        let name = &line.node.name;
        let each = |page: &[pillarbox_control::api::QueueEntry]| {
            if out.json {
                for entry in page {
                    let mut value = serde_json::to_value(entry).map_err(|e| Failure::failed(e.to_string()))?;
                    if let Some(object) = value.as_object_mut() {
                        object.insert("node".into(), name.as_str().into());
                    }
                    out.line(format!("{}{value}", if listed == 0 { "[" } else { "," }))?;
                    listed += 1;
                }
                return Ok(());
            }
            let heads: &[&str] = if listed == 0 { &["NODE", "ID", "SIZE", "RECEIVED", "NEXT", "FROM", "TO", "WHY"] } else { &[] };
            listed += page.len();
            let rows = page.iter().map(|entry| [vec![name.clone()], queue::row(entry)].concat()).collect();
            if page.is_empty() { Ok(()) } else { out.table(heads, rows) }
        };
        // A stopped node has nobody who could answer.
        let asked = if line.this || line.node.state == NodeState::Live {
            queue::pages_of(&api, &format!("/v1/nodes/{}/queue", escaped(&line.node.id)), filter, each).await
        } else {
            Err(Failure::failed(format!("it is {}", state(line))))
        };
        if let Err(failure) = asked {
            if failure.message.is_empty() {
                return Err(failure);
            }
            silent = true;
            let node = &line.node;
            let known = format!("{} when it was heard of, {} ago", queue::counted(node.messages), age(node.seen_seconds));
            anstream::eprintln!("pillarbox: the queue of {} is not listed: {failure}; it held {known}", safe(&node.name));
        }
    }
    match (out.json, listed) {
        (true, 0) => out.line("[]")?,
        (true, _) => out.line("]")?,
        (false, 0) => out.line("Nothing waits in the queues that were asked.")?,
        (false, _) => {}
    }
    if silent { Err(Failure::said()) } else { Ok(()) }
}

/// `queue evacuate`.
pub(super) async fn evacuate(session: &Session, folder: &Path, yes: bool) -> Result<(), Failure> {
    let folder = std::path::absolute(folder).trying("find the current folder")?;
    consent(yes, &format!("Take over the mail in {} for good? The node that had it must be gone.", folder.display()))?;
    let api = session.api().await?;
    let ended = news::of(&api, "/v1/queue/evacuate", &EvacuateFrom { folder }, "evacuation").await?;
    let done: Evacuated = ended.map_err(|error| Failure::from(ClientError::Api(error)))?;
    if session.out.json {
        session.out.value(&done)?;
    } else {
        let before = if done.known > 0 { format!(", {} before", done.known) } else { String::new() };
        session.out.line(format!(
            "{} taken over{before}. The folder is {} now and may be deleted.",
            queue::counted(done.messages),
            safe(&done.folder)
        ))?;
        for what in &done.damaged {
            anstream::eprintln!("pillarbox: damaged, and set aside in that folder: {}", safe(what));
        }
    }
    if done.damaged.is_empty() { Ok(()) } else { Err(Failure::said()) }
}
