//! Which addresses and domains there are, in memory: RCPT is answered for a million users without reading, and decoding, the pages their
//! rows are in.
//!
//! Each row of users, of aliases and of domains is an entry of eight octets: what kind of row it is, and 62 bits of a keyed hash of its key.
//! Two names of a million share one with a chance of one in 10^12, and nobody outside knows the key. A row that says more than "here is a
//! user" is only known to be there, and is read.
//!
//! The entries are a copy of the tables and never more: only the writer's thread changes both, the tables first, before anybody is told.
//! Until they are whole, or when there are more than [`MOST`], everybody reads the tables. An orderly end leaves them in a file beside the
//! database for the next start; it counts for the revision it names alone, and without it they are gathered anew while the daemon works.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use pillarbox_smtp::LocalPart;
use siphasher::sip::SipHasher13;

use super::open::Forest;
use crate::durable::Replacement;
use crate::records::UserRecord;
use crate::store::Result;
use crate::tables::values::{self, Head};
use crate::tables::{Table, Tables, Writes, keys};

/// Rows that are kept in memory, for some 38 MB; beyond them the tables are read.
const MOST: usize = 3_600_000;
/// So few are gathered in a moment and not worth a file.
const FEW: usize = 20_000;
/// Rows gathered between two looks at what waits to be written.
const STEP: usize = 1000;
/// The file's name, in the database's folder.
const FILE_NAME: &str = "addresses";
const MAGIC: &[u8; 8] = b"pbaddrs2";
/// Magic, CRC-32C of what follows, revision, hash key.
const FRONT: usize = 8 + 4 + 8 + 16;

/// Which kind of row an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Domain = 0,
    /// A user whose row has to be read.
    User = 1,
    /// A user of whom RCPT needs to know nothing else; its address is written as look-ups fold it.
    Plain = 2,
    Alias = 3,
}

/// What is known of a user by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// There is none.
    Absent,
    /// There is one, neither suspended nor with a quota of its own, and added under the folded form of its address.
    Plain,
    /// The table must be asked.
    Ask,
}

/// Hashes are spread evenly as they are.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[derive(Default)]
struct Entries {
    /// All rows are in `set`.
    whole: bool,
    set: HashSet<u64, BuildHasherDefault<AsIs>>,
}

/// The entries, for many readers and one writer.
pub(super) struct Addresses {
    path: PathBuf,
    hash_key: [u8; 16],
    /// `None`: given up, the tables are read.
    entries: RwLock<Option<Entries>>,
}

/// How far gathering is. Steps are taken by the writer's thread, so no change comes between reading a row and noting it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gathering(Option<(Table, Option<Vec<u8>>)>);

impl Gathering {
    pub(super) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }
}

impl Addresses {
    /// Those that the file in the database's folder holds for this revision, or none yet; and what is left to gather.
    pub(super) fn open(folder: &Path, revision: u64) -> (Self, Gathering) {
        let path = folder.join(FILE_NAME);
        if let Ok(octets) = fs::read(&path) {
            if let Some((hash_key, set)) = decode(&octets, revision) {
                return (Self { path, hash_key, entries: RwLock::new(Some(Entries { whole: true, set })) }, Gathering(None));
            }
            // Gone now, lest it be taken for right once the revision has grown to the one it names.
            forget(folder);
        }
        (Self { path, hash_key: rand::random(), entries: RwLock::new(Some(Entries::default())) }, Gathering(Some((Table::Users, None))))
    }

    /// What is known of the user with this key.
    pub(super) fn user(&self, key: &[u8]) -> Known {
        let hash = self.hash(key);
        match self.entries.read().as_ref().filter(|entries| entries.whole) {
            Some(entries) if entries.set.contains(&entry(hash, Kind::Plain)) => Known::Plain,
            Some(entries) if !entries.set.contains(&entry(hash, Kind::User)) => Known::Absent,
            _ => Known::Ask,
        }
    }

    /// Whether there may be an alias with this key.
    pub(super) fn may_have_alias(&self, key: &[u8]) -> bool {
        self.has(key, Kind::Alias).unwrap_or(true)
    }

