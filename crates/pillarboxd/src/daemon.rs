//! The daemon from its first task to its last: rooms opened from the bottom up, served, and closed in the other order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use pillarbox_config::Config;
use pillarbox_control::api::ListenerInfo;
use pillarbox_control::{Admin, DaemonInfo};
use pillarbox_directory::dovecot::DovecotFile;
use pillarbox_directory::export::ExportKeeper;
use pillarbox_directory::keeper::Keeper;
use pillarbox_directory::{AuthPolicy, Authenticator, Directory, ResolvePolicy, Srs};
use pillarbox_ingest::certificates::{CertificateStore, write_private};
use pillarbox_ingest::{Ingest, Listener, Rooms, Settings};
use pillarbox_lda::MailboxTransport;
use pillarbox_queue::{Queue, Transports};
use pillarbox_relay::Relay;
use pillarbox_screen::{Dns, Screen, Signer, UserRates};
use pillarbox_smtp::server::Role;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acme::{self, Orders};
use crate::counting;
use crate::hook::Hook;
use crate::http::{self, Challenges, Site};
use crate::info::Running;
use crate::logging::Logging;
use crate::node::Node;
use crate::reports;
use crate::sandbox::Sandbox;
use crate::sockets::Bound;
use crate::wiring::{CommonPolicies, InternalMail, LocalMailDoor, Mailboxes, QueueHooks, notices};

/// How long open sessions may take to end at shut-down.
const GRACE: Duration = Duration::from_secs(30);

/// What was settled before the first task: how the process is shut in, and what runs the one program beside it.
pub(crate) struct Shut {
    pub(crate) sandbox: Sandbox,
    pub(crate) hook: Option<Arc<Hook>>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn run(
    config_path: Option<PathBuf>,
    config: Config,
    sockets: Vec<Bound>,
    shut: Shut,
    logging: &Logging,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // A write beyond a limit on the size of files is to fail as on a full disk; without a handler this signal would end the process.
    let _too_large = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    let config = Arc::new(config);
    let movable = pillarbox_directory::open(&config).await?;
    let directory: Arc<dyn Directory> = movable.clone();
    let srs = Arc::new(Srs::load(directory.as_ref()).await?);
    let policy = Arc::new(ArcSwap::from_pointee(ResolvePolicy::from_config(&config).with_srs(srs)));
    let config_swap = Arc::new(ArcSwap::new(config.clone()));
    let internal = InternalMail::new(directory.clone(), policy.clone(), config_swap.clone());

    let mailboxes = MailboxTransport::new(&config, directory.clone(), lda_hooks(&internal))
        .await
        .with_context(|| format!("cannot use the mail folder {}", config.paths.mail.display()))?;
    let relay = Relay::new(&config)?;
    relay.share_policies(Arc::new(CommonPolicies(directory.clone())));
    let transports = Transports { mailbox: mailboxes.clone(), relay: relay.clone() };
    // Before anything is delivered from it: the queue must be this node's.
    let node = Node::enter(&config, directory.clone()).await?;
    let queue = Queue::open(&config, transports, Arc::new(QueueHooks(internal.clone()))).await?;
    internal.connect(queue.clone());

    let keepers = keep_files(&config, &directory);

    let dns = Dns::new(&config.dns)?;
    let notify = notices(&internal, &config_swap);
    let screen = Screen::new(&config, directory.clone(), dns.clone())?;
    let rates = Arc::new(UserRates::new(&config, directory.clone(), Some(notify.clone())));
    let certificates = CertificateStore::load(&config)?;
    let scram_decoy_key = rand_key();
    let settings = Settings::new(config.clone(), screen, rates, policy.load_full(), &certificates, scram_decoy_key)?;
    let shutdown = CancellationToken::new();
    let signer = Signer::new(&config, directory.clone());
    let rooms = Rooms {
        directory: directory.clone(),
        authenticator: Arc::new(Authenticator::new(directory.clone(), AuthPolicy::from_config(&config))),
        queue: queue.clone(),
        mailboxes: Mailboxes::new(directory.clone(), mailboxes.quota()),
        signer: signer.clone(),
        reports: Arc::new(reports::Intake::new(relay.clone(), directory.clone())),
        certificates: certificates.clone(),
    };
    let ingest = Ingest::new(rooms, settings, shutdown.clone());

    let sessions = TaskTracker::new();
    let mut listeners = Vec::new();
    let mut open = Vec::new();
    for bound in sockets {
        let listener = bound.socket.into_listener()?;
        listeners.push(ListenerInfo { name: bound.service.to_owned(), address: listener.address() });
        open.push((bound.service, listener));
    }
    let set_level = logging.level_setter();
    let challenges = Challenges::default();
    let orders = Orders::new(challenges.clone(), shut.hook, certificates.clone(), directory.clone(), dns.clone());
    let post = reports::Post { internal, signer, config: config_swap.clone() };
    let running = Arc::new(Running {
        config_path,
        config: config_swap.clone(),
        policy,
        directory: directory.clone(),
        movable: movable.clone(),
        certificates,
        ingest: ingest.clone(),
        mailboxes,
        relay: relay.clone(),
        dns,
        notify,
        scram_decoy_key,
        listeners,
        orders: orders.clone(),
        applying: parking_lot::Mutex::new(()),
        keepers: parking_lot::Mutex::new(keepers),
        queue: queue.clone(),
        post: post.clone(),
        set_level,
        sandbox: shut.sandbox,
    });
    let metrics = counting::install()?;
    let pages = http::public(Site { running: running.clone(), challenges });
    let web = http::Web::new(ingest.clone(), shutdown.clone());
    for (service, listener) in open {
        match service {
            "http" => drop(tokio::spawn(web.clone().serve(listener, pages.clone()))),
            "https" => drop(tokio::spawn(web.clone().over_tls().serve(listener, pages.clone()))),
            "metrics" => drop(tokio::spawn(web.clone().serve(listener, http::metrics(metrics.clone())))),
            _ => serve(&ingest, listener, service, &sessions),
        }
    }
    let admin = Admin::new(config_swap, directory.clone())
        .with_movable(movable)
        .with_node(node.id().to_owned())
        .with_daemon(running.clone())
        .with_queue(queue.clone())
        .with_relay(relay.clone())
        .with_quota(running.mailboxes.quota())
        .with_local_door(Arc::new(LocalMailDoor(ingest.clone())));
    let admin = Arc::new(admin);
    let control = tokio::spawn(pillarbox_control::serve(admin.clone(), pillarbox_control::bind(&config.paths.runtime)?, shutdown.clone()));
    tokio::spawn(resume_held(admin.clone()));
    let drops = tokio::spawn(pillarbox_control::local_mail::watch(admin, shutdown.clone()));
    let reports = tokio::spawn(reports::send(post, relay.clone(), directory.clone(), running.dns.clone(), shutdown.clone()));
    tokio::spawn(async move { relay.probe().await });
    tokio::spawn(acme::keep(orders, running.config.clone()));
    write_listeners(&config.paths.runtime, &running.listeners)?;
    let (closed, lost) = (CancellationToken::new(), CancellationToken::new());
    let register = tokio::spawn(node.keep(queue.clone(), closed.clone(), lost.clone()));
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog());
    tracing::info!(hostname = config.hostname, version = env!("CARGO_PKG_VERSION"), "ready");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = lost.cancelled() => break,
            _ = hangup.recv() => {
                let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Reloading, sd_notify::NotifyState::monotonic_usec_now().unwrap_or(sd_notify::NotifyState::Reloading)]);
                let _ = running.reload().await;
                let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
            }
        }
    }
    tracing::info!("stopping: no new connections, open sessions are told 421");
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    watchdog.abort();
    shutdown.cancel();
    sessions.close();
    if tokio::time::timeout(GRACE, sessions.wait()).await.is_err() {
        tracing::warn!("some sessions did not end in time and were cut off; nothing they had been told 250 for is lost");
    }
    queue.shutdown().await;
    // Only now may another node take the queue over.
    closed.cancel();
    let _ = register.await;
    let keepers = std::mem::take(&mut *running.keepers.lock());
    for keeper in keepers {
        keeper.stop().await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), futures::future::join3(control, drops, reports)).await;
    directory.state_flush().await;
    let _ = std::fs::remove_file(config.paths.runtime.join("listeners.json"));
    anyhow::ensure!(!lost.is_cancelled(), "the queue of this node belongs to another one now; see the error before");
    tracing::info!("stopped");
    Ok(())
}

