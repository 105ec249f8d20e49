//! MTA-STS with a policy host, and TLS reports about what came of it.

use std::sync::Arc;

use parking_lot::Mutex;
use pillarbox_config::Config;
use pillarbox_smtp::Domain;
use time::{Duration, OffsetDateTime};

use super::MAIL;
use crate::Relay;
use crate::mta_sts::SharedPolicies;
use crate::testing::{Authority, FakeDns, Https, Script, Sink, brief, config, deliver, envelope, timeouts};
use crate::tlsrpt::{OutgoingReport, Submit};

struct World {
    dns: FakeDns,
    https: Https,
    sink: Sink,
    config: Config,
    authority: Authority,
    _folder: tempfile::TempDir,
}

/// `example.test` with an MX host whose certificate is for `shown`, and a policy host.
async fn world(shown: &str) -> World {
    let authority = Authority::new();
    let dns = FakeDns::start().await;
    let sink = Sink::start(Script::tls(authority.issue(&[shown]).server_config())).await;
    let https = Https::start(&authority.issue(&["mta-sts.example.test", "reports.test"])).await;
    dns.add("example.test MX 10 mx.example.test").add("mx.example.test A 127.0.0.1").add("mta-sts.example.test A 127.0.0.1");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let mut config = config(&dns, sink.port());
    config.paths.state = folder.path().join("state");
    config.relay.mta_sts = true;
    config.relay.mta_sts_port = https.port;
    config.relay.ca_file = folder.path().join("ca.pem");
    config.relay.tls_reports = true;
    World { dns, https, sink, config, authority, _folder: folder }
}

fn policy(mode: &str, mx: &str) -> String {
    format!("version: STSv1\nmode: {mode}\nmax_age: 1000\nmx: {mx}\n")
}

impl World {
    fn relay(&self) -> Arc<Relay> {
        Relay::with_timeouts(&self.config, timeouts()).unwrap()
    }
}

