//! `sendmail`, `mailq`, `newaliases`: what cron, PHP, git and a thousand scripts call.

use std::path::PathBuf;
use std::process::ExitCode;

use hyper::Method;
use pillarbox_config::Config;
use pillarbox_control::api::{LocalEnvelope, QueueDone, RetryMany};

use super::hand_in::{hand_in, login, unreadable};
use super::options::{Mode, Options};
use super::spool::Spool;
use super::{dialogue, recipients, sysexits};
use crate::failure::Failure;
use crate::out::Out;
use crate::session::Session;

/// Runs as `sendmail`; exits as sysexits.h says.
pub(crate) async fn sendmail(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(why) => return finish("sendmail", Err(Failure::new(sysexits::USAGE, why))),
    };
    let session = session();
    let result = match options.mode {
        Mode::Send => send(&config(), options).await,
        Mode::Smtp => dialogue::speak(&config(), &options).await,
        Mode::ShowQueue => crate::commands::queue::mailq(&session).await,
        // Aliases live in the directory; there is nothing to compile.
        Mode::NewAliases => Ok(()),
        Mode::Flush => flush(&session).await,
    };
    finish("sendmail", result)
}

/// Runs as `mailq`.
pub(crate) async fn mailq() -> ExitCode {
    finish("mailq", crate::commands::queue::mailq(&session()).await)
}

fn session() -> Session {
    Session { file: std::env::var_os("PILLARBOX_CONFIG").map(PathBuf::from), out: Out { json: false } }
}

/// The configuration, for its paths. Programs of any user call this, and not every user may read it: then the defaults serve.
fn config() -> Config {
    let file = std::env::var_os("PILLARBOX_CONFIG").map(PathBuf::from);
    Config::load(file.as_deref()).unwrap_or_default()
}

fn finish(name: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                anstream::eprintln!("{name}: {failure}");
            }
            // The codes of the admin command mean nothing to callers of sendmail.
            ExitCode::from(if failure.code < sysexits::USAGE { sysexits::TEMPORARY } else { failure.code })
        }
    }
}

async fn send(config: &Config, options: Options) -> Result<(), Failure> {
    if options.recipients.is_empty() && !options.from_header {
        return Err(Failure::new(sysexits::USAGE, "no recipient: name some, or use -t to take them from the header"));
    }
    let mut spool = Spool::read(std::io::stdin().lock(), !options.ignore_dots).map_err(|e| unreadable(&e))?;
    let mut to = options.recipients;
    if options.from_header {
        to.extend(recipients::extract(&mut spool).map_err(|e| unreadable(&e))?);
    }
    if to.is_empty() {
        return Err(Failure::new(sysexits::DATA, "the header names no recipient"));
    }
    let login = login();
    let envelope = LocalEnvelope {
        from: options.sender.unwrap_or_else(|| login.clone()),
        to,
        envid: options.envid,
        notify: options.notify,
        ret: options.ret,
        full_name: options.full_name,
        login,
        deliver: false,
    };
    hand_in(config, &envelope, &mut spool).await
}

async fn flush(session: &Session) -> Result<(), Failure> {
    let _: QueueDone = session.api().await?.send(Method::POST, "/v1/queue/retry", &RetryMany::default()).await?;
    Ok(())
}