    /// Whether there is a domain with this key; `None`: the table must be asked.
    pub(super) fn has_domain(&self, key: &[u8]) -> Option<bool> {
        self.has(key, Kind::Domain)
    }

    fn has(&self, key: &[u8], kind: Kind) -> Option<bool> {
        let hash = self.hash(key);
        self.entries.read().as_ref().filter(|entries| entries.whole).map(|entries| entries.set.contains(&entry(hash, kind)))
    }

    /// Follows changes that the tables have; before anybody is told that they are made.
    pub(super) fn follow(&self, writes: &Writes) {
        let changed: Vec<_> = writes
            .iter()
            .filter(|((table, _), _)| matches!(table, Table::Users | Table::Aliases | Table::Domains))
            .map(|((table, key), row)| (*table, self.hash(key), row.as_deref().map(|row| kind(*table, key, row))))
            .collect();
        if changed.is_empty() {
            return;
        }
        let mut guard = self.entries.write();
        let Some(entries) = guard.as_mut() else { return };
        for (table, hash, now) in changed {
            let former: &[Kind] = match table {
                Table::Aliases => &[Kind::Alias],
                Table::Domains => &[Kind::Domain],
                _ => &[Kind::User, Kind::Plain],
            };
            for kind in former.iter().filter(|kind| Some(**kind) != now) {
                entries.set.remove(&entry(hash, *kind));
            }
            if let Some(kind) = now {
                entries.set.insert(entry(hash, kind));
            }
        }
        if entries.set.len() > MOST {
            *guard = None;
        }
    }

    /// From now on the tables are asked: nobody knows what a failed write left in them.
    pub(super) fn distrust(&self) {
        *self.entries.write() = None;
    }

    /// Gathers some more rows.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub(super) fn gather(&self, forest: &Forest, gathering: &mut Gathering) -> Result<()> {
        let Some((table, after)) = gathering.0.take() else { return Ok(()) };
        let rows = forest.scan(table, b"", after.as_deref(), STEP)?;
        let found: Vec<u64> = rows.iter().map(|(key, row)| entry(self.hash(key), kind(table, key, row))).collect();
        let mut guard = self.entries.write();
        let Some(entries) = guard.as_mut() else { return Ok(()) };
        entries.set.extend(found);
        if entries.set.len() > MOST {
            *guard = None;
            return Ok(());
        }
        match rows.into_iter().next_back() {
            Some((last, _)) => gathering.0 = Some((table, Some(last))),
            None if table == Table::Users => gathering.0 = Some((Table::Aliases, None)),
            None if table == Table::Aliases => gathering.0 = Some((Table::Domains, None)),
            None => entries.whole = true,
        }
        Ok(())
    }

    /// Leaves them for the next start, which finds the tables at this revision. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written; the next start gathers them anew.
    pub(super) fn save(&self, revision: u64) -> io::Result<()> {
        let guard = self.entries.read();
        let Some(entries) = guard.as_ref().filter(|entries| entries.whole && entries.set.len() >= FEW) else { return Ok(()) };
        let mut octets = Vec::with_capacity(FRONT.saturating_add(entries.set.len().saturating_mul(8)));
        octets.extend_from_slice(MAGIC);
        octets.extend_from_slice(&[0; 4]);
        octets.extend_from_slice(&revision.to_le_bytes());
        octets.extend_from_slice(&self.hash_key);
        entries.set.iter().for_each(|entry| octets.extend_from_slice(&entry.to_le_bytes()));
        drop(guard);
        let crc = crc32c::crc32c(octets.get(12..).unwrap_or_default()).to_le_bytes();
        if let Some(slot) = octets.get_mut(8..12) {
            slot.copy_from_slice(&crc);
        }
        let mut file = Replacement::begin(&self.path, 0o600)?;
        file.write_all(&octets)?;
        file.commit()
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write(key);
        hasher.finish()
    }
}

/// Removes the file: the database is another one from here on.
pub(super) fn forget(folder: &Path) {
    match fs::remove_file(folder.join(FILE_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %folder.display(), "the file of addresses could not be removed");
        }
        _ => {}
    }
}

