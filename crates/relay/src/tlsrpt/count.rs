//! Counting TLS sessions by domain, policy and UTC day (RFC 8460 §4), in memory and on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};

use super::report::{Failure, PolicyInfo, Section, Summary};

/// Domains counted a day; mail to more than that many is not reported on.
const MAX_DOMAINS: usize = 20_000;
/// Policies counted a domain and day; they change rarely.
const MAX_POLICIES: usize = 8;
/// Kinds of failure counted a policy.
const MAX_FAILURES: usize = 100;
/// Largest file read back.
const MAX_FILE: u64 = 256 << 20;
/// Format of the files that this program writes, and the newest it reads.
const FORMAT: u32 = 1;

/// One session's result.
#[derive(Debug, Clone)]
pub struct SessionResult<'a> {
    /// The policy that applied, its domain included.
    pub policy: PolicyInfo,
    /// The host.
    pub host: &'a str,
    /// Its address, where it came to a connection.
    pub address: Option<IpAddr>,
    /// `result-type` and words, for a failure.
    pub failure: Option<(&'static str, String)>,
}

/// A day's sections by domain.
pub type Day = BTreeMap<String, Vec<Section>>;

/// The counts.
pub struct Counter {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    days: BTreeMap<String, Day>,
    dirty: bool,
}

/// `2026-11-24`.
pub fn day_name(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    domains: Day,
}

impl Counter {
    /// Keeps its counts in `folder`; today's are read back from an earlier process.
    pub fn open(folder: PathBuf, now: OffsetDateTime) -> Self {
        let counter = Self { folder, state: Mutex::default() };
        let today = day_name(now.date());
        if let Some(day) = counter.read(&today) {
            counter.state.lock().days.insert(today, day);
        }
        counter
    }

    /// Counts one session.
    pub fn record(&self, now: OffsetDateTime, result: &SessionResult<'_>) {
        let mut state = self.state.lock();
        state.dirty = true;
        let day = state.days.entry(day_name(now.date())).or_default();
        let domain = &result.policy.policy_domain;
        if day.len() >= MAX_DOMAINS && !day.contains_key(domain) {
            return;
        }
        let sections = day.entry(domain.clone()).or_default();
        let at = match sections.iter().position(|section| section.policy == result.policy) {
            Some(at) => at,
            None if sections.len() >= MAX_POLICIES => return,
            None => {
                sections.push(Section { policy: result.policy.clone(), summary: Summary::default(), failure_details: vec![] });
                sections.len() - 1
            }
        };
        let Some(section) = sections.get_mut(at) else { return };
        let Some((kind, words)) = &result.failure else {
            section.summary.total_successful_session_count += 1;
            return;
        };
        section.summary.total_failure_session_count += 1;
        let address = result.address.map(|ip| ip.to_string()).unwrap_or_default();
        let same = |f: &Failure| f.result_type == *kind && f.receiving_mx_hostname == result.host && f.receiving_ip == address;
        if let Some(failure) = section.failure_details.iter_mut().find(|f| same(f)) {
            failure.failed_session_count += 1;
        } else if section.failure_details.len() < MAX_FAILURES {
            section.failure_details.push(Failure {
                result_type: (*kind).to_owned(),
                sending_mta_ip: String::new(),
                receiving_mx_hostname: result.host.to_owned(),
                receiving_ip: address,
                failed_session_count: 1,
                failure_reason_code: pillarbox_smtp::printable(words.as_bytes()),
            });
        }
    }

