//! Which files the daemon may still open, from its configuration, and the landlock ruleset that holds it to them.
//!
//! Folders are granted rather than single files: editors, certbot and package scripts replace a file by renaming another over it, and a rule
//! is bound to what it was made for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use pillarbox_config::Config;

/// Rights are those of this version, tried here; what a later kernel can also withhold is not asked for before it was tried.
const VERSION: ABI = ABI::V6;

/// What the C library, the resolver and TLS read. All of /etc, since its files are replaced one by one (resolv.conf, passwd, certificates);
/// what is secret there is closed to the daemon's user by its mode.
const SYSTEM: &[&str] = &[
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    // Root certificates, where distributions keep them outside /etc and /usr.
    "/var/lib/ca-certificates",
    // What the runtime and the allocator ask the kernel.
    "/proc/self",
    "/proc/sys/kernel/random",
    "/proc/sys/vm",
    "/proc/stat",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/urandom",
    "/dev/random",
];

/// The folders that are open to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Paths {
    /// Read.
    pub(super) read: BTreeSet<PathBuf>,
    /// Read, written, made and removed.
    pub(super) write: BTreeSet<PathBuf>,
    /// Only names may be removed: where sockets lie that are listened on.
    pub(super) tidy: BTreeSet<PathBuf>,
}

impl Paths {
    /// From the configuration, its file and the environment.
    pub(super) fn new(config: &Config, config_file: &Path) -> Self {
        let mut paths = Self { read: SYSTEM.iter().map(PathBuf::from).collect(), ..Self::default() };
        for file in files(config).into_iter().chain([config_file.to_owned(), "/etc/resolv.conf".into()]) {
            paths.read.extend(folders_of(&file));
        }
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            // SSL_CERT_DIR is a list.
            for path in std::env::var_os(name).iter().flat_map(std::env::split_paths) {
                paths.read.extend(folders_of(&path));
                paths.read.insert(path);
            }
        }
        paths.write = folders(config).into_iter().collect();
        let sockets = config.listen.services().into_iter().flat_map(|(_, addresses)| addresses);
        paths.tidy = sockets.filter_map(|a| Some(Path::new(a.strip_prefix("unix:")?).parent()?.to_owned())).collect();
        paths
    }

    /// The first file or folder of a new configuration that is out of reach.
    pub(super) fn out_of_reach(&self, config: &Config) -> Option<PathBuf> {
        let within = |open: &BTreeSet<PathBuf>, path: &Path| {
            // By its real place, which is what the kernel goes by.
            let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            open.iter().any(|folder| real.starts_with(folder.canonicalize().as_ref().unwrap_or(folder)))
        };
        let file = files(config).into_iter().find(|file| !within(&self.read, file) && !within(&self.write, file));
        file.or_else(|| folders(config).into_iter().find(|folder| !within(&self.write, folder)))
    }

    /// Holds the calling thread, and those that it starts, to these folders. An error means that nothing is held.
    pub(super) fn enter(&self) -> Result<RestrictionStatus, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        // Neither programs nor devices nor links are ever made.
        let write = AccessFs::from_all(VERSION)
            & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::MakeSym | AccessFs::IoctlDev);
        let mut ruleset = Ruleset::default()
            // Without this right (before Linux 5.19) no file could be moved from one folder to another, as mailboxes need it.
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(VERSION))?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::Signal)?;
        // A service manager in a container may be told of readiness by an abstract socket.
        if !std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| name.as_encoded_bytes().starts_with(b"@")) {
            ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
        }
        let mut ruleset = ruleset
            .create()?
            // Connections out may be bound to relay.source_addresses, at a port of the kernel's choice; ports to serve are bound already.
            .add_rule(NetPort::new(0, AccessNet::BindTcp))?;
        let devices = [PathBuf::from("/dev/null")];
        let device = AccessFs::ReadFile | AccessFs::WriteFile;
        let tidy: BitFlags<AccessFs> = AccessFs::RemoveFile.into();
        let groups = [(&self.read, read), (&self.write, write), (&self.tidy, tidy), (&BTreeSet::from(devices), device)];
        for (paths, access) in groups {
            for path in paths {
                // What is not there is not needed: other distributions, other versions.
                let Ok(open) = PathFd::new(path) else { continue };
                let access = if path.is_dir() { access } else { access & AccessFs::from_file(VERSION) };
                ruleset = ruleset.add_rule(PathBeneath::new(open, access))?;
            }
        }
        ruleset.restrict_self()
    }
}

