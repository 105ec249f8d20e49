//! The certificates that listeners present: loaded from files, made with rcgen where there are none, swapped while connections run.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_config::Config;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's or the parser's words.
        why: String,
    },
    /// Certificate and key do not belong together, or the key is of a kind that TLS does not know.
    #[error("the certificate {certificate} and the key {key} cannot be used together: {why}")]
    Pair {
        /// Chain file.
        certificate: PathBuf,
        /// Key file.
        key: PathBuf,
        /// Rustls' words.
        why: String,
    },
    /// Making a self-signed certificate failed.
    #[error("cannot make a self-signed certificate: {0}")]
    Make(String),
}

/// What `status` and `tls status` say of a certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateInfo {
    /// First name in it.
    pub name: String,
    /// All its DNS names.
    pub names: Vec<String>,
    /// When it began.
    pub not_before: OffsetDateTime,
    /// When it ends.
    pub not_after: OffsetDateTime,
    /// Issuer and subject are the same.
    pub self_signed: bool,
    /// The chain file.
    pub path: PathBuf,
}

/// The set in force.
struct Loaded {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
    infos: Vec<CertificateInfo>,
}

/// Certificates by SNI over an atomically replaced set, so that a reload touches no open session.
pub struct CertificateStore {
    loaded: ArcSwap<Loaded>,
}

impl CertificateStore {
    /// Loads what the configuration names; with nothing named, the ACME certificate under STATE/tls/acme, else a
    /// self-signed one kept in STATE/tls.
    pub fn load(config: &Config) -> Result<Arc<Self>, CertificateError> {
        Ok(Arc::new(Self { loaded: ArcSwap::from_pointee(load_all(config)?) }))
    }

    /// Loads anew. On error the old set stays in force.
    pub fn reload(&self, config: &Config) -> Result<(), CertificateError> {
        self.loaded.store(Arc::new(load_all(config)?));
        Ok(())
    }

    /// What is served now, the default first.
    pub fn infos(&self) -> Vec<CertificateInfo> {
        self.loaded.load().infos.clone()
    }
}

impl std::fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateStore").field("infos", &self.loaded.load().infos).finish()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.load();
        let named = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            loaded.by_name.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                loaded.by_name.get(&format!("*.{parent}"))
            })
        });
        Some(named.unwrap_or(&loaded.default).clone())
    }
}

fn load_all(config: &Config) -> Result<Loaded, CertificateError> {
    let (certificate, key) = default_pair(config)?;
    let (default, info) = load_pair(&certificate, &key)?;
    let mut by_name = HashMap::new();
    let mut infos = Vec::new();
    let mut add = |certified: &Arc<CertifiedKey>, info: CertificateInfo| {
        for name in &info.names {
            by_name.entry(name.to_ascii_lowercase()).or_insert_with(|| certified.clone());
        }
        infos.push(info);
    };
    add(&default, info);
    for pair in &config.tls.certificates {
        let (certified, info) = load_pair(&pair.certificate, &pair.private_key)?;
        add(&certified, info);
    }
    for folder in domain_folders(config) {
        // Ordered anew where it cannot be served; mail does not depend on it.
        match load_pair(&folder.join("certificate.pem"), &folder.join("private_key.pem")) {
            Ok((certified, info)) => add(&certified, info),
            Err(error) => tracing::warn!(%error, "the certificate of a domain is not served"),
        }
    }
    Ok(Loaded { default, by_name, infos })
}

/// STATE/tls/acme: the account and the host's certificate from the ACME authority.
pub fn acme_folder(config: &Config) -> PathBuf {
    config.paths.state.join("tls/acme")
}

/// STATE/tls/acme/domains: a folder for each hosted domain with a certificate of its own.
pub fn domains_folder(config: &Config) -> PathBuf {
    acme_folder(config).join("domains")
}

/// The folder of one hosted domain.
pub fn domain_folder(config: &Config, domain: &str) -> PathBuf {
    domains_folder(config).join(domain)
}

/// Folders of domains with a certificate, where they are served at all.
fn domain_folders(config: &Config) -> Vec<PathBuf> {
    if config.tls.acme.is_none() || config.listen.https.is_empty() {
        return Vec::new();
    }
    let entries = fs::read_dir(domains_folder(config)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|folder| folder.join("certificate.pem").is_file()).collect();
    found.sort();
    found
}

