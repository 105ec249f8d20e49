//! `/v1/route`: what would happen to mail for an address, without sending any.

use std::sync::Arc;

use axum::extract::State;
use pillarbox_config::Config;
use pillarbox_directory::{ResolvePolicy, Resolved, Srs, Target, resolve};
use pillarbox_smtp::{Mailbox, ReversePath};

use super::input::Named;
use crate::admin::Admin;
use crate::api::{RouteEnd, RouteInfo};
use crate::error::ApiResult;

pub(super) async fn route(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<RouteInfo>> {
    let config = admin.config();
    let policy = ResolvePolicy::from_config(&config).with_srs(Arc::new(Srs::load(admin.directory.as_ref()).await?));
    let resolution = resolve(admin.directory.as_ref(), &policy, &address).await?;
    let mut steps: Vec<String> = resolution.steps.iter().map(|s| s.text.clone()).collect();
    let reject = |reply: &str| vec![RouteEnd::Reject { reply: reply.to_owned() }];
    let mut ends = match resolution.outcome {
        Resolved::Deliver(targets) => {
            let mut ends = Vec::with_capacity(targets.len());
            for target in targets {
                ends.push(end(&admin, &config, target).await?);
            }
            ends
        }
        Resolved::Unknown => reject("550 5.1.1 No such user here"),
        Resolved::NotOurs => {
            steps.push("strangers get 550 5.7.1; for users who have logged in:".into());
            vec![RouteEnd::Relay { address: address.clone(), via: String::new() }]
        }
        Resolved::Suspended if config.mailbox.suspended == "hold" => {
            steps.push("mailbox.suspended is \"hold\": the mail is accepted and kept in the queue".into());
            resolution.suspended.iter().map(|user| mailbox(&config, user.clone(), None, None)).collect()
        }
        Resolved::Suspended => reject("550 5.2.1 Mailbox disabled"),
        Resolved::Loop => reject("554 5.4.6 Alias loop"),
        Resolved::TooMany => reject("554 5.4.6 Too many aliases"),
    };
    for one in &mut ends {
        if let RouteEnd::Relay { address, via } = one {
            let told = admin.relay()?.explain(&address.domain, &ReversePath::Null).await;
            steps.extend(told.steps);
            *via = told.destination;
        }
    }
    Ok(axum::Json(RouteInfo { address, steps, ends }))
}

async fn end(admin: &Admin, config: &Config, target: Target) -> ApiResult<RouteEnd> {
    Ok(match target {
        Target::Mailbox { user, folder } => {
            let own = admin.directory.domain(&user.domain).await?.and_then(|d| d.deliver_to);
            mailbox(config, user, folder, own)
        }
        Target::Remote { address, .. } => RouteEnd::Relay { address, via: String::new() },
    })
}

fn mailbox(config: &Config, address: Mailbox, folder: Option<String>, own: Option<String>) -> RouteEnd {
    let configured = config.mailbox.deliver_to_domains.get(address.domain.as_str());
    let deliver_to = own.or_else(|| configured.cloned()).unwrap_or_else(|| config.mailbox.deliver_to.clone());
    RouteEnd::Mailbox { address, folder, deliver_to }
}
