//! From results to a decision: which rule refuses, which one junks, and how the points add up. No look-ups here.

use pillarbox_config::Screen;
use pillarbox_smtp::{Reply, printable};

use crate::auth::{AuthResult, Authentication, FromField, Policy};
use crate::dnsbl::Listings;
use crate::replies;
use crate::results::pvalue;

/// Points of single rules. `screen.junk_score` (6 by default) is what they add up against.
mod points {
    pub(super) const SPF_FAIL: f64 = 2.0;
    pub(super) const SPF_SOFTFAIL: f64 = 1.0;
    pub(super) const DKIM_BROKEN: f64 = 0.5;
    pub(super) const DMARC_FAIL: f64 = 1.5;
    pub(super) const FROM_ODD: f64 = 2.0;
}

/// What the rules come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Opinion {
    /// Refuse with this.
    pub(crate) refuse: Option<Reply>,
    /// File as junk, whatever the score.
    pub(crate) junk: bool,
    /// Points.
    pub(crate) score: f64,
    /// One line a rule that spoke.
    pub(crate) why: Vec<String>,
    /// Why DMARC's policy was not applied, in the words of aggregate reports.
    pub(crate) dmarc_override: Option<&'static str>,
}

impl Opinion {
    fn add(&mut self, points: f64, why: String) {
        self.score += points;
        self.why.push(format!("{why} ({points:+.1})"));
    }
}

/// Weighs everything that is known before filters are asked. `list` is whether the message came through a mailing list (List-Id).
pub(crate) fn weigh(config: &Screen, listings: &Listings, auth: &Authentication, list: bool) -> Opinion {
    let mut opinion = Opinion::default();
    if let Some(listing) = &listings.allowed {
        opinion.why.push(format!("client is on the allow list {}", listing.zone));
    }
    for (listing, points) in &listings.scored {
        opinion.add(*points, format!("client is listed by {} with {}", listing.zone, listing.code));
    }
    if let Some(spf) = &auth.spf {
        let why = || format!("SPF says {} for {}", spf.result.as_str(), printable(spf.domain.as_bytes()));
        match spf.result {
            AuthResult::Fail => opinion.add(points::SPF_FAIL, why()),
            AuthResult::SoftFail => opinion.add(points::SPF_SOFTFAIL, why()),
            _ => {}
        }
    }
    let passes = |result: AuthResult| auth.dkim.iter().any(|dkim| dkim.result == result);
    let failed = auth.dkim.iter().any(|dkim| dkim.result == AuthResult::Fail && !dkim.testing);
    if !passes(AuthResult::Pass) && !passes(AuthResult::TempError) && failed {
        opinion.add(points::DKIM_BROKEN, "no DKIM signature holds".to_owned());
    }
    from_field(config, auth, &mut opinion);
    dmarc(config, auth, list, &mut opinion);
    if opinion.refuse.is_none() && config.reject_score > 0.0 && opinion.score >= config.reject_score {
        opinion.refuse = Some(replies::score());
    }
    opinion
}

/// A From field that DMARC cannot be applied to would be the way around it: refused where it is malformed on purpose, else junk. Without any such field nobody
/// is named, and nobody impersonated: the dialogue of the textbooks and a scanner's mail are of that kind.
fn from_field(config: &Screen, auth: &Authentication, opinion: &mut Opinion) {
    let enforced = config.dmarc == "enforce";
    let (why, refusal) = match &auth.from {
        FromField::One(_) => return,
        FromField::SeveralFields => ("several From fields", Some(replies::several_from_fields())),
        FromField::TooLarge => ("the header is too large to look through", Some(replies::header_too_large())),
        FromField::SeveralDomains => ("From names several domains", None),
        FromField::Unreadable => ("From names no address", None),
        FromField::Missing => return opinion.add(points::FROM_ODD, "no From field".to_owned()),
    };
    if !enforced {
        opinion.add(points::FROM_ODD, why.to_owned());
        return;
    }
    opinion.why.push(why.to_owned());
    opinion.junk = true;
    opinion.refuse = opinion.refuse.take().or(refusal);
}