/// Every file that the configuration names to be read.
fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = vec![&config.tls.certificate, &config.tls.private_key];
    files.extend(config.tls.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.private_key]));
    if let Some(acme) = &config.tls.acme {
        files.extend([&acme.ca_file, &acme.dns_update_key_file]);
    }
    files.extend([&config.relay.smarthost_password_file, &config.relay.ca_file, &config.dns.trust_anchor]);
    files.extend(config.relay.routes.iter().map(|route| &route.password_file));
    let mut files: Vec<PathBuf> = files.into_iter().filter(|path| !path.as_os_str().is_empty()).cloned().collect();
    let query = config.directory.url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    files.extend(query.split('&').filter_map(|pair| pair.strip_prefix("sslrootcert=")).map(PathBuf::from));
    files
}

/// Every folder that the configuration names to be written in.
fn folders(config: &Config) -> Vec<PathBuf> {
    let mut folders = vec![config.paths.state.clone(), config.paths.mail.clone(), config.paths.runtime.clone()];
    folders.extend(config.security.folders.iter().cloned());
    folders.extend(config.tls.acme.as_ref().map(|acme| acme.webroot.clone()).filter(|path| !path.as_os_str().is_empty()));
    folders
}

/// The folder that a file is named in and the one it really lies in: certbot's live/NAME/fullchain.pem is a link into archive/NAME. A file that
/// lies in the root folder is granted alone.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let real = file.canonicalize().ok();
    let folder = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("/") && parent != Path::new("") => parent.to_owned(),
        _ => path.to_owned(),
    };
    [Some(file), real.as_deref()].into_iter().flatten().map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value for each key that names a file or a folder to read; a new key must be added here and above.
    fn everything() -> Config {
        let text = r#"
            directory.url = "postgres://db/pillarbox?sslmode=require&sslrootcert=/files/sslrootcert/x"
            [tls]
            certificate = "/files/tls.certificate/x"
            private_key = "/files/tls.private_key/x"
            certificates = [{ certificate = "/files/tls.certificates[].certificate/x", private_key = "/files/tls.certificates[].private_key/x" }]
            [tls.acme]
            webroot = "/folders/tls.acme.webroot"
            dns_hook = "/files/tls.acme.dns_hook/x"
            dns_update_key_file = "/files/tls.acme.dns_update_key_file/x"
            ca_file = "/files/tls.acme.ca_file/x"
            [relay]
            smarthost_password_file = "/files/relay.smarthost_password_file/x"
            ca_file = "/files/relay.ca_file/x"
            routes = [{ domain = "example.net", via = "mx", password_file = "/files/relay.routes[].password_file/x" }]
            [dns]
            trust_anchor = "/files/dns.trust_anchor/x"
            [security]
            folders = ["/folders/security.folders"]
        "#;
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_file_that_a_key_names_can_be_read() {
        let config = everything();
        let paths = Paths::new(&config, Path::new("/config/here/pillarbox.toml"));
        let mut held = 0;
        for key in pillarbox_config::KEYS.iter().filter(|key| key.kind == "file") {
            // The hook is run by another process.
            if key.path != "tls.acme.dns_hook" {
                assert!(paths.read.contains(&Path::new("/files").join(key.path)), "{} is not among the files of `files`", key.path);
                held += 1;
            }
        }
        assert!(held >= 8, "{held}");
        for folder in pillarbox_config::KEYS.iter().filter(|key| key.kind == "folder") {
            let wanted = match folder.path {
                "paths.state" => &config.paths.state,
                "paths.mail" => &config.paths.mail,
                "paths.runtime" => &config.paths.runtime,
                other => &Path::new("/folders").join(other),
            };
            assert!(paths.write.contains(wanted), "{} is not among the folders of `folders`", folder.path);
        }
        assert!(paths.write.contains(Path::new("/folders/security.folders")));
        assert!(paths.read.contains(Path::new("/files/sslrootcert")));
        assert!(paths.read.contains(Path::new("/config/here")));
    }

    #[test]
    fn a_new_file_elsewhere_is_out_of_reach() {
        let paths = Paths::new(&Config::default(), Path::new("/etc/pillarbox/pillarbox.toml"));
        assert_eq!(paths.out_of_reach(&Config::default()), None);
        let mut near = Config::default();
        near.relay.smarthost_password_file = "/etc/pillarbox/smarthost".into();
        assert_eq!(paths.out_of_reach(&near), None);
        let mut far = Config::default();
        far.relay.smarthost_password_file = "/srv/secrets/smarthost".into();
        assert_eq!(paths.out_of_reach(&far), Some("/srv/secrets/smarthost".into()));
        let mut webroot = Config::default();
        webroot.tls.acme = Some(pillarbox_config::Acme { webroot: "/etc/pillarbox".into(), ..pillarbox_config::Acme::default() });
        assert_eq!(paths.out_of_reach(&webroot), Some("/etc/pillarbox".into()), "reading is not writing");
    }
}
