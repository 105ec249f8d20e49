//! Promise 1 as a test: a busy queue is crashed after every operation it does on the disk, with every kind of loss that
//! no sync forbids, and started again. Acknowledged mail is there, whole, once; nothing half-visible.

use std::collections::{HashMap, HashSet};

use super::recorder::{Careless, Crash, Op, Recorder, crash};
use super::*;

/// What was sent, by id: recipients and body.
type Sent = HashMap<QueueId, (Vec<String>, Bytes)>;

/// A deliverer that writes down what it took before it says so, as a mailbox or another host would have it by then.
fn recording(recorder: &Recorder, local: bool, then: fn(&Got) -> Reaction) -> impl FnMut(&Got) -> Reaction + Send + 'static {
    let recorder = recorder.clone();
    move |got| {
        let reaction = then(got);
        if matches!(reaction, Reaction::All(Outcome::Delivered | Outcome::Relayed { .. })) {
            for to in got.to.clone() {
                recorder.mark(if local { Op::Stored { id: got.id, to } } else { Op::Took { id: got.id, to } });
            }
        }
        reaction
    }
}

/// [`Scripted`], with its syncs written down.
struct Mailbox(Arc<Scripted>, Recorder);

#[async_trait::async_trait]
impl Transport for Mailbox {
    fn destination(&self, envelope: &Envelope, recipient: &Recipient) -> Destination {
        self.0.destination(envelope, recipient)
    }
    fn concurrency(&self, destination: &Destination) -> usize {
        self.0.concurrency(destination)
    }
    async fn run(&self, destination: Destination, feed: Feed) {
        self.0.run(destination, feed).await;
    }
    async fn sync(&self) -> std::io::Result<()> {
        self.1.mark(Op::SyncMail);
        self.0.sync().await
    }
}

/// A house that writes everything down.
async fn recorded() -> (House, Recorder) {
    let recorder = Recorder::default();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let config = config(dir.path());
    std::fs::create_dir_all(&config.paths.mail).unwrap();
    let clock = Arc::new(ManualClock::at(T0));
    let local = Scripted::new(recording(&recorder, true, delivered));
    // One run at a time: then no more than one message is between the other host's answer and our note of it.
    let relay = Scripted::with_most(1, recording(&recorder, false, relayed));
    let tools = Tools { disk: Arc::new(recorder.clone()), clock: clock.clone(), random: Box::new(|| 0.0), boot: "before".into() };
    let transports = Transports { mailbox: Arc::new(Mailbox(local.clone(), recorder.clone())), relay: relay.clone() };
    let queue = Queue::open_with(&config, transports, Arc::new(ToMailbox), tools).await.unwrap();
    (House { dir, config, clock, local, relay, queue }, recorder)
}

async fn accept(house: &House, recorder: &Recorder, sent: &mut Sent, to: &[&str], body: Body) -> QueueId {
    let envelope = house.envelope(to);
    sent.insert(envelope.id, (to.iter().map(|t| (*t).to_owned()).collect(), body.bytes().await.unwrap()));
    let id = house.queue.accept(envelope, body).await.unwrap();
    recorder.mark(Op::Acked { id });
    id
}

/// A bit of everything: mail small and large to one and several, put off, parked, updated, held, finished; segments that fill.
async fn busy_day(house: &House, recorder: &Recorder) -> Sent {
    let mut sent = Sent::new();
    for n in 0..6u8 {
        let to: &[&str] = if n % 2 == 0 { &["bob@local.example"] } else { &["bob@local.example", "eve@far.example"] };
        accept(house, recorder, &mut sent, to, Body::from_bytes(vec![b'a' + n; 700 * usize::from(n + 1)])).await;
    }
    house.until_empty().await;
    // Put off: parked, one of two recipients finished, then the other.
    house.local.then(recording(recorder, true, busy));
    house.relay.then(recording(recorder, false, |got| if got.to[0].starts_with("slow") { busy(got) } else { relayed(got) }));
    let held = accept(house, recorder, &mut sent, &["slow@far.example"], Body::from_bytes("Subject: held\r\n\r\n")).await;
    accept(house, recorder, &mut sent, &["bob@local.example", "eve@far.example"], Body::from_bytes(vec![b'p'; 3000])).await;
    let mut writer = house.queue.body_writer();
    writer.write(&vec![b'L'; 300_000]).await.unwrap();
    let large = writer.finish().await.unwrap().prefixed("Received: here\r\n");
    accept(house, recorder, &mut sent, &["carl@local.example", "slow@far.example"], large).await;
    house.until("all were tried", |h| h.queue.health().runs == 0 && h.queue.health().recipients == 4).await;
    house.queue.hold(&[held]).await;
    recorder.mark(Op::Held { id: held });
    house.keep().await;
    house.keep().await;
    // The journal fills and its segments are used again.
    house.local.then(recording(recorder, true, delivered));
    for n in 0..14u8 {
        let to: &[&str] = if n % 3 == 0 { &["eve@far.example"] } else { &["dora@local.example"] };
        accept(house, recorder, &mut sent, to, Body::from_bytes(vec![b'A' + n; 200_000])).await;
        if n == 7 {
            house.keep().await;
        }
    }
    house.pass(60);
    house.until("mailboxes have theirs", |h| h.queue.health().recipients == 2 && h.queue.health().runs == 0).await;
    house.keep().await;
    house.keep().await;
    house.relay.then(recording(recorder, false, relayed));
    house.pass(600);
    house.until("the held one is left", |h| h.queue.health().recipients == 1).await;
    for n in 0..6u8 {
        accept(house, recorder, &mut sent, &["eve@far.example"], Body::from_bytes(vec![b'0' + n; 200_000])).await;
    }
    house.until("the held one is left", |h| h.queue.health().recipients == 1).await;
    house.keep().await;
    house.queue.shutdown().await;
    sent
}

