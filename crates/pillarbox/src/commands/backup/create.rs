//! `backup create`, while the server runs or while it does not.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use futures::StreamExt;
use pillarbox_config::{Config, DEFAULT_PATH};
use pillarbox_control::Client;
use pillarbox_control::api::{QueueEntry, now_millis, rfc3339};
use pillarbox_queue::{Envelope, ParkedFiles, QueueId};

use super::write::Archive;
use super::{DIRECTORY, FORMAT, MANIFEST, Manifest};
use crate::failure::{Failure, NOT_FOUND, Trying};
use crate::out::size;
use crate::session::Session;

/// Folders of the state that a new machine cannot make again.
const STATE: [&str; 4] = ["dkim", "tls", "drop", "drop.claimed"];
/// Messages asked for at a time.
const PAGE: usize = 500;

type Out = Archive<BufWriter<File>>;

/// Writes `path`, which must not exist. A failure leaves nothing behind.
pub(crate) async fn create(session: &Session, path: &Path, with_mail: bool) -> Result<(), Failure> {
    // Opened first: without a daemon, root is given up below.
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).trying(format!("write {}", path.display()))?;
    let written = fill(session, file, with_mail).await;
    match written {
        Ok((entries, octets, sized)) if session.out.json => {
            session.out.value(&serde_json::json!({ "file": path, "entries": entries, "content_bytes": octets, "size_bytes": sized }))
        }
        Ok((entries, octets, sized)) => {
            session.out.line(format!("Kept {entries} files, {}, in {} ({}).", size(octets), path.display(), size(sized)))
        }
        Err(failure) => {
            let _ = std::fs::remove_file(path);
            Err(failure)
        }
    }
}

async fn fill(session: &Session, file: File, with_mail: bool) -> Result<(u64, u64, u64), Failure> {
    let config = session.config()?;
    let config_file = session.file.clone().unwrap_or_else(|| DEFAULT_PATH.into());
    let config_text = std::fs::read(&config_file).unwrap_or_default();
    let api = session.api_of(&config).await?;
    let copy = file.try_clone().trying("write the backup")?;
    let mut archive = Archive::new(BufWriter::new(file)).trying("write the backup")?;

    let now = now_millis();
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: config.hostname(),
        created: rfc3339(now),
        with_mail,
    };
    let manifest = serde_json::to_vec_pretty(&manifest).trying("write the backup")?;
    archive.bytes(MANIFEST, &manifest, now / 1000).trying("write the backup")?;
    archive.bytes("config/pillarbox.toml", &config_text, now / 1000).trying("write the backup")?;
    let directory = api.text("/v1/export").await?;
    archive.bytes(DIRECTORY, directory.as_bytes(), now / 1000).trying("write the backup")?;
    // The queue before the mail: what is delivered in between is then in both, and a delivery that repeats itself is found out.
    queue(&api, &config, &mut archive).await?;
    for folder in STATE {
        archive.tree(&format!("state/{folder}"), &config.paths.state.join(folder), &|_| true).trying("read the state folder")?;
    }
    if with_mail {
        archive.tree("mail", &config.paths.mail, &is_mail).trying("read the mail folder")?;
    }
    let (entries, octets) = (archive.entries, archive.octets);
    let mut out = archive.finish().trying("write the backup")?;
    out.flush().and_then(|()| copy.sync_all()).trying("write the backup")?;
    let sized = copy.metadata().trying("look at the backup")?.len();
    Ok((entries, octets, sized))
}

/// All but what is still being written, and Dovecot's caches, which it makes again.
fn is_mail(path: &Path) -> bool {
    let in_tmp = path.parent().and_then(Path::file_name).is_some_and(|n| n == "tmp");
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    !in_tmp && !name.starts_with("dovecot.index") && !name.starts_with("dovecot.list.index") && !name.ends_with(".lock")
}

/// The running queue is asked message by message; the folder of one that does not run is taken as it lies.
async fn queue(api: &Client, config: &Config, archive: &mut Out) -> Result<(), Failure> {
    if !api.is_daemon() {
        let wanted = |path: &Path| path.file_name().is_some_and(|n| n != "lock");
        return archive.tree("queue", &config.paths.state.join("queue"), &wanted).trying("read the queue");
    }
    let mut after: Option<QueueId> = None;
    loop {
        let from = after.map(|id| format!("&after={id}")).unwrap_or_default();
        let page: Vec<QueueEntry> = api.get(&format!("/v1/queue?limit={PAGE}{from}")).await?;
        for entry in &page {
            message(api, entry.id, archive).await?;
        }
        after = page.last().map(|e| e.id);
        if page.len() < PAGE {
            return Ok(());
        }
    }
}

/// One message, in memory for a moment (`limits.message_size` bounds it); one that was delivered meanwhile is no longer the queue's.
async fn message(api: &Client, id: QueueId, archive: &mut Out) -> Result<(), Failure> {
    let envelope: Envelope = match api.get(&format!("/v1/queue/{id}/envelope")).await.map_err(Failure::from) {
        Ok(envelope) => envelope,
        Err(failure) if failure.code == NOT_FOUND => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let mut octets = Vec::new();
    let mut chunks = match api.stream(&format!("/v1/queue/{id}/message")).await.map_err(Failure::from) {
        Ok(body) => body.into_data_stream(),
        Err(failure) if failure.code == NOT_FOUND => return Ok(()),
        Err(failure) => return Err(failure),
    };
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.trying(format!("read {id} from the queue"))?;
        octets.extend_from_slice(&chunk);
    }
    let files = ParkedFiles::new(&envelope).trying("write the backup")?;
    let when = envelope.received / 1000;
    archive.bytes(&format!("queue/{}", files.message_name), &octets, when).trying("write the backup")?;
    archive.bytes(&format!("queue/{}", files.envelope_name), &files.envelope, when).trying("write the backup")
}
