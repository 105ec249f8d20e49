//! The milter protocol, version 6, from the MTA's side: how rspamd, ClamAV's milter, OpenDKIM and their kin see and change mail.
//!
//! The protocol has no RFC; it is what Sendmail's libmilter speaks and Postfix calls on. A filter that fails, is late or sends
//! garbage is dealt with as its `on_failure` says, and never takes the session down.

mod chain;
mod connection;
mod edit;
mod filter;
mod macros;
mod options;
mod wire;

pub use chain::{Chain, Refusal};
pub use connection::{Address, BadAddress};
pub use edit::{Changes, Message};
pub use filter::Settings;
