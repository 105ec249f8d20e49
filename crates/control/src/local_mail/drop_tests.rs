//! The drop folder: what is opened, and a kill at each moment of taking a file, after which its message is there once.

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pillarbox_config::{ByteSize, Config};
use pillarbox_directory::MemoryDirectory;
use pillarbox_queue::{Destination, Envelope, Feed, Hooks, Outcome, Queue, Recipient, Route, Transport, Transports};
use pillarbox_smtp::Mailbox;

use super::*;
use crate::local_mail::{LocalDoor, LocalMail, LocalRefused};

#[test]
fn only_plain_files_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("new-1");
    std::fs::write(&plain, "x").unwrap();
    assert!(open(&plain, 10).is_ok());
    assert!(open(&plain, 0).is_err());
    let link = folder.path().join("new-2");
    std::os::unix::fs::symlink(&plain, &link).unwrap();
    assert!(open(&link, 10).is_err());
    std::fs::hard_link(&plain, folder.path().join("new-3")).unwrap();
    assert!(open(&plain, 10).is_err());
    assert!(open(folder.path(), 10).is_err());
    let pipe = folder.path().join("new-4");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(open(&pipe, 10).is_err());
}

#[test]
fn the_folder_takes_from_everybody_and_shows_nobody() {
    let state = tempfile::tempdir().unwrap();
    std::fs::set_permissions(state.path(), Permissions::from_mode(0o700)).unwrap();
    let folder = drop_folder(state.path());
    prepare(state.path(), &folder).unwrap();
    prepare(state.path(), &folder).unwrap();
    assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o7777, DROP_MODE);
    assert_eq!(std::fs::metadata(state.path()).unwrap().mode() & 0o7777, 0o711);
}

/// Delivers everything, and remembers what.
#[derive(Default)]
struct Mailboxes(Mutex<HashSet<QueueId>>);

#[async_trait::async_trait]
impl Transport for Mailboxes {
    fn destination(&self, _: &Envelope, _: &Recipient) -> Destination {
        Destination("local".into())
    }
    fn concurrency(&self, _: &Destination) -> usize {
        1
    }
    async fn run(&self, _: Destination, mut feed: Feed) {
        while let Some(delivery) = feed.next().await {
            self.0.lock().insert(delivery.envelope.id);
            delivery.finish_all(Outcome::Delivered, "");
        }
    }
}

#[async_trait::async_trait]
impl Hooks for Mailboxes {
    async fn route(&self, _: &Mailbox) -> io::Result<Vec<Recipient>> {
        Ok(Vec::new())
    }
}

/// What a kill leaves at some moment.
struct Left {
    moment: &'static str,
    folder: tempfile::TempDir,
    delivered: HashSet<QueueId>,
}

/// A queue with its drop folder.
struct House {
    folder: tempfile::TempDir,
    queue: Arc<Queue>,
    mailboxes: Arc<Mailboxes>,
    /// Kills that are to be looked at.
    left: Mutex<Vec<Left>>,
}

impl House {
    async fn open(folder: tempfile::TempDir) -> Arc<Self> {
        let mut config = Config { hostname: "mail.example.test".into(), ..Config::default() };
        (config.paths.state, config.paths.mail) = (folder.path().join("state"), folder.path().join("mail"));
        config.queue.segment_size = ByteSize(1 << 20);
        std::fs::create_dir_all(&config.paths.mail).unwrap();
        let mailboxes = Arc::new(Mailboxes::default());
        let transports = Transports { mailbox: mailboxes.clone(), relay: mailboxes.clone() };
        let queue = Queue::open(&config, transports, mailboxes.clone()).await.unwrap();
        Arc::new(Self { folder, queue, mailboxes, left: Mutex::default() })
    }

    /// With the usual door.
    async fn taker(self: &Arc<Self>) -> Taker {
        Taker::new(self.admin(Arc::new(Door(self.clone()))), drop_folder(&self.folder.path().join("state"))).await.unwrap()
    }

