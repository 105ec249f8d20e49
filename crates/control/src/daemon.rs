//! What only the running daemon knows and can do; `pillarboxd` implements it.

use crate::api::{CertificateInfo, ListenerInfo, SandboxInfo};

/// The daemon as the API sees it.
#[async_trait::async_trait]
pub trait DaemonInfo: Send + Sync + 'static {
    /// Sockets as bound.
    fn listeners(&self) -> Vec<ListenerInfo>;

    /// Certificates as served at this moment.
    fn certificates(&self) -> Vec<CertificateInfo>;

    /// What needs the operator now, one sentence each; empty when all is well. The queue's own health is added by the API.
    fn problems(&self) -> Vec<String>;

    /// What is good to know and keeps nothing from working, one sentence each: no IPv6 for lack of a PTR record, no DANE for lack of DNSSEC.
    fn notes(&self) -> Vec<String>;

    /// What the daemon has shut itself in with.
    fn sandbox(&self) -> SandboxInfo;

    /// Reads configuration and certificates anew, as SIGHUP does. A bad file is refused with its error and the old one stays in force.
    async fn reload(&self) -> Result<(), String>;

    /// Sends the TLS reports of finished days now, to those who ask for them. Answers how many went out; what fails is tried again later.
    async fn send_tls_reports(&self) -> Result<usize, String>;

    /// Orders certificates anew from the ACME authority now. Answers with the names ordered.
    async fn renew_certificates(&self) -> Result<Vec<String>, String>;
}
