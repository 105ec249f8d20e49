//! `pillarbox-bench`: measures Pillarbox, and other servers in the same run, and writes the page about it. `scripts/bench` builds and calls it.

mod account;
mod counted;
mod machine;
mod others;
mod page;
mod results;
mod servers;
mod storing;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use results::Results;
use servers::{RELAY_PORT, Server, USERS};
use storing::MAILBOXES;

const USAGE: &str = "\
usage: pillarbox-bench --folder FOLDER [--runs 1] [--quick] [--only WORD] [--peers SCRIPT] [--page FILE]
         [--load PROGRAM] [--scenarios PROGRAM] [--deferred PROGRAM]
         [--from FILE]    what an earlier run printed, in place of measuring
WORD is a part of a row's name, or one of: store relay idle tls users syncs disk load instructions deferred";

/// What to measure.
struct Plan {
    /// Where the mail of all servers lies.
    folder: PathBuf,
    runs: usize,
    /// Each row for a moment only: to see that all works.
    quick: bool,
    only: String,
    peers: Option<PathBuf>,
    page: Option<PathBuf>,
    load: Option<PathBuf>,
    scenarios: Option<PathBuf>,
    deferred: Option<PathBuf>,
    from: Option<PathBuf>,
}

impl Plan {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut folder = None;
        let mut plan = Self {
            folder: PathBuf::new(),
            runs: 1,
            quick: false,
            only: String::new(),
            peers: None,
            page: None,
            load: None,
            scenarios: None,
            deferred: None,
            from: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().context(USAGE);
            match word.as_str() {
                "--folder" => folder = Some(PathBuf::from(value()?)),
                "--runs" => plan.runs = value()?.parse().context("--runs wants a number")?,
                "--quick" => plan.quick = true,
                "--only" => plan.only = value()?,
                "--peers" => plan.peers = Some(value()?.into()),
                "--page" => plan.page = Some(value()?.into()),
                "--load" => plan.load = Some(value()?.into()),
                "--scenarios" => plan.scenarios = Some(value()?.into()),
                "--deferred" => plan.deferred = Some(value()?.into()),
                "--from" => plan.from = Some(value()?.into()),
                _ => bail!("{USAGE}"),
            }
        }
        plan.folder = folder.context(USAGE)?;
        Ok(plan)
    }

    /// Whether the part, or something in it, is wanted.
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only == part
    }

    /// Time for a row.
    fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.2 } else { seconds })
    }
}