    fn admin(&self, door: Arc<dyn LocalDoor>) -> Arc<Admin> {
        let mut config = Config { hostname: "mail.example.test".into(), ..Config::default() };
        config.paths.state = self.folder.path().join("state");
        prepare(&config.paths.state, &drop_folder(&config.paths.state)).unwrap();
        let admin = Admin::new(Arc::new(ArcSwap::from_pointee(config)), Arc::new(MemoryDirectory::new()));
        Arc::new(admin.with_queue(self.queue.clone()).with_local_door(door))
    }

    async fn until_empty(&self) {
        while self.queue.health().messages > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Copies what a kill would leave now.
    fn kill(&self, moment: &'static str) {
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        self.left.lock().push(Left { moment, folder, delivered: self.mailboxes.0.lock().clone() });
    }

    /// What is left of dropped files.
    fn files(&self) -> usize {
        let count = |name: &str| std::fs::read_dir(self.folder.path().join("state").join(name)).unwrap().count();
        count("drop") + count("drop.claimed")
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = { (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name())) };
        if from.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

struct Door(Arc<House>);

#[async_trait::async_trait]
impl LocalDoor for Door {
    async fn take(&self, mail: LocalMail) -> Result<QueueId, LocalRefused> {
        let house = &self.0;
        house.kill("claimed");
        let recipients = mail.recipients.into_iter().map(|(to, _)| Recipient::new(to, Route::Mailbox { folder: None }));
        let envelope = Envelope::new(mail.id.unwrap(), mail.from, recipients.collect());
        let id = house.queue.accept(envelope, mail.body).await.unwrap();
        house.kill("accepted");
        house.until_empty().await;
        house.kill("delivered");
        Ok(id)
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_takes_no_file_twice() {
    let house = House::open(tempfile::tempdir().unwrap()).await;
    let mut taker = house.taker().await;
    let inside = "{\"from\":\"bob@example.test\",\"to\":[\"x@one.test\"],\"login\":\"root\"}\nSubject: x\r\n\r\nx\r\n";
    std::fs::write(taker.folder.join("new-1"), inside).unwrap();
    house.kill("dropped");
    taker.take_all().await;
    house.kill("removed");
    assert_eq!((house.mailboxes.0.lock().len(), house.files()), (1, 0));
    let left = std::mem::take(&mut *house.left.lock());
    assert_eq!(left.iter().map(|left| left.moment).collect::<Vec<_>>(), ["dropped", "claimed", "accepted", "delivered", "removed"]);
    for Left { moment, folder, delivered } in left {
        let after = House::open(folder).await;
        after.taker().await.take_all().await;
        after.until_empty().await;
        let all: HashSet<QueueId> = delivered.union(&after.mailboxes.0.lock()).copied().collect();
        assert_eq!((all.len(), after.files()), (1, 0), "killed when it was {moment}");
        after.queue.shutdown().await;
    }
    house.queue.shutdown().await;
}

/// Takes nothing for now.
struct Full;

#[async_trait::async_trait]
impl LocalDoor for Full {
    async fn take(&self, _: LocalMail) -> Result<QueueId, LocalRefused> {
        let reply = pillarbox_smtp::Reply::new(452, pillarbox_smtp::EnhancedCode(4, 3, 1), "no room");
        Err(LocalRefused { recipient: None, reply })
    }
}

#[tokio::test]
async fn what_cannot_be_taken_now_is_taken_later() {
    let house = House::open(tempfile::tempdir().unwrap()).await;
    let mut taker = house.taker().await;
    let door = std::mem::replace(&mut taker.admin, house.admin(Arc::new(Full)));
    std::fs::write(taker.folder.join("new-1"), "{\"from\":\"\",\"to\":[\"x@one.test\"],\"login\":\"root\"}\nSubject: x\r\n\r\nx\r\n")
        .unwrap();
    taker.take_all().await;
    taker.take_all().await;
    assert_eq!((house.mailboxes.0.lock().len(), house.files()), (0, 1));
    taker.admin = door;
    taker.take_all().await;
    assert_eq!((house.mailboxes.0.lock().len(), house.files()), (1, 0));
    house.queue.shutdown().await;
}
