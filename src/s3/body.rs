//! Ranged GETs whose bodies heal: a body that breaks, stalls or ends early goes on at the byte
//! reached, with `If-Match`, in a new request.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::Instant;

use super::client::{Connection, S3};
use super::error::Error;
use super::retry;
use super::types::{ByteRange, ETag};
use crate::credentials::Credentials;
use crate::request::{Class, Request};
use crate::sync::Arc;

/// A body from which nothing comes for so long is asked for again from the byte reached on.
const STALL: Duration = Duration::from_secs(10);

/// The bytes of a range of one object version, as they arrive.
pub struct Body {
    s3: Arc<S3>,
    key: Arc<str>,
    etag: ETag,
    /// What is still to come; `None` at the end.
    rest: Option<ByteRange>,
    request: Request,
    open: Option<Open>,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

struct Open {
    stream: ByteStream,
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
                    none.insert(open(&self.s3, &self.key, &self.etag, rest, &self.request).await?)
                }
            };
            let stalled = Instant::now() + STALL;
            let until = self.request.deadline.min(stalled);
            let broken = match tokio::time::timeout_at(until, open.stream.next()).await {
                Ok(Some(Ok(bytes))) if bytes.len() as u64 <= rest.len() => {
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
                Err(_) => format!("nothing came for {} s", STALL.as_secs()),
            };
            self.open = None;
            tracing::debug!(key = %self.key, ?rest, "resuming a body: {broken}");
            let pause = self.pauses.next().unwrap_or(STALL);
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
) -> Result<Open, Error> {
    let send = |credentials: Option<Arc<Credentials>>| async move {
        let credentials = credentials.as_deref();
        let get = || s3.getter.get(key, etag, range, credentials);
        match request.class {
            Class::Demand => s3.hedges.first_of(get, || s3.free_connection()).await,
            Class::Prefetch => get().await,
        }
    };
    let (stream, connection) = s3.retried(request, send).await?;
    Ok(Open {
        stream,
        _connection: connection,
    })
}
