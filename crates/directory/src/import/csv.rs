//! CSV: `address,password,quota,name`, or what a header line says.

use super::lines::{address, stored_password};
use super::{Found, ImportOptions, Parsed};
use crate::export::parse_quota;

/// Where the columns are.
struct Columns {
    address: usize,
    password: Option<usize>,
    quota: Option<usize>,
    name: Option<usize>,
}

pub(super) fn parse(text: &str, options: &ImportOptions, parsed: &mut Parsed) {
    let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
    // Spreadsheets of half the world separate with semicolons.
    let delimiter = if first.matches(';').count() > first.matches(',').count() { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .comment(Some(b'#'))
        .trim(csv::Trim::Fields)
        .from_reader(text.as_bytes());
    let mut columns = Columns { address: 0, password: Some(1), quota: Some(2), name: Some(3) };
    for (at, record) in reader.records().enumerate() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, |p| p.line());
                parsed.error(usize::try_from(line).unwrap_or(0), "the line is not CSV");
                continue;
            }
        };
        let line = record.position().map_or(0, |p| usize::try_from(p.line()).unwrap_or(0));
        if record.iter().all(str::is_empty) {
            continue;
        }
        if at == 0
            && let Some(named) = header(&record)
        {
            columns = named;
            continue;
        }
        match user(&record, &columns, options) {
            Ok(found) => parsed.users.push((line, found)),
            Err(why) => parsed.error(line, why),
        }
    }
}

/// The columns when this is a header: no address in it, and a column for addresses.
fn header(record: &csv::StringRecord) -> Option<Columns> {
    if record.iter().any(|field| field.contains('@')) {
        return None;
    }
    let find = |names: &[&str]| record.iter().position(|field| names.iter().any(|name| field.eq_ignore_ascii_case(name)));
    Some(Columns {
        address: find(&["address", "email", "e-mail", "mail", "user", "username", "login"])?,
        password: find(&["password", "password-or-hash", "hash", "passwd"]),
        quota: find(&["quota"]),
        name: find(&["name", "full name", "fullname", "display name"]),
    })
}

fn user(record: &csv::StringRecord, columns: &Columns, options: &ImportOptions) -> Result<Found, String> {
    let field = |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|f| !f.is_empty());
    Ok(Found {
        address: address(field(Some(columns.address)).ok_or("there is no address")?, options)?,
        password: field(columns.password).map(|text| stored_password(text, false)).transpose()?,
        quota: field(columns.quota).map(parse_quota).transpose()?,
        name: field(columns.name).map(str::to_owned),
    })
}
