//! `/v1/users/import`, `/v1/users/export`: users with their hashes from and to other servers' files.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use pillarbox_directory::import::{self, Format, ImportOptions};
use pillarbox_directory::{Quota, UserRecord};
use pillarbox_smtp::Domain;
use serde::Deserialize;

use super::input::{Asked, Text};
use super::users::PAGE;
use crate::admin::Admin;
use crate::api::ImportInfo;
use crate::error::{ApiError, ApiResult};

#[derive(Deserialize)]
pub(super) struct How {
    /// The file's name, from which the format is told.
    #[serde(default)]
    name: String,
    /// "passwd", "csv" or "map".
    format: Option<String>,
    /// Domain of names without one.
    domain: Option<Domain>,
}

pub(super) async fn import(State(admin): State<Arc<Admin>>, Asked(how): Asked<How>, Text(text): Text) -> ApiResult<axum::Json<ImportInfo>> {
    let format = match how.format.as_deref() {
        None => Format::detect(&how.name, &text),
        Some("passwd") => Format::Passwd,
        Some("csv") => Format::Csv,
        Some("map") => Format::VirtualAliases,
        Some(other) => return Err(ApiError::usage(format!("{:?} is none of passwd, csv, map", super::input::shown(other)))),
    };
    let options = ImportOptions { default_domain: how.domain, cost: admin.config().auth.argon2, ..ImportOptions::default() };
    let parsed = import::parse(&text, format, &options);
    let done = import::import(admin.directory.as_ref(), parsed, &options, SystemTime::now(), |_, _| {}).await?;
    Ok(axum::Json(ImportInfo {
        users: done.users as u64,
        aliases: done.aliases as u64,
        existing: done.existing as u64,
        refused: done.errors.iter().map(|e| format!("line {}: {}", e.line, e.why)).collect(),
    }))
}

/// CSV with a first line of column names, as `import` reads it.
pub(super) async fn export(State(admin): State<Arc<Admin>>) -> ApiResult<String> {
    let mut out = String::from("address,password,quota,name\n");
    let mut after = None;
    loop {
        let page = admin.directory.users(None, after.as_ref(), PAGE).await?;
        for user in &page {
            let password = admin.directory.credential(&user.address).await?.and_then(|c| c.password).unwrap_or_default();
            out.push_str(&row(user, &password));
        }
        if page.len() < PAGE {
            return Ok(out);
        }
        after = page.into_iter().next_back().map(|u| u.address);
    }
}

fn row(user: &UserRecord, password: &str) -> String {
    let quota = match user.quota {
        None => String::new(),
        Some(Quota::None) => "none".into(),
        Some(Quota::Bytes(n)) => n.to_string(),
    };
    let fields = [user.address.to_string(), password.to_owned(), quota, user.name.clone().unwrap_or_default()];
    format!("{}\n", fields.map(|f| quoted(&f)).join(","))
}

/// RFC 4180 §2.
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_exported_is_imported_again() {
        use pillarbox_directory::{MemoryDirectory, ops};
        let config = pillarbox_config::Config::default();
        let cost = pillarbox_config::Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
        let admin = |directory: MemoryDirectory| {
            Arc::new(Admin::new(Arc::new(arc_swap::ArcSwap::from_pointee(config.clone())), Arc::new(directory)))
        };
        let (from, to) = (MemoryDirectory::new(), MemoryDirectory::new());
        for directory in [&from, &to] {
            ops::add_domain(directory, &"example.org".parse().unwrap(), SystemTime::now()).await.unwrap();
        }
        let mut user = ops::NewUser::new("bob@example.org".parse().unwrap(), Some("geheim".to_owned().into()));
        user.name = Some("Bob, \"the\" builder".into());
        user.quota = Some(Quota::Bytes(1000));
        ops::add_user(&from, user, &cost, SystemTime::now()).await.unwrap();
        let text = export(State(admin(from))).await.unwrap();
        let to = admin(to);
        let how = How { name: "users.csv".into(), format: None, domain: None };
        let done = import(State(to.clone()), Asked(how), Text(text.clone())).await.unwrap().0;
        assert_eq!((done.users, done.refused.len()), (1, 0), "{done:?}\n{text}");
        let record = to.directory.user(&"bob@example.org".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((record.name.as_deref(), record.quota), (Some("Bob, \"the\" builder"), Some(Quota::Bytes(1000))));
        assert_eq!(export(State(to)).await.unwrap(), text);
    }
}