    /// Writes what changed. Blocks.
    pub fn save(&self) -> std::io::Result<()> {
        let days: Vec<(String, Day)> = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            state.days.iter().map(|(name, day)| (name.clone(), day.clone())).collect()
        };
        for (name, day) in days {
            self.write(&name, day).inspect_err(|_| self.state.lock().dirty = true)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, domains: Day) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{name}.json"));
        let fresh = path.with_extension("tmp");
        std::fs::write(&fresh, serde_json::to_vec(&File { version: FORMAT, domains })?)?;
        std::fs::rename(fresh, path)
    }

    fn read(&self, name: &str) -> Option<Day> {
        let file = std::fs::File::open(self.folder.join(format!("{name}.json"))).ok()?;
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE), &mut text).ok()?;
        let OnlyVersion { version } = serde_json::from_slice(&text).ok()?;
        if version > FORMAT {
            tracing::warn!(
                day = name,
                version,
                "TLS sessions were counted by a newer version of this program; those counts are passed over"
            );
            return None;
        }
        Some(serde_json::from_slice::<File>(&text).ok()?.domains)
    }

    /// Days before `today` that wait to be reported, oldest first. Blocks.
    pub fn finished_days(&self, today: Date) -> std::io::Result<Vec<String>> {
        self.save()?;
        let today = day_name(today);
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(day) = name.to_str().and_then(|n| n.strip_suffix(".json")) else { continue };
            if day.len() == 10 && day < today.as_str() {
                found.push(day.to_owned());
            }
        }
        found.sort();
        Ok(found)
    }

    /// A day's counts: those in memory, else those on disk. Blocks.
    pub fn day(&self, name: &str) -> Option<Day> {
        let in_memory = self.state.lock().days.get(name).cloned();
        in_memory.or_else(|| self.read(name))
    }

    /// Leaves only these domains of a day, or forgets the day when none is left. Blocks.
    pub fn keep(&self, name: &str, rest: Day) -> std::io::Result<()> {
        self.state.lock().days.remove(name);
        if !rest.is_empty() {
            return self.write(name, rest);
        }
        match std::fs::remove_file(self.folder.join(format!("{name}.json"))) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    pub(crate) fn result(domain: &str, failure: Option<&'static str>) -> SessionResult<'static> {
        let policy =
            PolicyInfo { policy_type: "no-policy-found".into(), policy_string: vec![], policy_domain: domain.into(), mx_host: vec![] };
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        SessionResult { policy, host: "mx.test", address, failure: failure.map(|kind| (kind, "why\n".to_owned())) }
    }

    #[test]
    fn counts_survive_a_restart_and_are_kept_by_day() {
        let folder = tempfile::tempdir().unwrap();
        let now = datetime!(2026-11-24 23:59:59 UTC);
        let counter = Counter::open(folder.path().join("tlsrpt"), now);
        counter.record(now, &result("a.test", None));
        counter.record(now, &result("a.test", Some("certificate-expired")));
        counter.save().unwrap();
        let counter = Counter::open(folder.path().join("tlsrpt"), now);
        counter.record(now, &result("a.test", Some("certificate-expired")));
        counter.record(now + time::Duration::seconds(2), &result("b.test", None));
        assert_eq!(counter.finished_days(datetime!(2026-11-25 0:00 UTC).date()).unwrap(), ["2026-11-24"]);
        let day = counter.day("2026-11-24").unwrap();
        let section = &day["a.test"][0];
        assert_eq!((section.summary.total_successful_session_count, section.summary.total_failure_session_count), (1, 2));
        assert_eq!(section.failure_details.len(), 1);
        assert_eq!(section.failure_details[0].failed_session_count, 2);
        assert_eq!(section.failure_details[0].failure_reason_code, "why\\n");
        counter.keep("2026-11-24", Day::new()).unwrap();
        assert!(counter.finished_days(datetime!(2026-11-25 0:00 UTC).date()).unwrap().is_empty());
        assert!(counter.day("2026-11-25").unwrap().contains_key("b.test"));
        std::fs::write(folder.path().join("tlsrpt/2026-11-20.json"), r#"{"version":2,"domains":["not", "as", "before"]}"#).unwrap();
        assert!(counter.day("2026-11-20").is_none());
    }

    #[test]
    fn counts_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let now = datetime!(2026-11-24 12:00 UTC);
        let counter = Counter::open(folder.path().to_owned(), now);
        for n in 0..300 {
            let mut one = result("a.test", Some("validation-failure"));
            one.address = Some(IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]));
            counter.record(now, &one);
        }
        let day = counter.day("2026-11-24").unwrap();
        assert_eq!(day["a.test"][0].failure_details.len(), MAX_FAILURES);
        assert_eq!(day["a.test"][0].summary.total_failure_session_count, 300);
    }
}
