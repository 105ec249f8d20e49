//! `pillarbox import`: mail from a Maildir or an mbox file into a mailbox.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pillarbox_control::api::UserInfo;
use pillarbox_control::escaped;
use pillarbox_control::local::become_user;
use pillarbox_lda::import::{self, Import, Quoting, Source, import};
use pillarbox_lda::maildir::MailRoot;
use pillarbox_smtp::Mailbox;
use rustix::thread::{CapabilitySet, CapabilitySets};
use sha2::{Digest, Sha256};

use super::parsed;
use crate::args::{ImportArgs, ImportVerb};
use crate::failure::{Failure, Trying};
use crate::progress::Progress;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: ImportVerb) -> Result<(), Failure> {
    let (args, source) = match verb {
        ImportVerb::Maildir(args) => (args.clone(), Source::Maildir(args.path)),
        ImportVerb::Mbox(args) => (args.clone(), Source::Mbox(args.path, Quoting::default())),
    };
    let to: Mailbox = parsed("address", &args.to)?;
    let path = std::path::absolute(&args.path).trying("find the current folder")?;
    let config = session.config()?;
    keep_reading(&config.paths.state)?;
    let api = session.api_of(&config).await?;
    let user: UserInfo = api.get(&format!("/v1/users/{}", escaped(&to.to_string()))).await?;

    let folder = config.paths.state.join("import");
    pillarbox_control::local::make_folder(&folder).trying(format!("make {}", folder.display()))?;
    let state = folder.join(memory_name(&path, &user.address, args.folder.as_deref()));
    let root = MailRoot::open(&config.paths.mail).trying(format!("open the mail folder {}", config.paths.mail.display()))?;
    let hostname = config.hostname();
    let job = Import { source, to: &user.address, folder: args.folder.as_deref(), state: &state, hostname: &hostname };
    let bar = Progress::bar(0);
    let done = import(&root, &job, &mut |so_far| {
        bar.at(so_far.done, so_far.total);
        bar.say(format!("{} stored, {} known", so_far.stored, so_far.known));
        ControlFlow::Continue(())
    });
    drop(bar);
    report(session, &args, &done.map_err(|e| Failure::failed(format!("{e}; the same command again goes on from there")))?)
}

/// As root, becomes the owner of the state folder but keeps the right to read everybody's files, since that is where the mail comes from.
fn keep_reading(state: &Path) -> Result<(), Failure> {
    let Ok(meta) = std::fs::metadata(state) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || meta.uid() == 0 {
        return Ok(());
    }
    let tried = || -> std::io::Result<()> {
        rustix::thread::set_keep_capabilities(true)?;
        become_user(meta.uid(), meta.gid())?;
        let reading = CapabilitySet::DAC_READ_SEARCH;
        let sets = CapabilitySets { effective: reading, permitted: reading, inheritable: CapabilitySet::empty() };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    };
    tried().trying("become the owner of the state folder")
}

/// One file of memory for each source and target.
fn memory_name(source: &Path, to: &Mailbox, folder: Option<&str>) -> String {
    let digest = Sha256::digest(format!("{}\0{}\0{}", source.display(), to.key(), folder.unwrap_or("")));
    digest.iter().take(12).map(|b| format!("{b:02x}")).collect()
}

fn report(session: &Session, args: &ImportArgs, done: &import::Progress) -> Result<(), Failure> {
    if session.out.json {
        session.out.value(&serde_json::json!({
            "stored": done.stored,
            "known": done.known,
            "failed": done.failed,
            "failures": done.failures,
        }))?;
    } else {
        session.out.line(format!("{} messages stored in the mailbox of {}, {} were there already.", done.stored, args.to, done.known))?;
        for failure in &done.failures {
            anstream::eprintln!("pillarbox: {}", crate::out::safe(failure));
        }
        if done.failed > 0 {
            anstream::eprintln!("pillarbox: {} messages could not be read", done.failed);
        }
    }
    if done.failed == 0 { Ok(()) } else { Err(Failure::said()) }
}
