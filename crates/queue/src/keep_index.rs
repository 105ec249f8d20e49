//! Writes the index of parked mail, in steps, so that mail flows meanwhile.

use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::deferred::{Index, IndexEntry, IndexWriter, stamp_of};
use crate::id::QueueId;
use crate::queue::Queue;
use crate::schedule::{DestId, Entry, Parked};

/// Messages taken down under one hold of the lock.
const STEP: usize = 5000;

/// Where the index is.
pub(crate) fn index_path(folder: &Path) -> PathBuf {
    folder.join("deferred.index")
}

impl Queue {
    /// Writes down, for the next start, what is parked. What changes meanwhile is told apart by its stamp. Blocks.
    pub(crate) fn save_index(&self) -> io::Result<()> {
        // Before anything else: a change from here on shows in the folder, whether what is written below has it or not.
        let folders = self.deferred.folder_stamps();
        // Where nothing changed since the last time, it knows all there is to know of the files.
        let former = Index::load(&index_path(&self.folder));
        let mut numbers: HashMap<DestId, u32> = HashMap::new();
        let mut writer = {
            let state = self.state.lock();
            numbers.extend(state.dests.iter().map(|(dest, _)| dest).zip(0..));
            IndexWriter::new(&folders, state.dests.iter().map(|(_, dest)| (dest.kind, &dest.name)))
        };
        let mut at = None;
        loop {
            let step: Vec<(QueueId, Option<Parked>)> = {
                let state = self.state.lock();
                let from = at.map_or(Bound::Unbounded, Bound::Excluded);
                let parked = |entry: &Entry| if let Entry::Parked(parked) = entry { Some(parked.clone()) } else { None };
                state.messages.range((from, Bound::Unbounded)).take(STEP).map(|(id, entry)| (*id, parked(entry))).collect()
            };
            let Some((last, _)) = step.last() else { break };
            at = Some(*last);
            for (id, parked) in step {
                let stamp = || former.stamp_in(&folders, id).or_else(|| stamp_of(&self.deferred, id));
                let Some((parked, stamp)) = parked.and_then(|parked| Some((parked, stamp()?))) else { continue };
                // A destination that came after the numbers were given out is read from the envelope at the next start.
                let jobs: Option<Vec<_>> = parked.jobs.list().into_iter().map(|(dest, next)| Some((*numbers.get(&dest)?, next))).collect();
                let Some(jobs) = jobs else { continue };
                writer.add(id, &entry(&parked, stamp, jobs));
            }
        }
        writer.save(&*self.disk, &index_path(&self.folder))
    }
}

fn entry(parked: &Parked, stamp: (i64, u32), jobs: Vec<(u32, u64)>) -> IndexEntry {
    IndexEntry {
        stamp,
        received: parked.received,
        deadline: parked.deadline,
        from: parked.from,
        sender: parked.sender,
        domain: parked.domain,
        recipients: parked.recipients,
        flags: parked.flags,
        priority: parked.priority,
        jobs,
    }
}