/// The kind takes the place of two bits in the middle: a hash set looks at those at both ends.
fn entry(hash: u64, kind: Kind) -> u64 {
    (hash & !(3 << 40)) | (kind as u64) << 40
}

fn kind(table: Table, key: &[u8], row: &[u8]) -> Kind {
    match table {
        Table::Aliases => Kind::Alias,
        Table::Domains => Kind::Domain,
        _ if is_plain(key, row) => Kind::Plain,
        _ => Kind::User,
    }
}

/// Whether all that RCPT wants to know of a user follows from its key. What cannot be read is left to whoever asks for it.
fn is_plain(key: &[u8], row: &[u8]) -> bool {
    if Head::parse(row).is_some() {
        return false;
    }
    let Ok(user) = values::decode::<UserRecord>(Table::Users, key, row) else { return false };
    let is_folded = LocalPart::new(&user.address.local.key()).is_ok_and(|folded| folded == user.address.local);
    !user.suspended && user.quota.is_none() && is_folded && keys::mailbox(&user.address) == key
}

type Decoded = ([u8; 16], HashSet<u64, BuildHasherDefault<AsIs>>);

fn decode(octets: &[u8], revision: u64) -> Option<Decoded> {
    let rest = octets.strip_prefix(MAGIC)?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (found, rest) = rest.split_first_chunk::<8>()?;
    let (hash_key, rest) = rest.split_first_chunk::<16>()?;
    let (entries, []) = rest.as_chunks::<8>() else { return None };
    if u64::from_le_bytes(*found) != revision || entries.len() > MOST {
        return None;
    }
    Some((*hash_key, entries.iter().map(|entry| u64::from_le_bytes(*entry)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{AliasAddress, Change};
    use crate::sled_store::{SledDirectory, SledOptions};
    use crate::store::Directory;
    use crate::suite::{alias_record, build, user_record};
    use crate::tables::stage;

    const USERS: usize = FEW + 500;

    fn key(address: &str) -> Vec<u8> {
        keys::mailbox(&address.parse().unwrap())
    }

    fn whole(directory: &SledDirectory) -> bool {
        directory.addresses.entries.read().as_ref().is_some_and(|entries| entries.whole)
    }

    /// A database of so many users, one of them suspended, and an alias; its folder.
    async fn large() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.sled");
        let directory = SledDirectory::open(&path).unwrap();
        build(&directory, &["example.org"]).await;
        let mut changes: Vec<_> = (0..USERS).map(|n| Change::PutUser(user_record(&format!("u{n}@example.org")))).collect();
        let suspended = UserRecord { suspended: true, ..user_record("eve@example.org") };
        changes.extend([Change::PutUser(suspended), Change::PutAlias(alias_record("info@example.org", &["u1@example.org"]))]);
        directory.apply(changes).await.unwrap();
        (folder, path)
    }

    /// That look-ups are right, whether by the entries or by the tables.
    async fn right(directory: &SledDirectory, users: usize) {
        for n in [0, users - 1] {
            let address = format!("u{n}@example.org").parse().unwrap();
            assert_eq!(directory.addressee(&address).await.unwrap().unwrap().address, address);
        }
        assert_eq!(directory.addressee(&format!("u{users}@example.org").parse().unwrap()).await.unwrap(), None);
        assert!(directory.addressee(&"eve@example.org".parse().unwrap()).await.unwrap().unwrap().suspended);
        let alias = |text: &str| text.parse::<AliasAddress>().unwrap();
        assert!(directory.alias(&alias("info@example.org")).await.unwrap().is_some());
        assert!(directory.alias(&alias("u1@example.org")).await.unwrap().is_none());
        assert!(directory.alias(&alias("@example.org")).await.unwrap().is_none());
        assert!(directory.has_domain(&"example.org".parse().unwrap()).await.unwrap());
        assert!(!directory.has_domain(&"example.net".parse().unwrap()).await.unwrap());
    }

    #[tokio::test]
    async fn an_orderly_end_leaves_them_for_the_next_start_and_for_that_one_only() {
        let (_folder, path) = large().await;
        let file = path.join(FILE_NAME);
        let left = fs::read(&file).unwrap();
        assert_eq!(left.len(), FRONT + 8 * (USERS + 3));
        let directory = SledDirectory::open(&path).unwrap();
        assert!(whole(&directory), "from the file");
        right(&directory, USERS).await;
        directory.apply(vec![Change::PutUser(user_record(&format!("u{USERS}@example.org")))]).await.unwrap();
        right(&directory, USERS + 1).await;
        directory.state_flush().await;
        assert_eq!(fs::read(&file).unwrap().len(), left.len() + 8, "before it is dropped");
        let revision = directory.generation();
        drop(directory);
        assert_eq!(fs::read(&file).unwrap().len(), left.len() + 8, "as it was at the end");

        // One of another revision, as a restored database would meet it, a torn one and none: all are gathered anew.
        for content in [Some(left.as_slice()), left.get(..left.len() - 8), Some(b""), None] {
            match content {
                Some(content) => fs::write(&file, content).unwrap(),
                None => forget(&path),
            }
            let (addresses, gathering) = Addresses::open(&path, revision);
            assert!(gathering.is_under_way() && addresses.user(&key("u1@example.org")) == Known::Ask && !file.exists());
            let directory = SledDirectory::open(&path).unwrap();
            right(&directory, USERS + 1).await;
        }
    }

    #[tokio::test]
    async fn changes_made_while_they_are_gathered_are_followed() {
        let (_folder, path) = large().await;
        let directory = SledDirectory::open(&path).unwrap();
        fs::remove_file(path.join(FILE_NAME)).unwrap();
        let (addresses, mut gathering) = Addresses::open(&path, 0);
        let forest = &directory.forest;
        for n in 0.. {
            addresses.gather(forest, &mut gathering).unwrap();
            if !gathering.is_under_way() {
                break;
            }
            assert_eq!(addresses.user(&key("u0@example.org")), Known::Ask, "not yet");
            // Before, at and behind the place that was come to: some come, some go, some change.
            let changes: Vec<_> = (n..USERS)
                .step_by(400)
                .map(|n| match n % 3 {
                    0 => Change::RemoveUser(format!("u{n}@example.org").parse().unwrap()),
                    1 => Change::PutUser(UserRecord { suspended: true, ..user_record(&format!("u{n}@example.org")) }),
                    _ => Change::PutAlias(alias_record(&format!("{n}@example.org"), &["u1@example.org"])),
                })
                .collect();
            let writes = stage::stage(forest, &changes).unwrap();
            directory.apply(changes).await.unwrap();
            addresses.follow(&writes);
        }
        let (mut plain, mut alias) = (0, 0);
        for n in 0..USERS {
            let (name, number) = (key(&format!("u{n}@example.org")), key(&format!("{n}@example.org")));
            let expected = match forest.tree(Table::Users).get(&name).unwrap() {
                Some(row) if is_plain(&name, &row) => Known::Plain,
                Some(_) => Known::Ask,
                None => Known::Absent,
            };
            assert_eq!(addresses.user(&name), expected, "u{n}");
            let is_alias = forest.tree(Table::Aliases).contains_key(&number).unwrap();
            assert_eq!(addresses.may_have_alias(&number), is_alias, "{n}");
            plain += usize::from(expected == Known::Plain);
            alias += usize::from(is_alias);
        }
        assert!(plain > 1000 && alias > 100);
        let rows: usize = [Table::Users, Table::Aliases, Table::Domains].map(|table| forest.tree(table).len()).iter().sum();
        assert_eq!(addresses.entries.read().as_ref().unwrap().set.len(), rows, "nothing is left of what was removed");
    }

    #[tokio::test]
    async fn the_suite_with_entries_that_are_whole() {
        let clock = crate::clock::ManualClock::at(1_000_000);
        let folder = tempfile::tempdir().unwrap();
        let options = SledOptions { clock: std::sync::Arc::new(clock.clone()), ..Default::default() };
        let directory = SledDirectory::open_with(folder.path().join("directory.sled"), options).unwrap();
        // The writer answers while it gathers, and an empty database takes it two looks.
        while !whole(&directory) {
            directory.state_flush().await;
        }
        crate::suite::run(&directory, &clock).await;
        assert!(whole(&directory), "they were asked all along");
    }
}
