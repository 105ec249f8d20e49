//! Playing dialogues: over which connections, and what must be true of the daemon afterwards.
//!
//! | fact | meaning |
//! | --- | --- |
//! | `@listener NAME` | `smtp` (unless said), `submission`, `submissions`, `lmtp` |
//! | `@over plain`, `@over tls` | only so; otherwise `smtp` in the clear and after STARTTLS, `submission` after STARTTLS and on 465, `lmtp` on TCP and Unix |
//! | `@split 1 2` | once more with so many octets a segment |
//! | `@set key = value` | on a daemon of its own, with this in its configuration |
//! | `@accepts N` | so many messages were taken, 0 unless said: nothing else may be in the queue |
//! | `@stored USER + PATTERN`, `@stored USER ! PATTERN` | a message that came to the user has a line like this (header fields unfolded), or none of them has |
//! | `@queued N` | so many messages wait in the queue afterwards |
//! | `@alone WHY` | not put to other servers |
//! | `@connections N` | so many sessions are seen in the log, where that is not one a connection |

use std::collections::BTreeSet;
use std::path::PathBuf;

use pillarbox_testkit::daemon::{Event, Stored};
use pillarbox_testkit::{Dialog, Target, pattern};

use super::name;
use super::world::{World, variables};

/// How a dialogue is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    StartTls,
    ImplicitTls,
    Unix,
}

/// The listener that a dialogue is for.
pub(crate) fn listener(dialog: &Dialog) -> &str {
    match dialog.fact("listener") {
        "" => "smtp",
        named => named,
    }
}

fn ways(dialog: &Dialog) -> Vec<Way> {
    match (listener(dialog), dialog.fact("over")) {
        ("smtp" | "submission", "plain") => vec![Way::Plain],
        ("smtp", "tls") => vec![Way::StartTls],
        ("smtp", "") => vec![Way::Plain, Way::StartTls],
        ("submission", "") => vec![Way::StartTls, Way::ImplicitTls],
        ("submissions", "") => vec![Way::ImplicitTls],
        ("lmtp", "") => vec![Way::Plain, Way::Unix],
        (listener, over) => panic!("{}: @listener {listener} with @over {over} is not known", name(dialog)),
    }
}

/// Plays all of them, in all their ways, and fails with everything that went wrong.
pub(crate) async fn all(dialogs: &[Dialog]) {
    let mut failures = Vec::new();
    let mut played = 0;
    let mut shared: Option<World> = None;
    for dialog in dialogs {
        let settings = dialog.fact("set");
        let splits = dialog.fact("split").split_whitespace().map(|n| n.parse().unwrap_or_else(|e| panic!("{}: @split {e}", name(dialog))));
        let splits: Vec<usize> = std::iter::once(0).chain(splits).collect();
        for way in ways(dialog) {
            let mut own = if settings.is_empty() { None } else { Some(World::start(settings).await) };
            for split in &splits {
                played += 1;
                let world = match (&own, &shared) {
                    (Some(world), _) | (None, Some(world)) => world,
                    (None, None) => shared.insert(World::start("").await),
                };
                let Err(why) = play(world, dialog, way, *split).await else { continue };
                let split = if *split == 0 { String::new() } else { format!(", {split} octets a segment") };
                failures.push(format!("{} ({way:?}{split}): {why}", name(dialog)));
                // What that session left behind must not puzzle the next one.
                (own, shared) = (if own.is_some() { Some(World::start(settings).await) } else { None }, None);
            }
        }
    }
    assert!(failures.is_empty(), "{} of {played} went wrong:\n\n{}", failures.len(), failures.join("\n\n"));
}

fn target(world: &World, dialog: &Dialog, way: Way, split: usize) -> Target {
    let listener = match (listener(dialog), way) {
        ("submission", Way::ImplicitTls) => "submissions",
        (listener, _) => listener,
    };
    let mut target = Target::new(world.daemon.address(listener));
    target.server_name = "mail.example.test".into();
    target.variables = variables();
    target.implicit_tls = way == Way::ImplicitTls;
    target.starttls = way == Way::StartTls;
    target.unix = (way == Way::Unix).then(|| world.lmtp.clone());
    target.split = split;
    target
}