fn dmarc(config: &Screen, auth: &Authentication, list: bool, opinion: &mut Opinion) {
    let Some(dmarc) = auth.dmarc.as_ref().filter(|dmarc| dmarc.result == AuthResult::Fail) else { return };
    let domain = pvalue(&dmarc.domain);
    let told = format!("DMARC fails for {domain}, whose policy is {}", dmarc.policy.as_str());
    if let Some(why) = excuse(config, auth, list) {
        opinion.why.push(format!("{told}, but it came through {why}"));
        opinion.dmarc_override = Some(if list { "mailing_list" } else { "trusted_forwarder" });
        return;
    }
    if config.dmarc != "enforce" {
        opinion.why.push(format!("{told}; not enforced here"));
        opinion.dmarc_override = Some("local_policy");
        return;
    }
    match dmarc.policy {
        Policy::None => opinion.add(points::DMARC_FAIL, told),
        Policy::Quarantine => {
            opinion.junk = true;
            opinion.why.push(told);
        }
        Policy::Reject => {
            opinion.why.push(told);
            opinion.refuse = opinion.refuse.take().or_else(|| Some(replies::dmarc(&domain)));
        }
    }
}

/// A forwarder or list that the configuration trusts, and that is proven to have handled the message: its ARC seal tells that DMARC
/// passed when the message reached it, or its own DKIM signature is on a message from a list.
fn excuse(config: &Screen, auth: &Authentication, list: bool) -> Option<String> {
    let trusted = |domain: &str| {
        config.trusted_forwarders.iter().any(|name| {
            let name = name.trim_start_matches(['@', '.']).to_ascii_lowercase();
            domain == name || domain.strip_suffix(&name).is_some_and(|head| head.ends_with('.'))
        })
    };
    if let Some(arc) = &auth.arc
        && arc.result == AuthResult::Pass
        && arc.dmarc_passed
        && trusted(&arc.sealer)
    {
        return Some(format!("the trusted forwarder {}", pvalue(&arc.sealer)));
    }
    if list {
        let signer = auth.dkim.iter().find(|dkim| dkim.result == AuthResult::Pass && trusted(&dkim.domain))?;
        return Some(format!("the trusted list at {}", pvalue(&signer.domain)));
    }
    None
}

/// The statements of Authentication-Results. `dkim`: signatures were looked for.
pub(crate) fn statements(auth: &Authentication, dkim: bool) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(spf) = &auth.spf {
        let identity = if spf.helo { "helo" } else { "mailfrom" };
        all.push(format!("spf={} smtp.{identity}={}", spf.result.as_str(), pvalue(&spf.domain)));
    }
    if dkim && auth.dkim.is_empty() {
        all.push("dkim=none".to_owned());
    }
    for dkim in &auth.dkim {
        let mut statement = format!("dkim={}", dkim.result.as_str());
        if let Some(reason) = &dkim.reason {
            statement.push_str(&format!(" reason=\"{}\"", quoted(reason)));
        }
        for (property, value) in [("d", &dkim.domain), ("s", &dkim.selector), ("b", &dkim.tag)] {
            if !value.is_empty() {
                statement.push_str(&format!(" header.{property}={}", pvalue(value)));
            }
        }
        if !dkim.algorithm.is_empty() {
            statement.push_str(&format!(" header.a={}", dkim.algorithm));
        }
        all.push(statement);
    }
    if let Some(arc) = &auth.arc {
        // A chain that could not be looked up is left out: RFC 8617 knows no word for it.
        if matches!(arc.result, AuthResult::Pass | AuthResult::Fail) {
            all.push(format!("arc={} (i={} {})", arc.result.as_str(), arc.instances, pvalue(&arc.sealer)));
        }
    }
    if let Some(dmarc) = &auth.dmarc {
        all.push(format!("dmarc={} (p={}) header.from={}", dmarc.result.as_str(), dmarc.policy.as_str(), pvalue(&dmarc.domain)));
    }
    all
}

