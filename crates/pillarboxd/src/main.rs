//! `pillarboxd`: the daemon. Reads the configuration, binds its sockets, gives up root, and serves until told to stop.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod acme;
mod counting;
mod daemon;
mod hook;
mod http;
mod info;
mod journald;
mod logging;
mod node;
mod process;
mod reports;
mod sandbox;
mod sockets;
mod wiring;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use pillarbox_config::Config;

use crate::daemon::Shut;

/// A message's memory is taken by one thread and given back by another, piece by piece. The C library's allocator takes a lock for each such
/// piece above a kilobyte, and spent a tenth of a message's processor time; this one keeps about twice as much memory after a burst.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Pillarbox mail server, in the foreground; logs to standard error.
#[derive(Debug, Parser)]
#[command(name = "pillarboxd", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "PILLARBOX_CONFIG")]
    config: Option<PathBuf>,
    /// Validate the configuration and exit.
    #[arg(long)]
    check: bool,
    /// What the daemon starts itself as where a dns-01 hook is configured.
    #[arg(long = "dns-hook-runner", value_name = "PROGRAM", hide = true)]
    dns_hook_runner: Option<std::ffi::OsString>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pillarboxd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(program) = &arguments.dns_hook_runner {
        return hook::serve(program);
    }
    let config = Config::load(arguments.config.as_deref())?;
    if arguments.check {
        println!("The configuration is valid.");
        return Ok(());
    }
    process::harden();
    // Rustls is used by several libraries; all of them shall use the one provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    process::private_folder(&config.paths.state)?;
    process::private_folder(&config.paths.runtime)?;
    let sockets = sockets::bind(&config)?;
    let became = process::drop_root(&config.paths.state, &config.paths.runtime)?;
    // What is not there yet cannot be granted by the sandbox.
    process::private_folder(&config.paths.mail).with_context(|| format!("cannot use the mail folder {}", config.paths.mail.display()))?;
    process::drop_capabilities();
    let hook = hook::Hook::start(config.tls.acme.as_ref().map_or(Path::new(""), |acme| acme.dns_hook.as_path()))?;
    // While there is one thread, so that all are shut in.
    let config_file = arguments.config.as_deref().unwrap_or(Path::new(pillarbox_config::DEFAULT_PATH));
    let sandbox = sandbox::Sandbox::enter(&config, config_file)?;
    let logging = logging::Logging::start(&config.log, config.paths.state.join("events")).context("cannot start logging")?;
    if let Some(uid) = became {
        tracing::info!(uid, "root was given up for the owner of the state folder");
    } else if rustix::process::geteuid().is_root() {
        tracing::warn!("running as root, since root owns the state folder; give it to a user of its own outside of try-outs");
    }
    sandbox.log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Blocking work is bounded by semaphores of its own; this is the roof above them all.
        .max_blocking_threads(64)
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(daemon::run(arguments.config.clone(), config, sockets, Shut { sandbox, hook }, &logging));
    // Password checks and file work that nobody waits for any more must not hold the process up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    if let Err(error) = &result {
        tracing::error!("stopping: {error:#}");
    }
    logging.finish();
    result
}
