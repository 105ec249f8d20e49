//! The admin API: shared types, server and client over a Unix socket.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod admin;
pub mod api;
pub mod client;
pub mod daemon;
pub mod dns;
pub mod error;
pub mod eventlog;
pub mod held;
pub mod local;
pub mod local_mail;
pub mod nodes;
mod peer;
mod routes;
pub mod server;
mod usage;

pub use admin::Admin;
pub use client::{Client, ClientError, escaped};
pub use daemon::DaemonInfo;
pub use error::{ApiError, ApiResult, Kind};
pub use local::{ConnectError, connect};
pub use local_mail::{LocalDoor, LocalMail, LocalRefused};
pub use routes::router;
pub use server::{bind, serve, socket_path};
