//! SMTP with no sockets and no clock: bytes in, events and bytes out.

pub mod address;
pub mod params;
pub mod reply;

pub use address::{AddressError, Domain, ForwardPath, LocalPart, Mailbox, ReversePath};
pub use params::{BodyType, DeliverBy, Hold, MailParams, Notify, OriginalRecipient, RcptParams, Ret};
pub use reply::{EnhancedCode, Reply, Severity};
