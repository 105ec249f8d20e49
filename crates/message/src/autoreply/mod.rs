//! Automatic replies: whether one is due (RFC 3834 §2, RFC 5230 §4.5–4.6), and writing it (RFC 3834 §3).
//!
//! Remembering who was answered when is the caller's business.

mod decide;
mod vacation;

pub use decide::{NoReply, may_reply};
pub use vacation::{Vacation, build};
