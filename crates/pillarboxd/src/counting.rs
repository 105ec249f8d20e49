//! Every metric with its help text, as `/metrics` shows it; `docs/metrics.md` says the same, which a test holds.

use anyhow::Context;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Counts up from 0 at the start of the process.
    Counter,
    /// The same with labels, which have no value before the first event.
    Labelled,
    /// A level.
    Gauge,
}

use Kind::{Counter, Gauge, Labelled};

/// Name, kind, meaning.
#[rustfmt::skip]
const METRICS: &[(&str, Kind, &str)] = &[
    ("pillarbox_ingest_connections_total", Labelled, "Sessions begun."),
    ("pillarbox_ingest_connections_refused_total", Counter, "Connections beyond limits.connections or limits.connections_per_client, answered 421."),
    ("pillarbox_ingest_accept_errors_total", Counter, "Connections that the system could not hand over, mostly for want of file descriptors."),
    ("pillarbox_ingest_early_talkers_total", Counter, "Clients that spoke before the banner (limits.banner_delay), refused with 554."),
    ("pillarbox_ingest_tls_handshakes_total", Labelled, "TLS sessions begun."),
    ("pillarbox_ingest_tls_failures_total", Counter, "Handshakes that failed."),
    ("pillarbox_ingest_logins_total", Labelled, "Logins over SMTP, as status of the event auth."),
    ("pillarbox_ingest_recipients_refused_total", Counter, "RCPT commands refused."),
    ("pillarbox_ingest_messages_accepted_total", Counter, "Messages answered 250."),
    ("pillarbox_ingest_messages_refused_total", Labelled, "Messages refused after DATA began: broken lines or size, too many hops, an endless header, the screen, the queue."),
    ("pillarbox_ingest_signing_errors_total", Counter, "Submitted messages that could not be signed, answered 451."),
    ("pillarbox_ingest_directory_errors_total", Counter, "Look-ups that the directory did not answer, answered 451."),
    ("pillarbox_ingest_panics_total", Counter, "Sessions that ended by a defect in the program. Should be 0; please report."),
    ("pillarbox_screen_verdicts_total", Labelled, "Messages judged at the end of DATA."),
    ("pillarbox_screen_refusals_total", Labelled, "Refusals before DATA."),
    ("pillarbox_screen_dnsbl_listed_total", Labelled, "Listings found."),
    ("pillarbox_screen_greylisted_total", Counter, "Messages put off by greylisting."),
    ("pillarbox_screen_milter_failures_total", Labelled, "Milters that were away, too slow, or talked nonsense."),
    ("pillarbox_screen_auth_timeouts_total", Counter, "Messages whose SPF, DKIM and DMARC checks took too long."),
    ("pillarbox_screen_dns_down_total", Counter, "Times that the name servers were found not to answer."),
    ("pillarbox_screen_user_over_limit_total", Counter, "Recipients refused since a user is over submission.rate_per_user or new_recipients_per_user."),
    ("pillarbox_directory_logins_total", Labelled, "Password checks, whatever asked for them."),
    ("pillarbox_directory_hashes_checked_total", Counter, "Password hashes computed to check logins; remembered verdicts cost none."),
    ("pillarbox_directory_login_failures_total", Counter, "Failed logins that count towards auth.failures_per_client."),
    ("pillarbox_directory_clients_blocked_total", Counter, "Client networks turned away for guessing."),
    ("pillarbox_directory_stale_lookups_total", Counter, "Look-ups answered from memory while PostgreSQL was away."),
    ("pillarbox_directory_cache_hits_total", Counter, "With PostgreSQL: rows answered from memory, without a round trip."),
    ("pillarbox_directory_database_lookups_total", Counter, "With PostgreSQL: rows that the database had to be asked for."),
    ("pillarbox_directory_cache_octets", Gauge, "With PostgreSQL: memory taken by what was looked up, at most directory.cache_memory."),
    ("pillarbox_directory_away", Gauge, "1 while PostgreSQL does not answer, else 0."),
    ("pillarbox_queue_accepted_total", Counter, "Messages taken over, reports and replies of our own included."),
    ("pillarbox_queue_finished_total", Counter, "Messages that left."),
    ("pillarbox_queue_outcomes_total", Labelled, "Attempts, one a recipient."),
    ("pillarbox_queue_reports_total", Labelled, "Delivery reports sent."),
    ("pillarbox_queue_reports_dropped_total", Counter, "Reports not sent, since one address would have got more than 200 in an hour."),
    ("pillarbox_queue_messages", Gauge, "Messages with an unfinished recipient."),
    ("pillarbox_queue_recipients", Gauge, "Unfinished recipients."),
    ("pillarbox_queue_oldest_seconds", Gauge, "Age of the oldest message."),
    ("pillarbox_queue_destinations_down", Gauge, "Destinations that cannot be reached as a whole."),
    ("pillarbox_queue_journal_segments", Gauge, "Journal segments in use."),
    ("pillarbox_queue_body_memory_bytes", Gauge, "Message bodies in memory, bounded by limits.body_memory."),
    ("pillarbox_queue_disk_free_bytes", Gauge, "Free octets on the file systems of state and mail, the smaller one."),
    ("pillarbox_lda_stored_total", Counter, "Messages stored in Maildirs, one a recipient."),
    ("pillarbox_lda_stored_octets_total", Counter, "Their octets."),
    ("pillarbox_lda_found_stored_total", Counter, "Deliveries after a crash that were found done already."),
    ("pillarbox_lda_over_quota_total", Counter, "Deliveries that met a full mailbox."),
    ("pillarbox_lda_vacation_replies_total", Counter, "Vacation replies sent."),
    ("pillarbox_lda_lmtp_accepted_total", Counter, "Recipients that an LMTP server took."),
    ("pillarbox_relay_connections_total", Labelled, "Connections to other servers."),
    ("pillarbox_acme_failures_total", Counter, "Orders of certificates that failed."),
    ("pillarbox_log_lines_dropped_total", Counter, "Lines that standard error could not take in time."),
];

/// The recorder behind all counters, told what each of them means; its page is served where `listen.metrics` says. Counters without labels are there from the
/// start with 0, so that an alarm sees the first event too.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new().install_recorder().context("cannot start counting")?;
    for &(name, kind, help) in METRICS {
        let unit = if name.ends_with("_bytes") { Unit::Bytes } else { Unit::Count };
        match kind {
            Counter => {
                describe_counter!(name, unit, help);
                counter!(name).increment(0);
            }
            Labelled => describe_counter!(name, unit, help),
            Gauge => {
                describe_gauge!(name, unit, help);
                gauge!(name).increment(0.0);
            }
        }
    }
    Ok(handle)
}
