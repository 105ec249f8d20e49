//! End-to-end tests: the real daemon on loopback, and the real peers that a user would put beside it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod abuse;
mod acme;
mod admin;
mod bind;
mod clients;
mod crash;
mod dialogs;
mod dovecot;
mod faults;
mod inbound;
mod local;
mod mailboxes;
mod moving;
mod nodes;
mod outbound;
mod package;
mod peers;
mod post;
mod relaying;
mod rust_client;
mod sandbox;
mod spam;
mod submission;
mod tls_scan;
mod torture;
mod upgrade;
mod vacation;
mod walk;
mod web;
