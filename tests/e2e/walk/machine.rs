//! A machine as it is right after the package was installed: this one's programs in namespaces of their own, with nothing of Pillarbox's but what the package
//! leaves, a public address, and a name server that knows its name.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use pillarbox_testkit::PATIENCE;
use pillarbox_testkit::daemon::binary;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::peers;

/// The machine; it ends with everything in it when dropped.
pub(super) struct Machine {
    folder: TempDir,
    _init: Child,
}

/// Runs as root in fresh namespaces. `$1`: the folder shared with the test, `$2` and `$3`: the two programs, `$4`: the packaged configuration.
const INIT: &str = r#"
set -eu
mount --make-rprivate /
mkdir "$1/machine"
mount -t tmpfs tmpfs "$1/machine"
cd "$1/machine"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
rm -rf etc/pillarbox var/lib/pillarbox var/vmail root/.bash* root/.curlrc root/.tmux.conf
mkdir -p mnt etc/pillarbox var/lib/pillarbox var/vmail run/pillarbox run/dovecot
mount --bind "$1" mnt
for program in "$2:usr/sbin/pillarboxd" "$3:usr/bin/pillarbox" "$3:usr/sbin/sendmail"; do
    rm -f "${program#*:}"; touch "${program#*:}"; mount --bind "${program%%:*}" "${program#*:}"
done
rm -f var/log/pillarbox.log; touch var/log/pillarbox.log; mount --bind "$1/daemon.log" var/log/pillarbox.log
cp "$4" etc/pillarbox/pillarbox.toml
# What the package's postinst does.
chroot . sh -c 'getent passwd pillarbox >/dev/null || useradd --system --user-group --home-dir /var/lib/pillarbox --no-create-home pillarbox'
chroot . chown pillarbox:pillarbox /var/lib/pillarbox /var/vmail /run/pillarbox
chroot . chown -R root:pillarbox /etc/pillarbox
chmod 0711 var/lib/pillarbox; chmod 0700 var/vmail; chmod 0750 etc/pillarbox; chmod 0640 etc/pillarbox/pillarbox.toml
# The machine's place in the world.
hostname mail.example.org
rm -f etc/hosts etc/resolv.conf etc/hostname
echo '127.0.0.1 localhost' >etc/hosts
echo 'nameserver 127.0.0.1' >etc/resolv.conf
echo mail.example.org >etc/hostname
echo '127.0.1.1 mail.example.org mail' >>etc/hosts
ip link set lo up
ip addr add 198.18.0.25/32 dev lo
mkdir -p tmp/named
cat >tmp/named/org <<ZONE
\$TTL 60
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
mail IN A 198.18.0.25
ZONE
cat >tmp/named/reverse <<ZONE
\$TTL 60
@ IN SOA ns.example.org. hostmaster.example.org. 1 3600 600 86400 60
@ IN NS ns.example.org.
25 IN PTR mail.example.org.
ZONE
cat >tmp/named/conf <<CONF
options { directory "/tmp/named"; listen-on { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; lock-file none;
  session-keyfile none; dnssec-validation no; notify no; };
controls { };
zone "example.org" { type primary; file "org"; };
zone "0.18.198.in-addr.arpa" { type primary; file "reverse"; };
CONF
chroot . named -c /tmp/named/conf
# The terminal. Its size and prompt are those of the picture.
printf 'set -g status off\nset -g history-limit 5000\nset -g default-terminal screen-256color\n' >tmp/tmux.conf
printf "PS1='root@mail:~# '\n" >tmp/bashrc
export HOME=/root TERM=xterm-256color LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset PILLARBOX_CONFIG TMUX
chroot . tmux -f /tmp/tmux.conf -S /mnt/tmux new-session -d -s walk -x 100 -y 40 -c /root 'exec bash --rcfile /tmp/bashrc'
chroot . tmux -S /mnt/tmux pipe-pane -t walk 'exec cat >/mnt/screen'
echo up
# As the first process of its namespace: everything else ends with it, and it ends with the test.
exec cat
"#;

impl Machine {
    /// `None`, with a word, where a peer is missing or namespaces are not permitted.
    pub(super) async fn start() -> Option<Self> {
        let needed = ["unshare", "tmux", "named", "dovecot", "curl", "ip"];
        if !needed.into_iter().all(peers::have) {
            return None;
        }
        let folder = pillarbox_testkit::folder();
        for name in ["daemon.log", "screen"] {
            let path = folder.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666), 0).unwrap();
        }
        let packaged = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../etc/pillarbox.toml");
        let mut command = Command::new(peers::path("unshare")?);
        command.args(["--mount", "--uts", "--net", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-c", INIT, "init"]);
        command.arg(folder.path()).arg(binary("pillarboxd")).arg(binary("pillarbox")).arg(packaged.canonicalize().unwrap());
        // Its standard input is its life.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut init = command.spawn().unwrap();
        let mut said = BufReader::new(init.stdout.take()?).lines();
        let up = tokio::time::timeout(PATIENCE, said.next_line()).await.ok().and_then(Result::ok).flatten();
        if up.as_deref() != Some("up") {
            assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "the machine did not start");
            eprintln!("skipped: namespaces and an overlay are not permitted here");
            return None;
        }
        Some(Self { folder, _init: init })
    }

    /// The folder shared with it.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
