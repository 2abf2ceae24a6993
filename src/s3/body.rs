//! GETs whose bodies heal: a body that breaks, stalls or ends early goes on at the byte reached, with
//! `If-Match`, in a new request; one whose bytes are not those of the object's checksum comes again.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::Instant;

use super::checksum::{self, Checksum};
use super::client::{Connection, S3};
use super::error::Error;
use super::pace::{PATIENCE, Pace};
use super::retry::{Attempt, Failing, MOST_PATIENCE};
use super::types::{ByteRange, ETag};
use crate::network::causes;
use crate::request::Request;
use crate::sync::Arc;

/// Bodies with wrong bytes in a row, after which there is no hope: what changes one body in ten by chance
/// changes so many once in a million times.
const MOST_WRONG: u32 = 6;

/// The bytes of a range of one object version, as they arrive.
pub struct Body {
    s3: Arc<S3>,
    key: Arc<str>,
    etag: ETag,
    /// All that was asked for.
    range: ByteRange,
    /// That is the whole object, and to be compared with its checksum if S3 has one.
    is_compared: bool,
    /// Of the bytes that came so far, if there is one.
    checksum: Option<Checksum>,
    /// Bodies that came with wrong bytes.
    wrong: u32,
    /// What is still to come; `None` at the end.
    rest: Option<ByteRange>,
    request: Request,
    /// The time that the request has. It has that anew whenever the body has come on: a reader who waits for a part
    /// of it has a deadline of his own.
    time: Duration,
    open: Option<Open>,
    /// How long it may come too slowly.
    patience: Duration,
    /// Since bytes came last.
    failing: Option<Failing>,
}

/// What comes of a body.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes, never empty.
    Bytes(Bytes),
    /// The next bytes, which nobody must see yet: [`Piece::Proven`] or [`Piece::Disproven`] follows.
    Unproven(Bytes),
    /// All bytes that came are those of the object.
    Proven,
    /// They are not, and come again from the first one on.
    Disproven,
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
            range,
            is_compared: false,
            checksum: None,
            wrong: 0,
            rest: Some(range),
            time: request.deadline - Instant::now(),
            request,
            open: None,
            patience: PATIENCE,
            failing: None,
        }
    }

    /// All bytes of the version `etag` of `key`, `range`. Those of a small object are compared with the
    /// checksum that S3 has of it, if it has one that can be.
    pub fn get_whole(
        self: &Arc<Self>,
        key: &Arc<str>,
        etag: &ETag,
        range: ByteRange,
        request: Request,
    ) -> Body {
        Body {
            is_compared: self.compares && range.len() <= checksum::LARGEST,
            ..self.get_range(key, etag, range, request)
        }
    }
}

impl Body {
    /// What comes next; `None` when the range is complete.
    ///
    /// # Errors
    /// As S3 says; a body that cannot be completed before the deadline is [`Error::TimedOut`], one that
    /// comes wrong again and again [`Error::WrongBytes`].
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            let Some(rest) = self.rest else {
                let Some(checksum) = self.checksum.take() else {
                    return Ok(None);
                };
                return match self.s3.compared.compare(checksum, &self.key) {
                    Ok(()) => Ok(Some(Piece::Proven)),
                    Err(algorithm) => self.came_wrong(algorithm).await.map(Some),
                };
            };
            let open = match &mut self.open {
                Some(open) => open,
                none => {
                    let is_first = self.is_compared && rest == self.range;
                    let opened = open(
                        &self.s3,
                        &self.key,
                        &self.etag,
                        rest,
                        is_first,
                        &self.request,
                    );
                    let ((stream, checksum), connection) = opened.await?;
                    if is_first {
                        self.checksum = checksum;
                    }
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
                    if open.pace.came(bytes.len()) {
                        self.request.deadline = Instant::now() + self.time;
                    }
                    self.rest = ByteRange::new(rest.start() + bytes.len() as u64, rest.end());
                    if self.rest.is_none() {
                        self.open = None;
                    }
                    match bytes.is_empty() {
                        true => continue,
                        false => return Ok(Some(self.came(bytes))),
                    }
                }
                Ok(Some(Ok(_))) => "the body is longer than announced".to_owned(),
                Ok(Some(Err(e))) => {
                    let (host, why) = (self.s3.sender.host(), causes(&e));
                    format!("the connection to {host} broke off: {why}")
                }
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
            if !self.pause(&broken).await {
                return Err(Error::Unavailable(broken));
            }
        }
    }

    fn came(&mut self, bytes: Bytes) -> Piece {
        self.failing = None;
        match &mut self.checksum {
            None => Piece::Bytes(bytes),
            Some(checksum) => {
                checksum.update(&bytes);
                Piece::Unproven(bytes)
            }
        }
    }

    /// Waits until the next request may be sent; whether it may.
    async fn pause(&mut self, why: &str) -> bool {
        let class = self.request.class;
        let failing = self.failing.get_or_insert_with(|| Failing::new(class));
        failing.pause(why, &self.request).await
    }

    /// Begins anew, over another connection.
    async fn came_wrong(&mut self, algorithm: &'static str) -> Result<Piece, Error> {
        self.wrong += 1;
        self.s3.sender.renew_connections();
        if self.wrong == MOST_WRONG {
            let from = self.s3.sender.place(&self.key);
            return Err(Error::WrongBytes(from, algorithm, self.wrong));
        }
        // Once may be chance.
        if self.wrong > 1 && !self.pause("the bytes are not those of the checksum").await {
            return Err(Error::TimedOut);
        }
        self.rest = Some(self.range);
        Ok(Piece::Disproven)
    }
}

async fn open(
    s3: &S3,
    key: &str,
    etag: &ETag,
    range: ByteRange,
    is_whole: bool,
    request: &Request,
) -> Result<((ByteStream, Option<Checksum>), Connection), Error> {
    let send = async |attempt: Attempt| {
        let get = || async {
            match is_whole {
                true => s3.get_all(key, etag, range.len(), &attempt).await,
                false => Ok((s3.get(key, etag, range, &attempt).await?, None)),
            }
        };
        s3.hedged(&s3.hedges.gets, request, get).await
    };
    s3.retried(request, send).await
}