fn rand_key() -> [u8; 32] {
    rand::random()
}

/// Users may have been resumed while no daemon ran.
async fn resume_held(admin: Arc<Admin>) {
    if let Err(error) = pillarbox_control::held::resume_all(&admin).await {
        tracing::warn!(%error, "mail held for suspended users was not looked at; `pillarbox user resume` lets it go on");
    }
}

/// What is kept current beside the database: the export from which it can be rebuilt, and Dovecot's passwd-files.
fn keep_files(config: &Config, directory: &Arc<dyn Directory>) -> Vec<Keeper> {
    let state = &config.paths.state;
    let dovecot = pillarbox_control::local::dovecot_options(config);
    vec![
        ExportKeeper::start(directory.clone(), state.join("directory-export.toml")),
        DovecotFile::start(directory.clone(), state.join("dovecot"), dovecot),
    ]
}

fn serve(ingest: &Arc<Ingest>, listener: Listener, service: &str, sessions: &TaskTracker) {
    let role = match service {
        "smtp" => Role::Mta,
        "submission" => Role::Submission,
        "submissions" => Role::SubmissionTls,
        _ => Role::Lmtp,
    };
    tokio::spawn(pillarbox_ingest::serve(ingest.clone(), listener, role, sessions.clone()));
}

/// `RUNTIME/listeners.json`: where the daemon listens, for scripts that let the system choose ports. Written once all are open.
fn write_listeners(runtime: &Path, listeners: &[ListenerInfo]) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(listeners)?;
    write_private(&runtime.join("listeners.json"), &text)?;
    Ok(())
}

fn lda_hooks(internal: &Arc<InternalMail>) -> pillarbox_lda::Hooks {
    let internal = internal.clone();
    pillarbox_lda::Hooks::new(Arc::new(move |envelope, message| {
        let internal = internal.clone();
        Box::pin(async move { internal.submit(envelope, message).await })
    }))
}

/// Tells systemd at half its deadline that the reactor still turns.
async fn watchdog() {
    let mut deadline = 0;
    if !sd_notify::watchdog_enabled(false, &mut deadline) {
        return;
    }
    let mut tick = tokio::time::interval(Duration::from_micros(deadline / 2));
    loop {
        tick.tick().await;
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
    }
}
