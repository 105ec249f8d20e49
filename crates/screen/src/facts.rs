//! What a session tells the screen about its client, and what the screen tells the postmaster.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pillarbox_smtp::Mailbox;

/// Who is at the other end. The session keeps it current: `helo` after HELO/EHLO, `tls` after the handshake, `user` after AUTH,
/// `queue_id` at MAIL.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// The client's address, as the PROXY header or the socket says.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// What it called itself in HELO or EHLO; empty before.
    pub helo: String,
    /// Protocol version and cipher, separated by a space, once TLS is up: `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
    pub tls: Option<String>,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Who logged in. Such a client is not judged; only milters see its mail, where `submission.milter` says so.
    pub user: Option<Mailbox>,
    /// By which SASL mechanism, as milters are told: `SCRAM-SHA-256`.
    pub mechanism: Option<&'static str>,
    /// The client's name by reverse look-up, where it was looked up and verified.
    pub rdns: Option<String>,
    /// Queue id of the transaction, for milters and the log; empty before MAIL.
    pub queue_id: String,
}

impl SessionFacts {
    /// Facts of a connection that has said nothing yet.
    pub fn new(client: SocketAddr, local: SocketAddr) -> Self {
        Self {
            client: client.ip().to_canonical(),
            client_port: client.port(),
            helo: String::new(),
            tls: None,
            local,
            user: None,
            mechanism: None,
            rdns: None,
            queue_id: String::new(),
        }
    }
}

/// Something the postmaster should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A user reached the outbound cap: perhaps a stolen password.
    UserOverLimit {
        /// Whose mail is held back.
        user: Mailbox,
        /// `submission.rate_per_user` or `submission.new_recipients_per_user`.
        limit: &'static str,
        /// The limit as the configuration writes it.
        rate: String,
    },
}

/// Called with each notice; must not block.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;
