//! Asks for what takes its time: draws how far it is, and returns how it ended.

use futures::StreamExt;
use hyper::Method;
use pillarbox_control::api::News;
use pillarbox_control::{ApiError, Client, ClientError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Trying};
use crate::progress::Progress;

/// Longest line of the answer that is read, octets: each damaged message of a queue may be named in it.
const LINE: usize = 64 << 20;

/// Posts `wanted`. `what` names the work for people, such as "move".
pub(super) async fn of<T: DeserializeOwned>(
    api: &Client,
    path: &str,
    wanted: &impl Serialize,
    what: &str,
) -> Result<Result<T, ApiError>, Failure> {
    let mut chunks = match api.stream_of(Method::POST, path, wanted).await {
        Ok(body) => body.into_data_stream(),
        Err(ClientError::Api(error)) => return Ok(Err(error)),
        Err(error) => return Err(error.into()),
    };
    let bar = Progress::bar(0);
    let mut rest: Vec<u8> = Vec::new();
    while let Some(chunk) = chunks.next().await {
        rest.extend_from_slice(&chunk.trying(format!("hear how the {what} goes on; the server goes on with it"))?);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            match serde_json::from_slice(&line).trying("read the server's answer")? {
                News::Progress { done, total } => {
                    bar.at(done, total);
                    bar.say(format!("{done} of {total}"));
                }
                News::Done(done) => return Ok(Ok(done)),
                News::Error(error) => return Ok(Err(error)),
            }
        }
        if rest.len() > LINE {
            break;
        }
    }
    Err(Failure::failed(format!("the server said no more in the middle of the {what}; look at its log, then repeat the command")))
}
