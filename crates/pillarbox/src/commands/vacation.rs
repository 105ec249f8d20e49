//! `pillarbox vacation`.

use hyper::Method;
use pillarbox_control::api::VacationInfo;
use pillarbox_control::escaped;
use pillarbox_directory::Vacation;
use pillarbox_smtp::Mailbox;

use super::parsed;
use crate::args::VacationVerb;
use crate::failure::Failure;
use crate::prompt::text_of;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: VacationVerb) -> Result<(), Failure> {
    match verb {
        VacationVerb::Set { address, subject, text_file, from, until } => {
            let address: Mailbox = parsed("address", &address)?;
            let vacation = Vacation { subject, text: text_of(&text_file)?, from, until };
            let set: VacationInfo = session.api().await?.send(Method::PUT, &path(&address), &vacation).await?;
            if session.out.json {
                session.out.value(&set)
            } else {
                session.out.line(format!("{address} answers mail {}.", days(&set.vacation)))
            }
        }
        VacationVerb::Show { address } => {
            let set: VacationInfo = session.api().await?.get(&path(&parsed("address", &address)?)).await?;
            if session.out.json {
                return session.out.value(&set);
            }
            session.out.line(format!("{} answers mail {}.", set.address, days(&set.vacation)))?;
            session.out.line(format!("Subject: {}\n", crate::out::safe(&set.vacation.subject)))?;
            for line in set.vacation.text.lines() {
                session.out.line(crate::out::safe(line))?;
            }
            Ok(())
        }
        VacationVerb::Clear { address } => {
            let address: Mailbox = parsed("address", &address)?;
            session.api().await?.done(Method::DELETE, &path(&address)).await?;
            session.out.done(format!("{address} answers no more."))
        }
    }
}

fn days(vacation: &Vacation) -> String {
    match (&vacation.from, &vacation.until) {
        (None, None) => "until this is cleared".into(),
        (Some(from), None) => format!("from {from} on"),
        (None, Some(until)) => format!("until {until}"),
        (Some(from), Some(until)) => format!("from {from} to {until}"),
    }
}

fn path(address: &Mailbox) -> String {
    format!("/v1/vacation/{}", escaped(&address.to_string()))
}