/// The files of the default certificate; makes the self-signed one when there is nothing else.
fn default_pair(config: &Config) -> Result<(PathBuf, PathBuf), CertificateError> {
    if !config.tls.certificate.as_os_str().is_empty() {
        return Ok((config.tls.certificate.clone(), config.tls.private_key.clone()));
    }
    let folder = config.paths.state.join("tls");
    let acme = (acme_folder(config).join("certificate.pem"), acme_folder(config).join("private_key.pem"));
    if config.tls.acme.is_some() && acme.0.exists() && acme.1.exists() {
        // Somebody may have put another key in place; the certificate is then ordered anew, and mail goes on meanwhile.
        match load_pair(&acme.0, &acme.1) {
            Ok(_) => return Ok(acme),
            Err(error) => {
                tracing::error!(%error, "the certificate from the ACME authority cannot be served; a self-signed one stands in for it")
            }
        }
    }
    let own = (folder.join("self-signed.pem"), folder.join("self-signed.key.pem"));
    let usable = own.0.exists()
        && own.1.exists()
        && load_pair(&own.0, &own.1).is_ok_and(|(_, info)| {
            info.names.iter().any(|n| n.eq_ignore_ascii_case(&config.hostname))
                && info.not_after > OffsetDateTime::now_utc() + Duration::days(7)
        });
    if !usable {
        make_self_signed(&config.hostname, &folder, &own.0, &own.1)?;
    }
    Ok(own)
}

fn make_self_signed(hostname: &str, folder: &Path, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
    let make = |e: rcgen::Error| CertificateError::Make(e.to_string());
    let name = if hostname.is_empty() { "localhost" } else { hostname };
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).map_err(make)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    // 825 days in all, the day before now included: mail programs of Apple's refuse longer ones.
    params.not_after = now + Duration::days(824);
    let pair = rcgen::KeyPair::generate().map_err(make)?;
    let signed = params.self_signed(&pair).map_err(make)?;
    fs::create_dir_all(folder).map_err(|e| file_error(folder, e))?;
    // The key first: a certificate without its key would be taken for a usable pair that then fails to load.
    write_private(key, pair.serialize_pem().as_bytes())?;
    write_private(certificate, signed.pem().as_bytes())
}

/// Writes a file that only the owner reads, by way of a temporary name so that a crash leaves no half of it.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), CertificateError> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|e| file_error(path, e))
}

fn file_error(path: &Path, error: impl ToString) -> CertificateError {
    CertificateError::File { path: path.to_owned(), why: error.to_string() }
}

fn load_pair(certificate: &Path, key: &Path) -> Result<(Arc<CertifiedKey>, CertificateInfo), CertificateError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<_, _>>())
        .map_err(|e| file_error(certificate, e))?;
    let first = chain.first().ok_or_else(|| file_error(certificate, "no certificate in it"))?;
    let info = describe(certificate, first)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| file_error(key, e))?;
    let pair_error =
        |e: rustls::Error| CertificateError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), why: e.to_string() };
    let signing = aws_lc_rs::sign::any_supported_type(&private).map_err(pair_error)?;
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(pair_error)?;
    Ok((Arc::new(certified), info))
}

fn describe(path: &Path, der: &CertificateDer<'_>) -> Result<CertificateInfo, CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|e| file_error(path, e))?;
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let x509_parser::extensions::GeneralName::DNSName(dns) = name {
                names.push((*dns).to_owned());
            }
        }
    }
    if names.is_empty() {
        names.extend(parsed.subject().iter_common_name().filter_map(|cn| cn.as_str().ok()).map(str::to_owned));
    }
    Ok(CertificateInfo {
        name: names.first().cloned().unwrap_or_else(|| parsed.subject().to_string()),
        names,
        not_before: OffsetDateTime::from_unix_timestamp(parsed.validity().not_before.timestamp()).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        not_after: OffsetDateTime::from_unix_timestamp(parsed.validity().not_after.timestamp()).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        self_signed: parsed.issuer() == parsed.subject(),
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> Config {
        let mut config = Config { hostname: "mail.example.org".into(), ..Config::default() };
        config.paths.state = folder.to_owned();
        config
    }

    #[test]
    fn a_self_signed_certificate_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let first = CertificateStore::load(&config).unwrap().infos();
        assert_eq!(first[0].name, "mail.example.org");
        assert!(first[0].self_signed);
        let bytes = fs::read(&first[0].path).unwrap();
        let again = CertificateStore::load(&config).unwrap();
        assert_eq!(fs::read(&again.infos()[0].path).unwrap(), bytes);
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.path().join("tls/self-signed.key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_changed_hostname_makes_a_new_one_and_a_bad_pair_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        let store = CertificateStore::load(&config).unwrap();
        config.hostname = "mx.example.net".into();
        store.reload(&config).unwrap();
        assert_eq!(store.infos()[0].name, "mx.example.net");
        config.tls.certificate = folder.path().join("tls/self-signed.pem");
        config.tls.private_key = folder.path().join("nothing.pem");
        let error = store.reload(&config).unwrap_err().to_string();
        assert!(error.contains("nothing.pem"), "{error}");
        assert_eq!(store.infos()[0].name, "mx.example.net");
    }
}
