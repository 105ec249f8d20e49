//! Whether a try is heard: this process's memory first, then what the directory's state tells of other nodes and earlier lives.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Authenticator;
use super::guess::{Network, Refusal};
use crate::state::counter;

/// State table: networks from which the owner of an account logged in.
const NETWORKS: &str = "login-networks";
/// State table: failures of a client network over all nodes.
const FAILURES: &str = "login-failures";

impl Authenticator {
    /// Whether a try is heard; else how long to wait. State that cannot be read stops nobody: the directory itself is asked next.
    pub(super) async fn admit(&self, client: Option<IpAddr>, account: &str, now: SystemTime) -> Result<(), Duration> {
        match self.guesses.admit(client, account, now) {
            Err(Refusal::Client(left)) => Err(left),
            Err(Refusal::Account(left)) => {
                // Before a restart, or on another node, this may have been the owner's network.
                let Some(client) = client else { return Err(left) };
                match self.directory.state_get(NETWORKS, &network_key(account, client)).await {
                    Ok(Some(_)) => {
                        self.guesses.succeeded(Some(client), account, now);
                        Ok(())
                    }
                    _ => Err(left),
                }
            }
            Ok(()) => self.admit_shared(client).await,
        }
    }

    /// Whether other nodes count with us.
    fn is_shared(&self) -> bool {
        self.policy.shared || self.directory.registry().is_some()
    }

    async fn admit_shared(&self, client: Option<IpAddr>) -> Result<(), Duration> {
        let limits = &self.policy.guesses;
        let (Some(client), true) = (client, self.is_shared() && limits.per_client > 0) else { return Ok(()) };
        match self.directory.state_get(FAILURES, Network::of(client).octets()).await {
            Ok(Some(value)) if counter(&value) >= u64::from(limits.per_client) => Err(limits.window),
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&self, client: Option<IpAddr>, account: &str) {
        self.guesses.failed(client, account, self.clock.now());
        if let (Some(client), true) = (client, self.is_shared()) {
            let (directory, window) = (Arc::clone(&self.directory), self.policy.guesses.window);
            tokio::spawn(async move {
                // Lost when the database is away: then nobody logs in anyway.
                let _ = directory.state_add(FAILURES, Network::of(client).octets(), 1, window).await;
            });
        }
    }

    pub(super) fn succeeded(&self, client: Option<IpAddr>, account: &str) {
        let is_new = self.guesses.succeeded(client, account, self.clock.now());
        if let (Some(client), true) = (client, is_new) {
            let (directory, key, keep) = (Arc::clone(&self.directory), network_key(account, client), self.policy.guesses.spare);
            tokio::spawn(async move {
                let _ = directory.state_put(NETWORKS, &key, b"", keep).await;
            });
        }
    }
}

fn network_key(account: &str, client: IpAddr) -> Vec<u8> {
    [account.as_bytes(), &[0], Network::of(client).octets()].concat()
}