async fn play(world: &World, dialog: &Dialog, way: Way, split: usize) -> Result<(), String> {
    let before = world.daemon.events();
    let expected = Expected::of(dialog)?;
    let mailboxes: Vec<(&Wanted, BTreeSet<PathBuf>)> = expected.stored.iter().map(|s| (s, paths(world, s.address))).collect();
    dialog.run(&target(world, dialog, way, split)).await.map_err(|e| e.to_string())?;
    // The log is in order: once the sessions' ends stand in it, all that they did stands before.
    let ends = count(&before, "disconnect") + expected.connections;
    let what = format!("the end of {} sessions of {}", expected.connections, name(dialog));
    let look = |events: &[Event]| (count(events, "disconnect") >= ends).then(|| events.to_vec());
    let after = world.daemon.events_until(&what, look).await;
    let new = after.get(before.len()..).unwrap_or_default();
    // What the server writes itself, reports and replies, has a status.
    let accepted = new.iter().filter(|e| e.name == "accept" && e.text("status").is_empty()).count();
    if accepted != expected.accepts {
        return Err(format!("{} messages should have been taken, {accepted} were", expected.accepts));
    }
    for (stored, old) in mailboxes {
        stored.check(world, &old).await?;
    }
    if let Some(queued) = expected.queued {
        let listed = world.daemon.get("/v1/queue").await;
        let found = listed.json().as_array().map_or(0, Vec::len);
        if found < queued {
            return Err(format!("{queued} messages should be waiting in the queue: {}", listed.body));
        }
    }
    Ok(())
}

fn count(events: &[Event], name: &str) -> usize {
    events.iter().filter(|e| e.name == name).count()
}

fn paths(world: &World, address: &str) -> BTreeSet<PathBuf> {
    world.mailbox(address).messages.into_iter().map(|m| m.path).collect()
}

/// What a dialogue's facts say about its outcome.
struct Expected {
    accepts: usize,
    connections: usize,
    queued: Option<usize>,
    stored: Vec<Wanted>,
}

/// What must be true of what came to one user.
struct Wanted {
    address: &'static str,
    present: Vec<String>,
    absent: Vec<String>,
}

impl Expected {
    fn of(dialog: &Dialog) -> Result<Self, String> {
        let number = |key: &str, default: usize| match dialog.fact(key) {
            "" => Ok(default),
            text => text.parse().map_err(|_| format!("@{key} {text}: no number")),
        };
        let variables = variables();
        let mut stored: Vec<Wanted> = Vec::new();
        for line in dialog.fact("stored").lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(user), Some(sign), Some(wanted)) = (words.next(), words.next(), words.next()) else {
                return Err(format!("@stored {line}: the form is USER + PATTERN or USER ! PATTERN"));
            };
            let address = World::address(user);
            let wanted = variables.iter().fold(wanted.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
            let wanted = match wanted.split_once("${repeat:") {
                None => wanted,
                Some((front, rest)) => {
                    let (count, rest) = rest.split_once(':').ok_or("@stored: ${repeat:N:text}")?;
                    let (text, behind) = rest.split_once('}').ok_or("@stored: ${repeat:N:text}")?;
                    format!("{front}{}{behind}", text.repeat(count.parse().map_err(|_| "@stored: ${repeat:N:text}")?))
                }
            };
            if !stored.iter().any(|s| s.address == address) {
                stored.push(Wanted { address, present: Vec::new(), absent: Vec::new() });
            }
            let slot = stored.iter_mut().find(|s| s.address == address).ok_or("no such user")?;
            match sign {
                "+" => slot.present.push(wanted),
                "!" => slot.absent.push(wanted),
                _ => return Err(format!("@stored {line}: + or ! stands before the pattern")),
            }
        }
        let queued = if dialog.fact("queued").is_empty() { None } else { Some(number("queued", 0)?) };
        Ok(Self { accepts: number("accepts", 0)?, connections: number("connections", dialog.connections())?, queued, stored })
    }
}

impl Wanted {
    /// Waits until the messages that came since `old` have all the lines that must be there. They may be more than one, and
    /// need not be the same ones.
    async fn check(&self, world: &World, old: &BTreeSet<PathBuf>) -> Result<(), String> {
        let new = || -> Vec<Vec<String>> {
            let all = world.mailbox(self.address).messages;
            all.iter().filter(|m| !old.contains(&m.path)).map(lines).collect()
        };
        let has = |messages: &[Vec<String>], wanted: &str| messages.iter().flatten().any(|line| pattern::matches(wanted, line));
        let look = |_: &[Event]| Some(new()).filter(|m| self.present.iter().all(|wanted| has(m, wanted)));
        let what = format!("mail of {} with {:?}", self.address, self.present);
        let found = match tokio::time::timeout(std::time::Duration::from_secs(20), world.daemon.events_until(&what, look)).await {
            Ok(found) => found,
            Err(_) => {
                let found = new();
                let missing: Vec<&String> = self.present.iter().filter(|wanted| !has(&found, wanted)).collect();
                return Err(format!("{} got no line like {missing:?}, but:\n{}", self.address, found.concat().join("\n")));
            }
        };
        match self.absent.iter().find(|unwanted| has(&found, unwanted)) {
            Some(unwanted) => Err(format!("{} got a line like {unwanted:?}:\n{}", self.address, found.concat().join("\n"))),
            None => Ok(()),
        }
    }
}

/// The lines of a message, header fields unfolded.
fn lines(message: &Stored) -> Vec<String> {
    let text = message.text();
    let (header, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines: Vec<String> = Vec::new();
    for line in header.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.extend(body.lines().map(str::to_owned));
    lines
}
