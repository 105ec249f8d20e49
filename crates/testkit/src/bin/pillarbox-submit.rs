//! `pillarbox-submit`: hands one message to a submission server as a mail program does, with STARTTLS and AUTH PLAIN, so that
//! `scripts/run` needs no mail program. The certificate is not verified: the servers it talks to are try-outs on loopback.

use std::error::Error;
use std::io::Read;
use std::net::SocketAddr;
use std::process::ExitCode;

use base64::Engine as _;
use pillarbox_testkit::{Client, certificates};

const USAGE: &str = "usage: pillarbox-submit --server ADDRESS:PORT --user LOGIN --password-file FILE --from ADDRESS --to ADDRESS < MESSAGE";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match submit().await {
        Ok(reply) => {
            println!("The server took the message: {reply}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pillarbox-submit: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn submit() -> Result<String, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| -> Result<String, Box<dyn Error>> {
        let at = words.iter().position(|w| w == name).ok_or(USAGE)?;
        Ok(words.get(at + 1).ok_or(USAGE)?.clone())
    };
    let server: SocketAddr = option("--server")?.parse()?;
    let (user, from, to) = (option("--user")?, option("--from")?, option("--to")?);
    let password = std::fs::read_to_string(option("--password-file")?)?;
    let mut message = Vec::new();
    std::io::stdin().read_to_end(&mut message)?;

    let mut client = Client::try_connect(server).await?;
    say(&mut client, None, "220").await?;
    say(&mut client, Some("EHLO client.example.test"), "250").await?;
    say(&mut client, Some("STARTTLS"), "220").await?;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await?;
    say(&mut client, Some("EHLO client.example.test"), "250").await?;
    let token = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{}", password.trim_end()));
    say(&mut client, Some(&format!("AUTH PLAIN {token}")), "235").await?;
    say(&mut client, Some(&format!("MAIL FROM:<{from}>")), "250").await?;
    say(&mut client, Some(&format!("RCPT TO:<{to}>")), "250").await?;
    say(&mut client, Some("DATA"), "354").await?;
    client.try_send(&stuffed(&message)).await?;
    let taken = say(&mut client, None, "250").await?;
    say(&mut client, Some("QUIT"), "221").await?;
    Ok(taken)
}

/// Sends a line, if there is one, and wants a reply of this code.
async fn say(client: &mut Client, line: Option<&str>, code: &str) -> Result<String, Box<dyn Error>> {
    if let Some(line) = line {
        client.try_send(format!("{line}\r\n").as_bytes()).await?;
    }
    let reply = client.try_reply().await?;
    let text = reply.texts().collect::<Vec<_>>().join(" / ");
    if reply.code() != code {
        return Err(format!("the server said {} {text}", reply.code()).into());
    }
    Ok(text)
}

/// CRLF line ends, doubled dots, the final dot.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
