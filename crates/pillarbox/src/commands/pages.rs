//! Listings that the API hands out in pages.

use pillarbox_control::{Client, escaped};
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// How many the API gives at once at most.
const PAGE: usize = 1000;

/// Fetches page after page; `key` names the last item so that the next page begins after it.
pub(crate) async fn all<T: DeserializeOwned>(
    api: &Client,
    noun: &str,
    domain: Option<&str>,
    key: impl Fn(&T) -> String,
) -> Result<Vec<T>, Failure> {
    let mut found: Vec<T> = Vec::new();
    let domain = domain.map(|d| format!("&domain={}", escaped(d))).unwrap_or_default();
    loop {
        let after = found.last().map(|last| format!("&after={}", escaped(&key(last)))).unwrap_or_default();
        let page: Vec<T> = api.get(&format!("/v1/{noun}?limit={PAGE}{domain}{after}")).await?;
        let last = page.len() < PAGE;
        found.extend(page);
        if last {
            return Ok(found);
        }
    }
}
