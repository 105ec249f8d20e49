//! Waiting until all name servers of a zone serve a new TXT record: the authority may ask any of them, and asks once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use futures::future::join_all;
use hickory_proto::rr::{Name, RData, RecordType};
use pillarbox_screen::Dns;
use pillarbox_screen::dns::Answer;

use super::question::ask;
use super::wanted::addresses;

/// Longest wait; then the authority is asked all the same, and its words tell more than ours could.
const PATIENCE: Duration = Duration::from_secs(120);
/// Wait between two questions to the same server.
const PAUSE: Duration = Duration::from_secs(2);
/// Name servers asked.
const SERVERS: usize = 16;

/// Waits until every name server that can be reached serves the record, within a bound.
pub(super) async fn wait(dns: &Dns, name: &str, value: &str) {
    let Ok(mut owner) = Name::from_str(name) else { return };
    owner.set_fqdn(true);
    let servers = name_servers(dns, &owner).await;
    let late = late(&servers, &owner, value, PATIENCE).await;
    if !late.is_empty() {
        let late = late.iter().map(|server| server.ip().to_string()).collect::<Vec<_>>().join(", ");
        tracing::warn!("after {} s these name servers do not serve the TXT record {name}: {late}", PATIENCE.as_secs());
    }
}

/// The servers of the zone that the name lies in.
async fn name_servers(dns: &Dns, name: &Name) -> Vec<SocketAddr> {
    let mut zone = name.clone();
    while zone.num_labels() > 1 {
        if let Answer::Found(lookup) = dns.lookup_name(zone.clone(), RecordType::NS).await {
            let mut found = BTreeSet::new();
            for record in lookup.answers() {
                if let RData::NS(host) = &record.data {
                    found.extend(addresses(dns, &host.0.to_ascii()).await.into_iter().map(|ip| SocketAddr::new(ip, 53)));
                }
            }
            return found.into_iter().take(SERVERS).collect();
        }
        zone = zone.base_name();
    }
    Vec::new()
}

/// Those of the servers that answer and do not serve the record when the time is over. One that cannot be reached from here is left out: it says nothing.
async fn late(servers: &[SocketAddr], name: &Name, value: &str, patience: Duration) -> Vec<SocketAddr> {
    let serves = |server: SocketAddr| async move {
        loop {
            match ask(server, name, RecordType::TXT).await {
                Ok(answer) if answer.answers.iter().any(|record| is(&record.data, value)) => return true,
                Ok(_) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    tracing::debug!("{error:#}");
                    return true;
                }
            }
        }
    };
    let asked =
        servers.iter().map(|server| async move { tokio::time::timeout(patience, serves(*server)).await.is_err().then_some(*server) });
    join_all(asked).await.into_iter().flatten().collect()
}

fn is(data: &RData, value: &str) -> bool {
    matches!(data, RData::TXT(txt) if txt.txt_data.concat() == value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_testkit::DnsServer;

    #[tokio::test]
    async fn a_server_is_waited_for_and_one_that_is_away_is_not() {
        let (prompt, slow) = (DnsServer::start().await, DnsServer::start().await);
        let name = "_acme-challenge.mail.example.test";
        prompt.txt(name, "value");
        slow.txt(name, "an old value");
        let away = SocketAddr::from(([127, 0, 0, 1], pillarbox_testkit::free_port()));
        let servers = [prompt.address(), slow.address(), away];
        let owner = Name::from_str("_acme-challenge.mail.example.test.").unwrap();
        let patience = pillarbox_testkit::PATIENCE;
        let (late_ones, ()) = tokio::join!(late(&servers, &owner, "value", patience), async {
            slow.questions(name, RecordType::TXT, 1).await;
            slow.txt(name, "value");
        });
        assert!(late_ones.is_empty(), "{late_ones:?}");
        assert!(slow.count(name, RecordType::TXT) >= 2);
        let none = late(&servers, &owner, "never", Duration::from_millis(1)).await;
        assert!(none.contains(&slow.address()), "{none:?}");
    }
}
