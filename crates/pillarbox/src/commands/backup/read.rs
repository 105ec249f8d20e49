//! Reading an archive to its end: every entry safe to name, every checksum right.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path};

use sha2::{Digest, Sha256};
use tar::EntryType;

use super::{FORMAT, MANIFEST, Manifest, SUMS};
use crate::failure::{Failure, Trying};
use crate::out::{safe, size};
use crate::progress::Progress;
use crate::session::Session;

/// Longest manifest, and longest list of checksums (some ten million files), octets.
const TEXT: u64 = 1 << 30;

/// What a look at the whole archive found.
pub(super) struct Seen {
    pub(super) manifest: Manifest,
    pub(super) entries: u64,
    pub(super) octets: u64,
}

/// `backup verify`.
pub(crate) fn verify(session: &Session, path: &Path) -> Result<(), Failure> {
    let file = File::open(path).trying(format!("read {}", path.display()))?;
    let seen = check(path, &file)?;
    if session.out.json {
        return session.out.value(&serde_json::json!({
            "manifest": seen.manifest,
            "entries": seen.entries,
            "size_bytes": seen.octets,
            "ok": true,
        }));
    }
    let mail = if seen.manifest.with_mail { "with mailboxes" } else { "without mailboxes" };
    session.out.line(format!(
        "The backup of {} from {} is whole: {} files, {}, {mail}.",
        safe(&seen.manifest.hostname),
        safe(&seen.manifest.created),
        seen.entries,
        size(seen.octets)
    ))
}

/// Reads everything once.
pub(super) fn check(path: &Path, file: &File) -> Result<Seen, Failure> {
    let mut sums: BTreeMap<String, String> = BTreeMap::new();
    let (mut manifest, mut listed, mut octets) = (None, None, 0u64);
    each(path, file, |name, content| {
        let mut sum = Sha256::new();
        if name == SUMS || name == MANIFEST {
            let mut text = String::new();
            content.take(TEXT).read_to_string(&mut text)?;
            sum.update(text.as_bytes());
            octets = octets.saturating_add(text.len() as u64);
            if name == SUMS {
                listed = Some(text);
                return Ok(());
            }
            manifest = Some(manifest_of(&text)?);
        } else {
            octets = octets.saturating_add(io::copy(content, &mut HashWriter(&mut sum))?);
        }
        sums.insert(name.to_owned(), sum.finalize().iter().map(|b| format!("{b:02x}")).collect());
        Ok(())
    })?;
    let manifest = manifest.ok_or_else(|| Failure::failed(format!("{} is no backup of Pillarbox", path.display())))?;
    let listed = listed.ok_or_else(|| Failure::failed(format!("{} was cut off: its checksums are missing", path.display())))?;
    compare(&sums, &listed)?;
    Ok(Seen { manifest, entries: sums.len() as u64, octets })
}

fn manifest_of(text: &str) -> io::Result<Manifest> {
    let manifest: Manifest = serde_json::from_str(text).map_err(io::Error::other)?;
    if manifest.format > FORMAT {
        return Err(io::Error::other(format!(
            "it was written by Pillarbox {}, which is newer; upgrade this program",
            safe(&manifest.version)
        )));
    }
    Ok(manifest)
}

fn compare(sums: &BTreeMap<String, String>, listed: &str) -> Result<(), Failure> {
    let mut seen = 0;
    for line in listed.lines() {
        let Some((sum, name)) = line.split_once("  ") else {
            return Err(Failure::failed("the list of checksums is damaged"));
        };
        match sums.get(name) {
            Some(found) if found == sum => seen += 1,
            Some(_) => return Err(Failure::failed(format!("{} is damaged: its checksum differs", safe(name)))),
            None => return Err(Failure::failed(format!("{} is missing", safe(name)))),
        }
    }
    if seen == sums.len() { Ok(()) } else { Err(Failure::failed("there are files in the backup that its checksums do not name")) }
}

/// Goes through all entries in order. Names that lead out of the archive, and anything but plain files, are refused.
pub(super) fn each(path: &Path, mut file: &File, mut found: impl FnMut(&str, &mut dyn Read) -> io::Result<()>) -> Result<(), Failure> {
    let reading = || format!("read {}", path.display());
    file.seek(SeekFrom::Start(0)).trying(reading())?;
    let bar = Progress::bar(file.metadata().map_or(0, |m| m.len()));
    let decoder = zstd::Decoder::new(BufReader::new(bar.reading(file))).trying(reading())?;
    let mut archive = tar::Archive::new(decoder);
    for entry in archive.entries().trying(reading())? {
        let mut entry = entry.trying(reading())?;
        let name = entry.path().trying(reading())?.into_owned();
        let plain = name.components().all(|c| matches!(c, Component::Normal(_)));
        let Some(name) = name.to_str().filter(|_| plain && entry.header().entry_type() == EntryType::Regular) else {
            return Err(Failure::failed(format!("the backup holds {:?}, which is no plain file inside it", name.display().to_string())));
        };
        bar.say(safe(name));
        found(name, &mut entry).trying(format!("read {name} from {}", path.display()))?;
    }
    // Behind the last entry lies the compressor's own checksum; without it the end may be missing.
    io::copy(&mut archive.into_inner(), &mut io::sink()).trying(reading())?;
    Ok(())
}

/// The text of one entry.
pub(super) fn text_of(path: &Path, file: &File, wanted: &str) -> Result<Option<String>, Failure> {
    let mut text = None;
    each(path, file, |name, content| {
        if name == wanted {
            let mut found = String::new();
            content.take(TEXT).read_to_string(&mut found)?;
            text = Some(found);
        }
        Ok(())
    })?;
    Ok(text)
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
