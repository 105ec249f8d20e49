//! The Transport for the world: MX, DANE, MTA-STS, TLS reports, smarthosts, connection reuse.
//!
//! [`Relay`] is the door. `route` says where mail goes, `dns` where that is, `dane` what a host must show, `tls` how that is
//! checked, `session` speaks SMTP with one host, and `run` serves a destination with as many sessions as its feed needs.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod check;
pub mod dane;
pub mod dns;
mod explain;
mod health;
mod https;
pub mod mta_sts;
mod ourselves;
mod path;
mod plan;
mod reach;
mod relay;
mod replies;
pub mod route;
mod run;
mod session;
mod shared;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tlsrpt;

pub use check::{CertificateView, Connected, HostCheck};
pub use explain::{Explanation, HostView};
pub use health::{Ipv6, RelayHealth};
pub use ourselves::Ourselves;
pub use relay::{Relay, RelayError, TlsReportError};
pub use session::Timeouts;
