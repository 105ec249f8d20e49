//! DMARC aggregate reports (RFC 9990): those we get, kept for `pillarbox report dmarc`, and those we owe others, where
//! `screen.dmarc_reports` says so.

mod collect;
mod outgoing;
mod received;

pub use outgoing::{Outgoing, due};
pub use received::{ReceivedReport, ReceivedRow, ReportError, list, looks_like_report, parse, receive};

pub(crate) use collect::Collector;
