//! A machine of its own in namespaces: the clean root in memory, its own processes, network and control groups, with systemd or
//! without.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::LinkNameSpaceType;

use super::root::last_lines;

/// Longest time that anything in the machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Joins a control group of its own, then goes on in new namespaces.
const OUTER: &str = r#"
set -e
folder=$1; group=$2; shift 2
mkdir "$folder/groups"
mount -t cgroup2 cgroup2 "$folder/groups"
mkdir "$folder/groups/$group"
echo $$ > "$folder/groups/$group/cgroup.procs"
exec unshare --cgroup --mount --propagation private --pid --net --ipc --uts --fork --kill-child sh -c "$@"
"#;

/// Unpacks the root, gives it the file systems that a system expects and starts the first process. The kernel's settings are out of its reach.
const INNER: &str = r#"
set -e
root=$1; archive=$2; shared=$3; shift 3
mount -t tmpfs -o mode=755 tmpfs "$root"
tar -C "$root" --numeric-owner -xpf "$archive"
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in run tmp; do mount -t tmpfs tmpfs $folder; done
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do : > dev/$device; mount --bind /dev/$device dev/$device; done
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mount --bind "$shared" srv
hostname mail.example.test
echo '127.0.0.1 mail.example.test localhost' > etc/hosts
echo 'nameserver 127.0.0.1' > etc/resolv.conf
mkdir run/old
: > "$shared/up"
pivot_root . run/old
cd /
umount -l /run/old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"#;

/// A running machine; gone with all that runs in it when dropped.
pub(super) struct Machine {
    outer: Child,
    init: String,
    group: String,
    folder: tempfile::TempDir,
}

impl Machine {
    /// Boots the archived root under systemd.
    pub(super) fn boot(archive: &Path) -> Self {
        let this = Self::start(archive, &["/lib/systemd/systemd", "--show-status=0"]);
        this.until("systemd is up", "systemctl is-system-running | grep -qx -e running -e degraded");
        this
    }

    /// Starts the archived root with a first process that does nothing, as in a container.
    pub(super) fn without_systemd(archive: &Path) -> Self {
        let this = Self::start(archive, &["sleep", "infinity"]);
        this.until("the machine is up", "[ ! -e /run/old ] || rmdir /run/old");
        let output = Command::new("nsenter").args(["-t", &this.init, "-n", "ip", "link", "set", "lo", "up"]).output().unwrap();
        assert!(output.status.success(), "{}", last_lines(&output));
        this
    }

    fn start(archive: &Path, init: &[&str]) -> Self {
        let folder = pillarbox_testkit::folder();
        let (root, shared) = (folder.path().join("root"), folder.path().join("shared"));
        [&root, &shared].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let group = format!("pillarbox-test-{}", std::process::id());
        // It ends with this test however the test ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "sh", "-c", OUTER, "outer"])
            .arg(folder.path())
            .arg(&group);
        command.args([INNER, "inner"]).arg(&root).arg(archive).arg(&shared).args(init);
        let mut outer = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let path = format!("/proc/{0}/task/{0}/children", outer.id());
        let began = Instant::now();
        while !shared.join("up").exists() {
            assert!(outer.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE, "the machine did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        // From here on it has one child, which is or becomes the first process.
        let init = std::fs::read_to_string(path).unwrap().trim().to_owned();
        Self { outer, init, group, folder }
    }

    /// A folder that the machine sees as `/srv`.
    pub(super) fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    /// Runs a shell command in the machine to its end.
    pub(super) fn run(&self, command: &str) -> Output {
        let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LANG=C.UTF-8", "HOME=/root"];
        Command::new("timeout")
            .arg(PATIENCE.as_secs().to_string())
            .args(["nsenter", "-t", &self.init, "-m", "-u", "-i", "-n", "-p", "-C", "env", "-i"])
            .args(environment)
            .args(["sh", "-c", command])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// [`Self::run`] of what must succeed: what it printed.
    pub(super) fn sh(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command}: {}\n{}", last_lines(&output), self.last_of_the_journal());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Wants a shell command to print exactly this.
    pub(super) fn says(&self, command: &str, wanted: &str) {
        let output = self.run(command);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), wanted, "{command}: {}\n{}", last_lines(&output), self.last_of_the_journal());
    }

    /// Whether a shell command succeeds.
    pub(super) fn holds(&self, command: &str) -> bool {
        self.run(command).status.success()
    }

    /// Waits until a shell command succeeds.
    pub(super) fn until(&self, what: &str, command: &str) {
        let began = Instant::now();
        while !self.holds(command) {
            assert!(began.elapsed() < PATIENCE, "in vain: {what}\n{}", self.last_of_the_journal());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Moves this thread into the machine's network, and with it whatever socket it opens from now on.
    pub(super) fn enter_network(&self) {
        let file = std::fs::File::open(format!("/proc/{}/ns/net", self.init)).unwrap();
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    fn last_of_the_journal(&self) -> String {
        last_lines(&self.run("if [ -d /run/systemd/system ]; then journalctl --no-pager -n 25; else tail -n 25 /srv/log; fi"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With the first process all others end, and their namespaces with them.
        let _ = Command::new("kill").args(["-KILL", &self.init]).output();
        let began = Instant::now();
        while matches!(self.outer.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let leave = r#"mount -t cgroup2 cgroup2 "$1/groups"; find "$1/groups/$2" -depth -type d -exec rmdir {} +"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", leave, "leave"]).arg(self.folder.path()).arg(&self.group);
        let _ = command.output();
    }
}