async fn send(relay: &Arc<Relay>) -> (String, String) {
    let (outcomes, _) = deliver(relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    (brief(&outcomes)[0].clone(), outcomes.tls)
}

/// Today's counts: policy type, successes, failures, and kinds of failure.
fn counted(relay: &Relay) -> Vec<(String, u64, u64, Vec<String>)> {
    let day = relay.counted_tls_sessions(&crate::tlsrpt::day_name(OffsetDateTime::now_utc().date()));
    let sections = day.get("example.test").cloned().unwrap_or_default().into_iter();
    let each = sections.map(|section| {
        let kinds = section.failure_details.iter().map(|f| f.result_type.clone()).collect();
        let (good, bad) = (section.summary.total_successful_session_count, section.summary.total_failure_session_count);
        (section.policy.policy_type, good, bad, kinds)
    });
    each.collect()
}

#[tokio::test]
async fn enforced_policies_demand_a_valid_certificate_and_a_listed_host() {
    let good = world("mx.example.test").await;
    good.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    good.https.say("200 OK", "text/plain; charset=utf-8", &policy("enforce", "*.example.test"));
    let relay = good.relay();
    assert_eq!(send(&relay).await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 mta-sts".into()));
    assert_eq!(send(&relay).await.1, "TLSv1.3 mta-sts");
    assert_eq!(good.https.requests().len(), 1);
    assert!(good.https.requests()[0].starts_with(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n"));
    assert_eq!(counted(&relay), [("sts".into(), 2, 0, vec![])]);
    // After a restart the policy comes from disk, even when the host that served it is gone and the record as well.
    let mut later = good.config.clone();
    let bare = FakeDns::start().await;
    bare.add("example.test MX 10 mx.example.test").add("mx.example.test A 127.0.0.1");
    later.dns.servers = vec![bare.address()];
    let relay = Relay::with_timeouts(&later, timeouts()).unwrap();
    assert_eq!(send(&relay).await.1, "TLSv1.3 mta-sts");

    let bad = world("other.test").await;
    bad.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    bad.https.say("200 OK", "text/plain", &policy("enforce", "mx.example.test"));
    let relay = bad.relay();
    let told = send(&relay).await.0;
    assert!(told.starts_with("deferred 451 4.7.5 ") && told.contains("mta-sts"), "{told}");
    assert!(bad.sink.taken().is_empty());
    assert_eq!(counted(&relay), [("sts".into(), 0, 1, vec!["certificate-host-mismatch".into()])]);

    let unlisted = world("mx.example.test").await;
    unlisted.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    unlisted.https.say("200 OK", "text/plain", &policy("enforce", "mail.example.test"));
    let told = send(&unlisted.relay()).await.0;
    assert!(told.starts_with("deferred 451 4.7.5 mx.example.test is not among"), "{told}");
    assert_eq!(unlisted.sink.connections(), 0);
}

/// What several nodes share.
#[derive(Default)]
struct Common(Mutex<std::collections::HashMap<String, Vec<u8>>>);

#[async_trait::async_trait]
impl SharedPolicies for Common {
    async fn get(&self, domain: &Domain) -> Option<Vec<u8>> {
        self.0.lock().get(domain.as_str()).cloned()
    }

    async fn put(&self, domain: &Domain, value: &[u8], keep: std::time::Duration) {
        assert_eq!(keep.as_secs(), 1000, "as long as the policy holds");
        self.0.lock().insert(domain.to_string(), value.to_vec());
    }
}

#[tokio::test]
async fn a_policy_that_one_node_fetched_holds_on_all() {
    let world = world("mx.example.test").await;
    world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    world.https.say("200 OK", "text/plain", &policy("enforce", "mx.example.test"));
    let common = Arc::new(Common::default());
    let node = |n: u8, dns: &FakeDns| {
        let mut config = world.config.clone();
        config.paths.state = config.paths.state.join(n.to_string());
        config.dns.servers = vec![dns.address()];
        let relay = Relay::with_timeouts(&config, timeouts()).unwrap();
        relay.share_policies(common.clone());
        relay
    };
    for n in [1, 2] {
        let relay = node(n, &world.dns);
        assert_eq!(send(&relay).await.1, "TLSv1.3 mta-sts");
        relay.reload(&world.config).unwrap();
    }
    assert_eq!(world.https.requests().len(), 1, "the second node did not fetch it again");
    // A third meets an attacker who suppresses the announcement.
    let bare = FakeDns::start().await;
    bare.add("example.test MX 10 mx.example.test").add("mx.example.test A 127.0.0.1");
    assert_eq!(send(&node(3, &bare)).await.1, "TLSv1.3 mta-sts");
}

#[tokio::test]
async fn a_policy_is_fetched_once_however_many_want_it() {
    for status in ["200 OK", "404 Not Found"] {
        let world = world("mx.example.test").await;
        world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
        world.https.say(status, "text/plain", &policy("enforce", "mx.example.test"));
        let relay = world.relay();
        let told = futures::future::join_all((0..8).map(|_| send(&relay))).await;
        let tls = if status == "200 OK" { "TLSv1.3 mta-sts" } else { "TLSv1.3 opportunistic" };
        assert!(told.iter().all(|(said, with)| said == "relayed 250 2.0.0 Ok" && with == tls), "{told:?}");
        assert_eq!(world.https.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn testing_reports_and_never_blocks() {
    for (mx, kind) in [("mx.example.test", "certificate-host-mismatch"), ("mail.example.test", "validation-failure")] {
        let world = world("other.test").await;
        world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
        world.https.say("200 OK", "text/plain", &policy("testing", mx));
        let relay = world.relay();
        assert_eq!(send(&relay).await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 opportunistic".into()));
        assert_eq!(counted(&relay), [("sts".into(), 0, 1, vec![kind.into()])]);
    }
}

#[tokio::test]
async fn policies_that_cannot_be_had_bind_nobody_and_are_reported() {
    for (status, kind, content, result) in [
        ("404 Not Found", "text/plain", policy("enforce", "no.test"), "sts-policy-fetch-error"),
        ("302 Found\r\nLocation: https://mta-sts.example.test/x", "text/plain", policy("enforce", "no.test"), "sts-policy-fetch-error"),
        ("200 OK", "text/html", policy("enforce", "no.test"), "sts-policy-invalid"),
        ("200 OK", "text/plain", "version: STSv2\n".into(), "sts-policy-invalid"),
        ("200 OK", "text/plain", policy("enforce", "no.test") + &"x: y\n".repeat(20_000), "sts-policy-fetch-error"),
    ] {
        let world = world("mx.example.test").await;
        world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
        world.https.say(status, kind, &content);
        let relay = world.relay();
        assert_eq!(send(&relay).await.0, "relayed 250 2.0.0 Ok");
        send(&relay).await;
        assert_eq!(world.https.requests().len(), 1, "a failed fetch is not repeated at once");
        assert_eq!(counted(&relay), [("no-policy-found".into(), 0, 2, vec![result.into()])], "{status}");
    }
    // The policy host's certificate is not valid for its name.
    let mut world = world("mx.example.test").await;
    let https = Https::start(&world.authority.issue(&["other.test"])).await;
    https.say("200 OK", "text/plain", &policy("enforce", "no.test"));
    world.config.relay.mta_sts_port = https.port;
    world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    let relay = world.relay();
    assert_eq!(send(&relay).await.0, "relayed 250 2.0.0 Ok");
    assert_eq!(counted(&relay), [("no-policy-found".into(), 0, 1, vec!["sts-webpki-invalid".into()])]);
    assert!(https.requests().is_empty());
}

#[tokio::test]
async fn a_message_that_says_so_goes_without_the_policy() {
    let world = world("other.test").await;
    world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    world.https.say("200 OK", "text/plain", &policy("enforce", "mx.example.test"));
    let relay = world.relay();
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), format!("TLS-Required: no\r\n{MAIL}")).await;
    assert_eq!((brief(&outcomes)[0].as_str(), outcomes.tls.as_str()), ("relayed 250 2.0.0 Ok", "TLSv1.3 opportunistic"));
    let mut strict = envelope("a@me.test", &["b@example.test"]);
    strict.require_tls = true;
    let (outcomes, _) = deliver(&relay, strict, format!("TLS-Required: no\r\n{MAIL}")).await;
    assert!(brief(&outcomes)[0].starts_with("deferred"), "{:?}", brief(&outcomes));
}

#[tokio::test]
async fn reports_go_to_those_who_ask_the_day_after() {
    let mut world = world("mx.example.test").await;
    world.dns.add("reports.test A 127.0.0.1");
    let rua = format!("_smtp._tls.example.test TXT v=TLSRPTv1; rua=mailto:tls@example.test,https://reports.test:{}/in", world.https.port);
    world.dns.add(&rua);
    world.config.relay.mta_sts = false;
    world.https.say("201 Created", "text/plain", "");
    let relay = world.relay();
    send(&relay).await;
    let submitted: Arc<Mutex<Vec<OutgoingReport>>> = Arc::default();
    let into = submitted.clone();
    let submit: Submit = Arc::new(move |report| {
        into.lock().push(report);
        Box::pin(async { Ok(()) })
    });
    let now = OffsetDateTime::now_utc();
    assert_eq!(relay.send_tls_reports(now, &submit).await.unwrap(), 0, "the day is not over");
    assert_eq!(relay.send_tls_reports(now + Duration::days(1), &submit).await.unwrap(), 2, "one by mail and one by HTTPS");
    assert_eq!(relay.send_tls_reports(now + Duration::days(1), &submit).await.unwrap(), 0, "each once");
    let mails = submitted.lock().clone();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, "tls@example.test".parse().unwrap());
    let posted = world.https.requests();
    assert_eq!(posted.len(), 1);
    assert!(posted[0].starts_with(b"POST /in HTTP/1.1\r\n"));
    // Read back as others would read it.
    let taken = relay.take_tls_report(mails[0].message.clone().into()).await.unwrap();
    assert_eq!(taken, 1);
    let report = relay.received_tls_reports().await.unwrap().remove(0);
    assert_eq!(report.organization_name, "relay.test");
    assert_eq!(report.policies[0].policy.policy_type, "no-policy-found");
    assert_eq!(report.policies[0].summary.total_successful_session_count, 1);
}

#[tokio::test]
async fn a_new_id_brings_a_new_policy() {
    let world = world("mx.example.test").await;
    world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    world.https.say("200 OK", "text/plain", &policy("enforce", "mail.example.test"));
    let relay = world.relay();
    assert!(send(&relay).await.0.starts_with("deferred"));
    // The same id: nothing is fetched, though the policy host has another by now.
    world.https.say("200 OK", "text/plain", &policy("enforce", "mx.example.test"));
    assert!(send(&relay).await.0.starts_with("deferred"));
    world.dns.0.remove("_mta-sts.example.test");
    world.dns.add("_mta-sts.example.test TXT v=STSv1; id=2;");
    assert_eq!(send(&relay).await.1, "TLSv1.3 mta-sts");
    assert_eq!(world.https.requests().len(), 2);
    // `none` takes it back.
    world.https.say("200 OK", "text/plain", &policy("none", "mx.example.test"));
    world.dns.0.remove("_mta-sts.example.test");
    world.dns.add("_mta-sts.example.test TXT v=STSv1; id=3;");
    assert_eq!(send(&relay).await.1, "TLSv1.3 opportunistic");
}
