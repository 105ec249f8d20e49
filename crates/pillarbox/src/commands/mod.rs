//! One file a noun: each takes its verb apart, asks the API and prints.

mod alias;
mod app_password;
mod backup;
pub(crate) mod check;
mod config;
mod directory;
mod dkim;
mod dns;
mod domain;
mod generate;
mod import;
mod news;
mod node;
mod pages;
pub(crate) mod queue;
mod report;
mod route;
mod send_test;
mod setup;
mod status;
mod tls;
mod trace;
mod transfer;
mod user;
mod vacation;

use crate::args::{Args, BackupVerb, Command};
use crate::failure::Failure;
use crate::out::Out;
use crate::session::Session;

/// Does what the command line says.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let session = Session { file: args.config, out: Out { json: args.json } };
    match args.command {
        Command::Setup(setup) => setup::run(&session, setup).await,
        Command::Check { what } => check::run(&session, what.as_deref()).await,
        Command::Import(verb) => import::run(&session, verb).await,
        Command::SendTest { address, from } => send_test::run(&session, &address, from.as_deref()).await,
        Command::Backup(BackupVerb::Create { file, with_mail }) => backup::create(&session, &file, with_mail).await,
        Command::Backup(BackupVerb::Verify { file }) => backup::verify(&session, &file),
        Command::Restore { file, yes } => backup::restore(&session, &file, yes).await,
        Command::Status => status::run(&session).await,
        Command::Domain(verb) => domain::run(&session, verb).await,
        Command::User(verb) => user::run(&session, verb).await,
        Command::Alias(verb) => alias::run(&session, verb).await,
        Command::AppPassword(verb) => app_password::run(&session, verb).await,
        Command::Vacation(verb) => vacation::run(&session, verb).await,
        Command::Route { address } => route::run(&session, &address).await,
        Command::Node(verb) => node::run(&session, verb).await,
        Command::Directory(verb) => directory::run(&session, verb).await,
        Command::Queue(verb) => queue::run(&session, verb).await,
        Command::Trace { what, limit } => trace::run(&session, &what, limit).await,
        Command::Dkim(verb) => dkim::run(&session, verb).await,
        Command::Dns(verb) => dns::run(&session, verb).await,
        Command::Tls(verb) => tls::run(&session, verb).await,
        Command::Export => transfer::export(&session).await,
        Command::Apply { file, dry_run, prune, yes } => transfer::apply(&session, &file, dry_run, prune, yes).await,
        Command::Report(verb) => report::run(&session, verb).await,
        Command::Deliver { to, from } => crate::local::deliver(session.config(), &to, from.as_deref()).await,
        Command::Config(verb) => config::run(&session, verb),
        Command::Completions { shell } => generate::completions(&session, shell),
        Command::Man { dir } => generate::man(&session, &dir),
    }
}

/// Text of the command line as any type that is read from text; a usage error otherwise.
pub(crate) fn parsed<T>(what: &str, text: &str) -> Result<T, Failure>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| Failure::usage(format!("{text:?} is no {what}: {e}")))
}
