//! One file a noun: each takes its verb apart, asks the API and prints.

mod alias;
mod app_password;
mod config;
mod domain;
mod generate;
mod pages;
mod route;
mod status;
mod user;
mod vacation;

use crate::args::{Args, Command};
use crate::failure::Failure;
use crate::out::Out;
use crate::session::Session;

/// Does what the command line says.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let session = Session { file: args.config, out: Out { json: args.json } };
    match args.command {
        Command::Status => status::run(&session).await,
        Command::Domain(verb) => domain::run(&session, verb).await,
        Command::User(verb) => user::run(&session, verb).await,
        Command::Alias(verb) => alias::run(&session, verb).await,
        Command::AppPassword(verb) => app_password::run(&session, verb).await,
        Command::Vacation(verb) => vacation::run(&session, verb).await,
        Command::Route { address } => route::run(&session, &address).await,
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
