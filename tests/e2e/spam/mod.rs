//! Standing and spam through the real daemon: filters, rates, block lists, greylisting, keys over time, reports, and how a verdict is told.

mod clock;
mod filters;
mod forwarding;
mod greylist;
mod keys;
mod lists;
mod opendmarc;
mod rates;
mod reports;
mod scanners;

use pillarbox_testkit::{Daemon, DaemonBuilder};

/// A daemon with these settings for `example.test`, where bob, carol and alice live.
async fn with_users(builder: DaemonBuilder) -> Daemon {
    let daemon = builder.start().await;
    for (user, password) in [("alice@example.test", "wonderland"), ("bob@example.test", "builder"), ("carol@example.test", "singer")] {
        daemon.add_user(user, password).await;
    }
    daemon
}

/// A daemon that asks these milters in order, and puts mail off where one fails.
fn with_milters(addresses: &[&str]) -> DaemonBuilder {
    with_settings(&addresses.iter().map(|address| (*address, "tempfail", "30s")).collect::<Vec<_>>())
}

/// The same by address, `on_failure` and `timeout`.
fn with_settings(milters: &[(&str, &str, &str)]) -> DaemonBuilder {
    let table = |(address, on_failure, timeout): &(&str, &str, &str)| {
        let mut table = toml::Table::new();
        table.insert("address".into(), (*address).into());
        table.insert("on_failure".into(), (*on_failure).into());
        table.insert("timeout".into(), (*timeout).into());
        toml::Value::Table(table)
    };
    Daemon::builder().set("screen.milter", milters.iter().map(table).collect::<Vec<_>>())
}

/// The value of a metric at the daemon's listener for them; 0 where it is not told yet. `series` is its name with its labels.
async fn metric(daemon: &Daemon, series: &str) -> u64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(daemon.address("metrics")).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.trim().parse().unwrap())
}
