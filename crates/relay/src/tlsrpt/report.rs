//! A TLS report as JSON (RFC 8460 §4.4), for writing ours and reading those of others.

use serde::{Deserialize, Serialize};

/// A report of one sender about one domain and day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Who reports.
    #[serde(default)]
    pub organization_name: String,
    /// The period.
    pub date_range: DateRange,
    /// How to reach the reporter.
    #[serde(default)]
    pub contact_info: String,
    /// The reporter's own id.
    pub report_id: String,
    /// A section for each policy that applied.
    #[serde(default)]
    pub policies: Vec<Section>,
}

/// RFC 3339 times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DateRange {
    /// First moment.
    pub start_datetime: String,
    /// Last moment.
    pub end_datetime: String,
}

/// A policy and what happened under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Section {
    /// Which policy.
    pub policy: PolicyInfo,
    /// How many sessions.
    #[serde(default)]
    pub summary: Summary,
    /// What failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failure_details: Vec<Failure>,
}

/// The policy that applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyInfo {
    /// `tlsa`, `sts` or `no-policy-found`.
    pub policy_type: String,
    /// TLSA records, or the lines of the MTA-STS policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_string: Vec<String>,
    /// Whose policy.
    pub policy_domain: String,
    /// The patterns of an MTA-STS policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub mx_host: Vec<String>,
}

/// Numbers of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// With TLS as the policy wants it.
    #[serde(default)]
    pub total_successful_session_count: u64,
    /// Without.
    #[serde(default)]
    pub total_failure_session_count: u64,
}

/// One kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// RFC 8460 §4.3.
    pub result_type: String,
    /// The sender's address.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "sending-mta-ip")]
    pub sending_mta_ip: String,
    /// The host it tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receiving_mx_hostname: String,
    /// That host's address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receiving_ip: String,
    /// How often.
    #[serde(default)]
    pub failed_session_count: u64,
    /// In the sender's own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_reason_code: String,
}

/// RFC 8460 shows `mx-host` as a string in one place and as an array in another; both are in use.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}
