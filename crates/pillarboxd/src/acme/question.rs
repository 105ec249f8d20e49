//! One message to one name server and its answer, over TCP (RFC 7766): for what a resolver cannot do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one server about one name.
pub(super) async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> anyhow::Result<Message> {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Query;
    message.add_query(Query::query(name.clone(), kind));
    let answer = exchange(server, &message).await?;
    Ok(Message::from_vec(&answer)?)
}

/// Sends a message as it is; answers with the octets of the answer, whose signature may have to be verified.
pub(super) async fn exchange(server: SocketAddr, message: &Message) -> anyhow::Result<Vec<u8>> {
    let request = message.to_vec()?;
    let talk = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(request.len()).map_err(std::io::Error::other)?;
        // In one piece: some servers do not wait for the second.
        stream.write_all(&[&length.to_be_bytes()[..], &request].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, talk)
        .await
        .with_context(|| format!("the name server {server} did not answer in time"))?
        .with_context(|| format!("the name server {server} cannot be spoken to"))?;
    if answer.get(..2) != request.get(..2) {
        bail!("the name server {server} answered another question");
    }
    Ok(answer)
}
