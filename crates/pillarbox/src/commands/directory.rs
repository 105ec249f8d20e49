//! `pillarbox directory`: where it is kept, and moving it while the server runs.

use std::path::Path;

use pillarbox_control::api::{DirectoryPlace, MoveTo, Moved};
use pillarbox_control::{ApiError, Client, Kind};

use super::news;
use crate::args::DirectoryVerb;
use crate::failure::Failure;
use crate::out::safe;
use crate::prompt::{consent, text_of};
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: DirectoryVerb) -> Result<(), Failure> {
    match verb {
        DirectoryVerb::Show => show(session).await,
        DirectoryVerb::Migrate { to, to_file, yes } => migrate(session, place(to, to_file.as_deref())?, yes).await,
    }
}

fn place(to: Option<String>, file: Option<&Path>) -> Result<String, Failure> {
    match (to, file) {
        (Some(to), _) => Ok(to),
        (None, Some(file)) => Ok(text_of(file)?.lines().next().unwrap_or_default().trim().to_owned()),
        (None, None) => Err(Failure::usage("say where to: --to postgres://… or --to sled")),
    }
}

async fn show(session: &Session) -> Result<(), Failure> {
    let found: DirectoryPlace = session.api().await?.get("/v1/directory").await?;
    let mut fields = vec![
        ("place", found.place.clone()),
        ("domains", found.domains.to_string()),
        ("users", found.users.to_string()),
        ("aliases", found.aliases.to_string()),
    ];
    fields.extend(found.mirror.clone().map(|mirror| ("moved to", format!("{mirror}, and in both until the configuration says so"))));
    fields.extend(found.trouble.clone().map(|why| ("trouble", why)));
    session.out.record(&found, &fields)
}

async fn migrate(session: &Session, to: String, yes: bool) -> Result<(), Failure> {
    let api = session.api().await?;
    let moved = match attempt(&api, &MoveTo { to: to.clone(), replace: yes }).await? {
        Err(error) if error.kind == Kind::Exists => {
            consent(yes, &format!("{error}. Make it like this one, and remove what only it has?"))?;
            attempt(&api, &MoveTo { to, replace: true }).await?
        }
        other => other,
    };
    let moved = moved.map_err(|error| Failure::from(pillarbox_control::ClientError::Api(error)))?;
    if session.out.json {
        return session.out.value(&moved);
    }
    let copied = &moved.copied;
    session.out.line(format!(
        "{} domains, {} users and {} aliases are in {} now, with what is remembered about senders and replies.",
        copied.domains,
        copied.users,
        copied.aliases,
        safe(&moved.to)
    ))?;
    advice(session, &moved)
}

fn advice(session: &Session, moved: &Moved) -> Result<(), Failure> {
    let Some(settings) = &moved.settings else {
        return session.out.line("The state folder of this server is another one, so put it there before a configuration can name it.");
    };
    session.out.line("\nPut this into the configuration:\n\n[directory]")?;
    for line in settings.lines() {
        session.out.line(safe(line))?;
    }
    session.out.line(if moved.mirrored {
        "\nthen: systemctl reload pillarbox. Until then every change is made in both places."
    } else {
        "\nbefore the server is started or anything is changed: what is changed in the old place from now on is only there."
    })
}

/// One attempt: its progress on the terminal, and how it ended.
async fn attempt(api: &Client, wanted: &MoveTo) -> Result<Result<Moved, ApiError>, Failure> {
    news::of(api, "/v1/directory/migrate", wanted, "move").await
}
