//! The reply to EHLO and LHLO: what is offered on this connection at this moment.

use super::config::ServerConfig;
use super::event::Transaction;
use crate::params::format_date_time;
use crate::reply::Reply;
use crate::sasl::Mechanism;

/// 250 with one keyword a line.
pub(super) fn reply(config: &ServerConfig, transaction: &Transaction) -> Reply {
    let offer = &config.extensions;
    let tls = transaction.tls.is_some();
    let mut lines = vec![config.hostname.clone()];
    let mut keyword = |offered: bool, keyword: &str| {
        if offered {
            lines.push(keyword.to_owned());
        }
    };
    keyword(offer.size, &format!("SIZE {}", config.limits.message_size));
    keyword(offer.pipelining, "PIPELINING");
    keyword(offer.eight_bit_mime, "8BITMIME");
    keyword(offer.smtputf8 && offer.eight_bit_mime, "SMTPUTF8");
    keyword(offer.chunking, "CHUNKING");
    keyword(offer.chunking && offer.binary_mime, "BINARYMIME");
    keyword(offer.dsn, "DSN");
    keyword(offer.enhanced_status_codes, "ENHANCEDSTATUSCODES");
    keyword(config.tls_available && !tls, "STARTTLS");
    keyword(offer.require_tls && tls, "REQUIRETLS");
    let mechanisms: Vec<&str> = mechanisms(config, transaction).map(Mechanism::name).collect();
    keyword(!mechanisms.is_empty(), &format!("AUTH {}", mechanisms.join(" ")));
    if let Some(release) = &offer.future_release {
        keyword(true, &format!("FUTURERELEASE {} {}", release.max_interval, format_date_time(release.max_until)));
    }
    match offer.deliver_by {
        Some(0) => keyword(true, "DELIVERBY"),
        Some(least) => keyword(true, &format!("DELIVERBY {least}")),
        None => {}
    }
    keyword(offer.mt_priority, "MT-PRIORITY");
    let mail_max = config.limits.transactions.map(|n| format!(" MAILMAX={n}")).unwrap_or_default();
    keyword(offer.limits, &format!("LIMITS RCPTMAX={}{mail_max}", config.limits.recipients));
    Reply::lines(250, None, lines)
}

/// The mechanisms that may be used now: none without TLS (RFC 8314 §4.1), PLUS only with a binding at hand.
pub(super) fn mechanisms<'a>(config: &'a ServerConfig, transaction: &'a Transaction) -> impl Iterator<Item = Mechanism> + 'a {
    let tls = transaction.tls.as_ref();
    let bound = tls.is_some_and(|tls| tls.exporter.is_some());
    config.mechanisms.iter().copied().filter(move |m| tls.is_some() && (*m != Mechanism::ScramSha256Plus || bound))
}
