//! Ranged GETs whose bodies heal: a body that breaks, stalls or ends early goes on at the byte
//! reached, with `If-Match`, in a new request.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::Instant;

use super::client::{Connection, S3};
use super::error::Error;
use super::pace::{PATIENCE, Pace};
use super::retry::{self, Attempt};
use super::types::{ByteRange, ETag};
use crate::request::Request;
use crate::sync::Arc;

/// The longest pause between two requests for a body that breaks off.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A body that is given up again and again gets so much time in the end.
const MOST_PATIENCE: Duration = Duration::from_secs(32);

/// The bytes of a range of one object version, as they arrive.
pub struct Body {
    s3: Arc<S3>,
    key: Arc<str>,
    etag: ETag,
    /// What is still to come; `None` at the end.
    rest: Option<ByteRange>,
    request: Request,
    open: Option<Open>,
    /// How long it may come too slowly.
    patience: Duration,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

struct Open {
    stream: ByteStream,
    pace: Pace,
    _connection: Connection,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("key", &self.key)
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

impl S3 {
    /// The bytes `range` of the version `etag` of `key`. Sends nothing before [`Body::next`].
    pub fn get_range(
        self: &Arc<Self>,
        key: &Arc<str>,
        etag: &ETag,
        range: ByteRange,
        request: Request,
    ) -> Body {
        Body {
            s3: Arc::clone(self),
            key: Arc::clone(key),
            etag: etag.clone(),
            rest: Some(range),
            request,
            open: None,
            patience: PATIENCE,
            pauses: Box::new(retry::pauses()),
        }
    }
}

impl Body {
    /// The next bytes, never empty; `None` when the range is complete.
    ///
    /// # Errors
    /// As S3 says; a body that cannot be completed before the deadline is [`Error::TimedOut`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(rest) = self.rest {
            let open = match &mut self.open {
                Some(open) => open,
                none => {
                    let stream = open(&self.s3, &self.key, &self.etag, rest, &self.request);
                    let (stream, connection) = stream.await?;
                    none.insert(Open {
                        stream,
                        pace: Pace::new(self.patience),
                        _connection: connection,
                    })
                }
            };
            let until = self.request.deadline.min(open.pace.until());
            let broken = match tokio::time::timeout_at(until, open.stream.next()).await {
                Ok(Some(Ok(bytes))) if bytes.len() as u64 <= rest.len() => {
                    open.pace.came(bytes.len());
                    self.rest = ByteRange::new(rest.start() + bytes.len() as u64, rest.end());
                    if self.rest.is_none() {
                        self.open = None;
                    }
                    if bytes.is_empty() {
                        continue;
                    }
                    self.pauses = Box::new(retry::pauses());
                    return Ok(Some(bytes));
                }
                Ok(Some(Ok(_))) => "the body is longer than announced".to_owned(),
                Ok(Some(Err(e))) => e.to_string(),
                Ok(None) => "the body ended early".to_owned(),
                Err(_) if Instant::now() >= self.request.deadline => return Err(Error::TimedOut),
                Err(_) => {
                    self.s3.sender.renew_connections();
                    self.patience = (2 * self.patience).min(MOST_PATIENCE);
                    open.pace.too_slow()
                }
            };
            self.open = None;
            tracing::debug!(key = &*self.key, ?rest, "resuming a body: {broken}");
            let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE);
            if Instant::now() + pause >= self.request.deadline {
                return Err(Error::Unavailable(broken));
            }
            tokio::time::sleep(pause).await;
        }
        Ok(None)
    }
}

async fn open(
    s3: &S3,
    key: &str,
    etag: &ETag,
    range: ByteRange,
    request: &Request,
) -> Result<(ByteStream, Connection), Error> {
    let send = async |attempt: Attempt| {
        let get = || s3.get(key, etag, range, &attempt);
        let hedges = &s3.hedges.gets;
        hedges
            .first_of(request.class, get, || s3.free_connection())
            .await
    };
    s3.retried(request, send).await
}
