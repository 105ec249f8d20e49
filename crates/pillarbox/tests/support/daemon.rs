//! The control socket as the daemon serves it, over a real queue whose deliverer keeps everything waiting.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_control::api::{CertificateInfo, ListenerInfo, SandboxInfo};
use pillarbox_control::{Admin, DaemonInfo, LocalDoor, LocalMail, LocalRefused, bind, local_mail, serve};
use pillarbox_directory::{Directory, SledDirectory};
use pillarbox_queue::{
    Delivery, Destination, Door, Envelope, Feed, Hooks, Outcome, Queue, QueueId, Recipient, Route, Source, Status, Transport, Transports,
};
use pillarbox_smtp::{EnhancedCode, Mailbox, Reply};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::Home;

/// A server that answers until it is dropped.
pub(crate) struct Daemon {
    pub(crate) runtime: Runtime,
    pub(crate) queue: Arc<Queue>,
    shutdown: CancellationToken,
}

/// What every attempt is answered: with a terminal's escape sequence in it.
pub(crate) const REPLY: &str = "Try \u{1b}[31mlater";

impl Daemon {
    pub(crate) fn start(home: &Home) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let config = home.config();
        std::fs::create_dir_all(&config.paths.mail).unwrap();
        std::fs::create_dir_all(&config.paths.state).unwrap();
        let shutdown = CancellationToken::new();
        let queue = runtime.block_on(async {
            let directory: Arc<dyn Directory> = Arc::new(SledDirectory::open(config.paths.state.join("directory.sled")).unwrap());
            let transports = Transports { mailbox: Arc::new(Waiting), relay: Arc::new(Waiting) };
            let queue = Queue::open(&config, transports, Arc::new(Nowhere)).await.unwrap();
            let swap = Arc::new(ArcSwap::from_pointee(config.clone()));
            let door = Everything { queue: queue.clone(), directory: directory.clone() };
            let admin = Admin::new(swap, directory).with_queue(queue.clone()).with_daemon(Arc::new(Info)).with_local_door(Arc::new(door));
            let admin = Arc::new(admin);
            let listener = bind(&config.paths.runtime).unwrap();
            tokio::spawn(serve(admin.clone(), listener, shutdown.clone()));
            tokio::spawn(local_mail::watch(admin, shutdown.clone()));
            queue
        });
        Self { runtime, queue, shutdown }
    }

    /// Waits until the queue looks as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&[Envelope]) -> bool) -> Vec<Envelope> {
        for _ in 0..1000 {
            let found = self.runtime.block_on(self.queue.list(&Default::default(), None, 1000));
            if wanted(&found) {
                return found;
            }
            self.runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(10)).await });
        }
        panic!("never: {what}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.queue.shutdown());
    }
}

/// Defers everything.
struct Waiting;

#[async_trait::async_trait]
impl Transport for Waiting {
    fn destination(&self, _: &Envelope, recipient: &Recipient) -> Destination {
        Destination::from(format!("mx:{}", recipient.address.domain))
    }
    fn concurrency(&self, _: &Destination) -> usize {
        2
    }
    async fn run(&self, _: Destination, mut feed: Feed) {
        while let Some(delivery) = feed.next().await {
            let delivery: Delivery = delivery;
            delivery.finish_all(Outcome::Deferred { reply: Reply::new(450, EnhancedCode(4, 2, 0), REPLY) }, "nowhere");
        }
    }
}

struct Nowhere;

#[async_trait::async_trait]
impl Hooks for Nowhere {
    async fn route(&self, _: &Mailbox) -> std::io::Result<Vec<Recipient>> {
        Ok(vec![])
    }
}

/// Takes all mail but for users of ours that do not exist.
struct Everything {
    queue: Arc<Queue>,
    directory: Arc<dyn Directory>,
}

#[async_trait::async_trait]
impl LocalDoor for Everything {
    async fn take(&self, mail: LocalMail) -> Result<QueueId, LocalRefused> {
        let mut recipients = Vec::new();
        for (address, params) in mail.recipients {
            let ours = self.directory.domain(&address.domain).await.unwrap().is_some();
            let known = address.local.as_str() == "postmaster" || self.directory.user(&address).await.unwrap().is_some();
            if ours && !known {
                return Err(LocalRefused { recipient: Some(address), reply: Reply::new(550, EnhancedCode(5, 1, 1), "No such user") });
            }
            if !ours && !mail.submission {
                return Err(LocalRefused { recipient: Some(address), reply: Reply::new(550, EnhancedCode(5, 7, 1), "Not ours") });
            }
            let route = if ours { Route::Mailbox { folder: None } } else { Route::Relay };
            recipients.push(Recipient {
                address,
                route,
                given: None,
                orcpt: params.orcpt,
                notify: params.notify,
                reverse_path: None,
                status: Status::Pending,
                attempts: 0,
                last_reply: None,
                next_attempt: None,
                delay_reported: false,
            });
        }
        let envelope = Envelope {
            id: mail.id.unwrap_or_else(|| self.queue.new_id()),
            from: mail.from,
            recipients,
            received: pillarbox_control::api::now_millis(),
            size: mail.body.len(),
            body: Default::default(),
            smtputf8: false,
            require_tls: false,
            ret: mail.params.ret,
            envid: mail.params.envid,
            by: None,
            hold_until: None,
            priority: 0,
            source: Source { door: Door::Local, client: None, helo: mail.submitter, user: None },
            forward_header: String::new(),
            junk: false,
        };
        Ok(self.queue.accept(envelope, mail.body).await.unwrap())
    }
}

struct Info;

#[async_trait::async_trait]
impl DaemonInfo for Info {
    fn listeners(&self) -> Vec<ListenerInfo> {
        vec![ListenerInfo { name: "smtp".into(), address: "127.0.0.1:2525".into() }]
    }
    fn certificates(&self) -> Vec<CertificateInfo> {
        vec![CertificateInfo {
            name: "mail.example.test".into(),
            not_after: "2030-01-01T00:00:00Z".into(),
            self_signed: true,
            names: vec![],
        }]
    }
    fn problems(&self) -> Vec<String> {
        vec![]
    }
    fn notes(&self) -> Vec<String> {
        vec!["nothing to see".into()]
    }
    fn sandbox(&self) -> SandboxInfo {
        SandboxInfo { files: "full".into(), calls: true, why: String::new() }
    }
    async fn reload(&self) -> Result<(), String> {
        Err("the file is bad".into())
    }
    async fn send_tls_reports(&self) -> Result<usize, String> {
        Ok(1)
    }
    async fn renew_certificates(&self) -> Result<Vec<String>, String> {
        Ok(vec!["mail.example.test".into()])
    }
}
