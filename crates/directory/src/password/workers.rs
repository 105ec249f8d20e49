//! Threads of their own for password hashes, as many as there are cores, each with the memory that argon2 asks for.
//!
//! A hash has tens of MiB in hand while it is computed. Taken from the C library anew for each, on the runtime's dozens of blocking threads,
//! two hundred logins at once left 680 MiB behind; here it is so much a core, given back when there was nothing to do for a while.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::time::Duration;

use argon2::{Argon2, Block};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that had nothing to do for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(60);
/// Blocks of 1 KiB that a thread keeps for the next hash; hashes made elsewhere may want more, and that is given back at once.
const KEEP: usize = 64 * 1024;

/// What waits, for whichever thread is free. Those who hand jobs over bound how many.
static WAITING: Waiting = Waiting { jobs: Mutex::new(VecDeque::new()), came: Condvar::new() };

struct Waiting {
    jobs: Mutex<VecDeque<Job>>,
    came: Condvar,
}

/// How many threads there are; started at the first hash.
static THREADS: LazyLock<usize> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let start = |_: &usize| match std::thread::Builder::new().name("password".into()).spawn(|| WAITING.serve()) {
        Ok(_) => true,
        Err(error) => {
            tracing::error!(%error, "a thread for passwords cannot be had");
            false
        }
    };
    (0..cores).filter(start).count()
});

thread_local! {
    /// Argon2's memory, kept from one hash to the next.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

impl Waiting {
    fn serve(&self) {
        loop {
            let job = self.next();
            // Whoever handed it over learns of a panic by its answer that never comes; the thread goes on.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Job {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(job) = jobs.pop_front() {
                return job;
            }
            if self.came.wait_for(&mut jobs, IDLE).timed_out() {
                MEMORY.with_borrow_mut(|memory| *memory = Vec::new());
            }
        }
    }
}

/// A hash could not be computed: a defect, or no thread to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hashing failed inside")]
pub struct WorkerFailed;

/// Runs what hashes on one of the threads.
///
/// # Errors
/// When it panicked, or no thread could be started.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkerFailed> {
    if *THREADS == 0 {
        return Err(WorkerFailed);
    }
    let (answer, answered) = oneshot::channel();
    let job: Job = Box::new(move || {
        // A client that hung up meanwhile waits for nothing.
        let _ = answer.send(work());
    });
    WAITING.jobs.lock().push_back(job);
    WAITING.came.notify_one();
    answered.await.map_err(|_| WorkerFailed)
}

/// Argon2 over this thread's memory.
pub(super) fn argon2(argon2: &Argon2<'_>, password: &[u8], salt: &[u8], out: &mut [u8]) -> argon2::Result<()> {
    MEMORY.with_borrow_mut(|memory| {
        let wanted = argon2.params().block_count();
        if memory.len() < wanted {
            // Not both at once.
            *memory = Vec::new();
            memory.resize(wanted, Block::default());
        }
        let done = argon2.hash_password_into_with_memory(password, salt, out, memory.as_mut_slice());
        if memory.len() > KEEP {
            *memory = Vec::new();
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_on_a_thread_of_its_own_and_a_panic_ends_none() {
        let name = || std::thread::current().name().map(str::to_owned);
        for _ in 0..20 {
            assert_eq!(run(|| panic!("a defect")).await, Err::<(), _>(WorkerFailed));
        }
        assert_eq!(run(name).await, Ok(Some("password".to_owned())));
    }

    #[test]
    fn memory_is_kept_within_its_bound_and_old_memory_changes_no_hash() {
        let hash = |memory_kib: u32| {
            let params = argon2::Params::new(memory_kib, 1, 1, None).unwrap();
            let mut out = [0; 32];
            argon2(&Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params), b"password", b"saltsalt", &mut out).unwrap();
            out
        };
        let kept = || MEMORY.with_borrow(Vec::len);
        let (small, large) = (hash(64), hash(256));
        assert_eq!(kept(), 256);
        assert_eq!((hash(64), hash(256)), (small, large), "in memory that is larger and not empty");
        hash(KEEP as u32 + 1024);
        assert_eq!(kept(), 0);
    }
}
