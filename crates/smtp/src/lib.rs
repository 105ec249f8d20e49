//! SMTP with no sockets and no clock: bytes in, events and bytes out.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod address;
pub mod client;
pub mod content;
pub mod params;
pub mod replies;
pub mod reply;
pub mod sasl;
mod secret;
pub mod server;
mod text;
pub mod xtext;

pub use address::{AddressError, Domain, ForwardPath, LocalPart, Mailbox, ReversePath};
pub use params::{BodyType, DeliverBy, Hold, MailParams, Notify, OriginalRecipient, RcptParams, Ret};
pub use reply::{EnhancedCode, Reply, ReplyError, ReplyParser, Severity};
pub use sasl::Mechanism;
pub use secret::Secret;
pub use text::{MAX_PRINTABLE, printable};