/// Starts what a crash left and checks the promise.
async fn check(ops: &[Op], how: Crash, root: &Path, sent: &Sent) {
    // Where there is memory that looks like a disk, a state costs a hundredth of a second.
    let dir = Arc::new(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap());
    let left = crash(ops, how, root, &dir.path().join("state"));
    let what = format!("{how:?} after {} operations, the last being {:?}", ops.len(), ops.last().map(short));
    let boot = if how == Crash::Kill { "before" } else { "after" };
    let clock = Arc::new(ManualClock::at(T0 + 3_600_000));
    let (local, relay) = (Scripted::new(delivered), Scripted::new(relayed));
    let house = House::open(dir.clone(), config(dir.path()), clock, Arc::new(Careless), boot, local, relay).await;
    let health = house.queue.health();
    assert!(health.damaged.is_empty(), "{what}: {:?}", health.damaged);
    house
        .until(&what, |h| {
            h.queue.health().runs == 0 && {
                let state = h.queue.state.lock();
                state.recipients == state.messages.values().filter(|e| is_held(e)).count()
            }
        })
        .await;
    let listed = house.queue.list(&ListFilter { held: true, ..ListFilter::default() }, None, 1000).await;
    let held: HashSet<QueueId> = listed.iter().map(|e| e.id).collect();
    for id in &left.held {
        assert!(held.contains(id), "{what}: {id} was held and is not");
    }
    house.queue.release(&held.into_iter().collect::<Vec<_>>()).await;
    house.until_empty().await;

    let mut again: HashSet<(QueueId, String)> = HashSet::new();
    let mut twice = 0;
    for (got, is_local) in house.local.got.lock().iter().map(|g| (g, true)).chain(house.relay.got.lock().iter().map(|g| (g, false))) {
        let (_, body) = sent.get(&got.id).unwrap_or_else(|| panic!("{what}: {} was never sent", got.id));
        assert_eq!(got.body.len(), body.len(), "{what}: {} is not whole", got.id);
        assert!(got.body == *body, "{what}: {} is not what was sent", got.id);
        for to in &got.to {
            let delivery = (got.id, to.clone());
            assert!(again.insert(delivery.clone()), "{what}: {} goes to {to} twice", got.id);
            if is_local && left.mailbox.contains(&delivery) {
                assert!(got.replayed, "{what}: {} is stored twice", got.id);
            }
            twice += usize::from(left.taken.contains(&delivery));
        }
    }
    if how == Crash::Kill {
        assert!(twice <= 1, "{what}: {twice} messages were sent to other hosts twice");
    }
    for id in &left.acked {
        for to in &sent[id].0 {
            let delivery = (*id, to.clone());
            let safe = left.mailbox.contains(&delivery) || left.taken.contains(&delivery) || again.contains(&delivery);
            assert!(safe, "{what}: {id} to {to} is lost");
        }
    }
    house.queue.shutdown().await;
}

fn is_held(entry: &crate::schedule::Entry) -> bool {
    match entry {
        crate::schedule::Entry::Live(live) => live.fates.iter().any(|f| f.status == Status::Held),
        crate::schedule::Entry::Parked(parked) => parked.flags.has(crate::schedule::ParkedFlags::HELD),
    }
}

fn short(op: &Op) -> String {
    let mut text = format!("{op:?}");
    text.truncate(120);
    text
}

/// `PILLARBOX_CRASH_LOSSES` says how many random losses of a power cut are tried after each operation; two unless said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_mail_survives_a_crash_at_any_moment() {
    let (house, recorder) = recorded().await;
    let sent = busy_day(&house, &recorder).await;
    let ops = recorder.ops();
    let root = house.config.paths.state.clone();
    let losses = std::env::var("PILLARBOX_CRASH_LOSSES").map_or(2, |n| n.parse().unwrap());
    for n in 0..=ops.len() {
        check(&ops[..n], Crash::Kill, &root, &sent).await;
        check(&ops[..n], Crash::Nothing, &root, &sent).await;
        for seed in 0..losses {
            check(&ops[..n], Crash::Chance((n as u64) << 16 | seed), &root, &sent).await;
        }
    }
}
