//! The client's side of SMTP and LMTP: what the server can do, the commands in wire form, the message as DATA or BDAT content,
//! and the SASL exchange. Replies are read by [`crate::reply::ReplyParser`].

mod capabilities;
mod command;
mod content;
mod sasl;

pub use capabilities::{Capabilities, ServerLimits};
pub use command::{Command, MAX_COMMAND_LINE};
pub use content::{DotStuffer, LineEnds};
pub use sasl::{SaslClient, SaslClientError, SaslProgress};