// The load is one thread's work, so that it takes at most one processor from the server.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pillarbox-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let plan = Plan::read(std::env::args().skip(1))?;
    allow_many_files();
    let facts = machine::facts(&plan.folder);
    facts.iter().for_each(|(name, fact)| println!("{name}: {fact}"));
    let mut results = Results::default();
    if let Some(file) = &plan.from {
        results.read(&std::fs::read_to_string(file)?);
        let mut versions = vec![("pillarbox".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        if let Some(script) = &plan.peers {
            for name in servers::installed(script)? {
                let version = servers::version(script, &name)?;
                versions.push((name, version));
            }
        }
        return publish(&plan, &results, &facts, &versions);
    }
    // The peers' configurations name a port; alone, any will do.
    let relay_port = if plan.peers.is_some() { RELAY_PORT } else { pillarbox_testkit::free_port() };
    let mut servers = vec![Server::pillarbox(USERS, relay_port).await?];
    if let Some(script) = &plan.peers {
        for name in servers::installed(script)? {
            servers.push(Server::peer(script, &name)?);
        }
    }
    let grown = populations(&plan).await?;
    let mut house = House { servers, grown, relay_port };
    for number in 0..plan.runs {
        let began = Instant::now();
        println!("\nrun {} of {}", number + 1, plan.runs);
        one_run(&plan, number, &mut house, &mut results).await?;
        println!("(took {:.0} s)", began.elapsed().as_secs_f64());
    }
    let versions: Vec<(String, String)> = house.servers.iter().map(|s| (s.name.clone(), s.version.clone())).collect();
    for server in house.servers.into_iter().chain(house.grown.into_iter().map(|(_, server)| server)) {
        server.stop().await?;
    }
    once(&plan, &mut results).await?;
    publish(&plan, &results, &facts, &versions)
}

fn publish(plan: &Plan, results: &Results, facts: &[(&str, String)], versions: &[(String, String)]) -> Result<()> {
    let text = page::render(results, facts, versions, plan.runs);
    println!("\n{text}");
    if let Some(path) = &plan.page {
        page::write(path, &text)?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// Starts the servers with few and with very many users.
async fn populations(plan: &Plan) -> Result<Vec<(u64, Server)>> {
    let mut grown = Vec::new();
    if plan.wants("users") {
        let sizes: &[u64] = if plan.quick { &[1000] } else { &[1000, 100_000, 1_000_000] };
        for users in sizes {
            let began = Instant::now();
            let mut server = Server::pillarbox(*users, RELAY_PORT).await?;
            server.halt().await;
            grown.push((*users, server));
            println!("there are {users} users after {:.1} s", began.elapsed().as_secs_f64());
        }
    }
    Ok(grown)
}

/// What is measured, running.
struct House {
    servers: Vec<Server>,
    /// Servers with few and with very many users.
    grown: Vec<(u64, Server)>,
    relay_port: u16,
}

async fn one_run(plan: &Plan, number: usize, house: &mut House, results: &mut Results) -> Result<()> {
    let House { servers, grown, relay_port } = house;
    if plan.wants("disk") {
        others::disk(&plan.folder, plan.time(0.8), results)?;
    }
    servers.iter().for_each(|server| server.empty(0..USERS));
    rustix::fs::sync();
    // No server is always the first or always the one behind Postfix.
    let turn = number % servers.len().max(1);
    servers.rotate_left(turn);
    for (at, row) in (0_u64..).zip(storing::rows()) {
        if plan.quick && !matches!(row.name.as_str(), "20 × 4 KiB" | "20 × 1 MiB") && row.kind == storing::Kind::Plain {
            continue;
        }
        if plan.wants("store") || (!plan.only.is_empty() && row.name.contains(&plan.only)) {
            let users = at * MAILBOXES..(at + 1) * MAILBOXES;
            for server in &*servers {
                storing::measure(server, &row, users.clone(), plan.time(1.5), results).await?;
            }
        }
    }
    if plan.wants("relay") {
        for server in servers.iter().filter(|server| ["pillarbox", "postfix"].contains(&server.name.as_str())) {
            others::relay(server, *relay_port, if plan.quick { 100 } else { 5000 }, results).await?;
        }
    }
    if plan.wants("tls") {
        for server in &*servers {
            others::tls(server, plan.time(1.2), results).await;
        }
    }
    if plan.wants("syncs") && !plan.quick {
        for server in &*servers {
            others::syncs(server, plan.time(1.0), results).await?;
        }
    }
    if plan.wants("idle") {
        idle(plan, servers, results).await?;
    }
    for (users, server) in grown {
        others::users(server, *users, plan.time(1.5), results).await?;
        server.halt().await;
    }
    Ok(())
}

async fn idle(plan: &Plan, servers: &[Server], results: &mut Results) -> Result<()> {
    let counts: &[usize] = if plan.quick { &[50] } else { &[1000, 10_000] };
    for count in counts {
        for tls in [false, true] {
            // Memory that load has touched stays with the process, so this one is fresh each time.
            let server = Server::pillarbox(USERS, RELAY_PORT).await?;
            others::idle(&server, *count, tls, results).await?;
            server.stop().await?;
        }
    }
    for server in servers.iter().filter(|server| server.name != "pillarbox") {
        others::idle(server, server.crowd.min(1000), false, results).await?;
    }
    Ok(())
}

/// What need not be repeated: it is counted rather than timed, or takes minutes.
async fn once(plan: &Plan, results: &mut Results) -> Result<()> {
    if plan.wants("load")
        && !plan.quick
        && let (Some(load), Some(tree)) =
            (&plan.load, std::env::var_os("PILLARBOX_BENCH_PEERS").map(|peers| PathBuf::from(peers).join("postfix")))
        && tree.is_dir()
    {
        others::load(load, &tree, 20_000, results).await?;
    }
    if plan.wants("instructions")
        && let Some(program) = &plan.scenarios
    {
        counted::instructions(program, results)?;
    }
    if plan.wants("deferred")
        && let Some(program) = &plan.deferred
    {
        counted::deferred(program, &plan.folder, if plan.quick { 1000 } else { 1_000_000 }, results)?;
    }
    Ok(())
}

/// Ten thousand connections are as many descriptors, here and in the servers that are started from here.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What cannot be raised shows in the rows that need it.
    let _ = setrlimit(Resource::Nofile, limit);
}
