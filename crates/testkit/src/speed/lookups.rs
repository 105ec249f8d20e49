//! RCPT commands a second, over one connection at a time, in groups.

use std::io;
use std::time::{Duration, Instant};

use super::connection::{Access, Connection};

/// Recipients of one transaction; its answers fit a socket's buffer, so that nobody waits for the other.
const GROUP: usize = 100;
/// Transactions of a connection: a server may close one that resets and resets and never sends a message.
const TRANSACTIONS: usize = 50;

/// Asks for recipients `u0@bench.test` to `u<users-1>@bench.test`, jumping about among them, until the time is up; returns how many a second.
pub async fn run(access: &Access, users: u64, time: Duration) -> io::Result<f64> {
    let (began, mut asked, mut commands) = (Instant::now(), 0_u64, Vec::new());
    while began.elapsed() < time {
        let mut connection = Connection::open(access).await?;
        for _ in 0..TRANSACTIONS {
            commands.clear();
            commands.extend_from_slice(b"RSET\r\nMAIL FROM:<load@src.test>\r\n");
            for _ in 0..GROUP {
                // A multiplier with no factor in common with any of the sizes visits every user before one comes again.
                let user = asked.wrapping_mul(2_654_435_761) % users.max(1);
                asked += 1;
                commands.extend_from_slice(format!("RCPT TO:<u{user}@bench.test>\r\n").as_bytes());
            }
            connection.send(&commands).await?;
            for _ in 0..GROUP + 2 {
                connection.expect(250).await?;
            }
        }
    }
    Ok(asked as f64 / began.elapsed().as_secs_f64())
}