/// Text for a quoted string, cut.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && !"\"\\".contains(*c)).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{ArcCheck, DkimCheck, DmarcCheck};

    fn failing(policy: Policy) -> Authentication {
        Authentication {
            from: FromField::One("example.org".into()),
            dmarc: Some(DmarcCheck {
                result: AuthResult::Fail,
                domain: "example.org".into(),
                policy,
                spf_aligned: false,
                dkim_aligned: false,
                record: None,
                reason: None,
            }),
            ..Authentication::default()
        }
    }

    fn weighed(config: &Screen, auth: &Authentication) -> Opinion {
        weigh(config, &Listings::default(), auth, false)
    }

    #[test]
    fn dmarc_does_what_the_author_asks() {
        let config = Screen::default();
        assert_eq!(weighed(&config, &failing(Policy::Reject)).refuse.unwrap().code, 550);
        let quarantine = weighed(&config, &failing(Policy::Quarantine));
        assert!(quarantine.junk && quarantine.refuse.is_none());
        assert_eq!(weighed(&config, &failing(Policy::None)).score, points::DMARC_FAIL);
        let watching = Screen { dmarc: "report-only".into(), ..Screen::default() };
        let seen = weighed(&watching, &failing(Policy::Reject));
        assert!(seen.refuse.is_none() && !seen.junk && seen.dmarc_override == Some("local_policy"));
    }

    #[test]
    fn errors_of_dns_are_not_held_against_anyone() {
        let mut auth = failing(Policy::Reject);
        if let Some(dmarc) = &mut auth.dmarc {
            dmarc.result = AuthResult::TempError;
        }
        auth.dkim = vec![];
        assert_eq!(weighed(&Screen::default(), &auth), Opinion::default());
    }

    #[test]
    fn a_broken_signature_costs_points_unless_its_domain_is_testing() {
        let broken = |testing| DkimCheck {
            result: AuthResult::Fail,
            domain: "example.org".into(),
            selector: "s".into(),
            algorithm: "rsa-sha256",
            tag: String::new(),
            reason: None,
            testing,
        };
        let mut auth =
            Authentication { from: FromField::One("example.org".into()), dkim: vec![broken(false)], ..Authentication::default() };
        assert_eq!(weighed(&Screen::default(), &auth).score, points::DKIM_BROKEN);
        auth.dkim = vec![broken(true)];
        assert_eq!(weighed(&Screen::default(), &auth).score, 0.0);
    }

    #[test]
    fn trusted_forwarders_and_lists_are_excused() {
        let config = Screen { trusted_forwarders: vec!["forward.example".into()], ..Screen::default() };
        let mut auth = failing(Policy::Reject);
        auth.arc = Some(ArcCheck {
            result: AuthResult::Pass,
            sealer: "mx.forward.example".into(),
            instances: 1,
            dmarc_passed: true,
            reason: None,
        });
        assert_eq!(weighed(&config, &auth).dmarc_override, Some("trusted_forwarder"));
        assert!(weighed(&Screen::default(), &auth).refuse.is_some());
        if let Some(arc) = &mut auth.arc {
            arc.dmarc_passed = false;
        }
        assert!(weighed(&config, &auth).refuse.is_some());
        auth.dkim = vec![DkimCheck {
            result: AuthResult::Pass,
            domain: "forward.example".into(),
            selector: "s".into(),
            algorithm: "rsa-sha256",
            tag: String::new(),
            reason: None,
            testing: false,
        }];
        assert!(weigh(&config, &Listings::default(), &auth, true).refuse.is_none());
        assert!(weigh(&config, &Listings::default(), &auth, false).refuse.is_some());
        if let Some(dkim) = auth.dkim.first_mut() {
            dkim.domain = "evilforward.example".into();
        }
        assert!(weigh(&config, &Listings::default(), &auth, true).refuse.is_some());
    }

    #[test]
    fn a_from_field_that_dmarc_cannot_be_applied_to_is_no_way_around_it() {
        for from in [FromField::SeveralFields, FromField::TooLarge] {
            let auth = Authentication { from, ..Authentication::default() };
            assert!(weighed(&Screen::default(), &auth).refuse.is_some());
        }
        let nobody = weighed(&Screen::default(), &Authentication::default());
        assert_eq!((nobody.score, nobody.junk), (points::FROM_ODD, false));
        for from in [FromField::Unreadable, FromField::SeveralDomains] {
            let auth = Authentication { from, ..Authentication::default() };
            let opinion = weighed(&Screen::default(), &auth);
            assert!(opinion.junk && opinion.refuse.is_none());
            let watching = Screen { dmarc: "report-only".into(), ..Screen::default() };
            assert_eq!(weighed(&watching, &auth).score, points::FROM_ODD);
        }
    }
}
