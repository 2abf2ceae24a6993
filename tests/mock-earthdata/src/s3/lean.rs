//! S3 without its checks, for benchmarks: http/1.1 on the bare socket, bodies straight from memory to it.
//!
//! A request's head is parsed for its target, `Range`, `If-Match` and `x-amz-checksum-mode`; the rest of it is not looked at, and it can have no
//! body. Answers come from `answers`; here they are delayed, written and counted. While an answer waits, the socket is
//! read, so that a client that hung up is not served to the end.

use std::io::{self, Write as _};
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::http::HeaderName;
use hyper::{Method, Uri};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::answers::{Answer, Body, Pages};
use super::pace::Pace;
use super::request;
use crate::content::Reader;
use crate::meter::{RequestRecord, Ticket};
use crate::server::Protocol;
use crate::settings::Shape;
use crate::state::State;
use crate::synthetic::PIECE;
use crate::wire::{Link, Socket, Wire};

mod answers;

/// Heads are shorter than this.
const MAX_HEAD: usize = 64 * 1024;

/// Headers of a request: SDKs send about twenty.
const MAX_HEADERS: usize = 96;

/// Bodies up to this size go out together with their head.
const SMALL: usize = 64 * 1024;

/// The S3 host in lean mode.
#[derive(Clone)]
pub(crate) struct Lean {
    state: Arc<State>,
    pages: Arc<Pages>,
}

/// A request, as far as it counts.
struct Ask {
    record: RequestRecord,
    /// The client wants the connection to end behind the answer.
    close: bool,
}

impl Lean {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            pages: Arc::default(),
        }
    }

    /// Serves one request; false if the connection is to end.
    async fn serve<S: Socket>(
        &self,
        ask: Ask,
        conversation: &mut Conversation<'_, S>,
        link: &Link,
    ) -> io::Result<bool> {
        let hit = self.state.script.lock().hit(&ask.record);
        let mut ticket = self.state.meter.begin(ask.record.clone());
        let answer = answers::answer(&self.state, &self.pages, &ask.record, hit.as_ref());
        let shape = self.state.controls.lock().shape;
        let delay = shape.first_byte + shape.per_listed_key * answer.entries;
        if let Some(hit) = &hit {
            conversation.wait(hit.stall()).await?;
            link.arm(hit);
        }
        if !delay.is_zero() {
            conversation.wait(tokio::time::sleep(delay)).await?;
        }
        ticket.answered(answer.status.as_u16());
        conversation
            .say(&self.state, answer, &mut ticket, shape, ask.close)
            .await?;
        Ok(!ask.close)
    }
}

impl Protocol for Lean {
    /// Errors are the client's: it sees them as a closed connection.
    async fn converse<S: Socket>(&self, wire: &mut Wire<S>, link: Link) {
        let mut conversation = Conversation {
            wire,
            buffer: BytesMut::with_capacity(8 * 1024),
            head: Vec::with_capacity(1024),
        };
        while let Ok(Some(ask)) = conversation.hear().await {
            match self.serve(ask, &mut conversation, &link).await {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            }
        }
    }
}

/// A connection: what came and is not read yet, and what goes out.
struct Conversation<'a, S> {
    wire: &'a mut Wire<S>,
    buffer: BytesMut,
    /// Scratch for the head of an answer, and for a small body behind it.
    head: Vec<u8>,
}

impl<S: Socket> Conversation<'_, S> {
    /// The next request; None at the end of the connection.
    async fn hear(&mut self) -> io::Result<Option<Ask>> {
        loop {
            if let Some((ask, length)) = parse(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(Some(ask));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.wire.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits for something to be over; an error if the client is gone before.
    async fn wait(&mut self, over: impl Future<Output = ()>) -> io::Result<()> {
        let mut over = std::pin::pin!(over);
        loop {
            let room = self.buffer.len() <= MAX_HEAD;
            tokio::select! {
                biased;
                () = &mut over => return Ok(()),
                read = self.wire.read_buf(&mut self.buffer), if room => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    /// Writes an answer, at the bandwidth of the shape.
    async fn say(
        &mut self,
        state: &State,
        answer: Answer,
        ticket: &mut Ticket,
        shape: Shape,
        close: bool,
    ) -> io::Result<()> {
        let length = answer.body.sent();
        if length == 0 {
            ticket.finish();
        }
        let now = state.now();
        self.head.clear();
        write!(
            self.head,
            "HTTP/1.1 {}\r\nDate: {}\r\nServer: AmazonS3\r\nx-amz-request-id: {:016X}\r\n",
            answer.status,
            httpdate::HttpDate::from(now),
            fastrand::u64(..)
        )?;
        self.head.extend_from_slice(answer.headers.as_bytes());
        if close {
            self.head.extend_from_slice(b"Connection: close\r\n");
        }
        self.head.extend_from_slice(b"\r\n");
        let mut pace = Pace::new(shape, &state.link);
        match answer.body {
            Body::None(_) => self.wire.write_all(&self.head).await?,
            Body::Whole(bytes) => {
                let mut source = Source::Bytes(bytes);
                self.pass(&mut source, length, ticket, &mut pace).await?;
            }
            Body::Part(reader, bytes) => {
                let mut source = Source::Object(reader, bytes.start);
                self.pass(&mut source, length, ticket, &mut pace).await?;
            }
        }
        self.wire.flush().await
    }

    /// Writes the head and so many bytes of a body.
    async fn pass(
        &mut self,
        source: &mut Source,
        length: u64,
        ticket: &mut Ticket,
        pace: &mut Option<Pace>,
    ) -> io::Result<()> {
        let mut left = length;
        let together = pace.is_none() && left <= SMALL as u64;
        if !together {
            self.wire.write_all(&self.head).await?;
        }
        while left > 0 {
            let most = pace.as_ref().map_or(PIECE, Pace::piece);
            let mut due = usize::try_from(left).map_or(most, |left| left.min(most));
            if let Some(pace) = pace {
                pace.wait(due).await;
            }
            while due > 0 {
                let piece = source.next(due).await?;
                due -= piece.len();
                left -= piece.len() as u64;
                ticket.sent(piece.len() as u64);
                if left == 0 {
                    ticket.finish();
                }
                if together {
                    self.head.extend_from_slice(&piece);
                } else {
                    self.wire.write_all(&piece).await?;
                }
            }
        }
        if together {
            self.wire.write_all(&self.head).await?;
        }
        Ok(())
    }
}

/// Where a body comes from.
enum Source {
    Bytes(Bytes),
    Object(Reader, u64),
}

impl Source {
    /// The next bytes, some but no more than `most`, which must be there.
    async fn next(&mut self, most: usize) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.split_to(most.min(bytes.len()))),
            Self::Object(reader, offset) => {
                let bytes = reader.read(*offset, most).await?;
                *offset += bytes.len() as u64;
                Ok(bytes)
            }
        }
    }
}

/// The request at the beginning of what came, and the length of its head; None if it is not all there.
fn parse(buffer: &[u8]) -> io::Result<Option<(Ask, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(buffer).map_err(io::Error::other)?;
    let httparse::Status::Complete(length) = status else {
        return Ok(None);
    };
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    let target = request.path.unwrap_or_default().parse::<Uri>();
    let (method, target) = (
        method.map_err(io::Error::other)?,
        target.map_err(io::Error::other)?,
    );
    let mut record = request::bare_record(&method, &target);
    let mut close = request.version == Some(0);
    let text = |value: &[u8]| Some(String::from_utf8_lossy(value).into_owned());
    for header in request.headers {
        let is = |name: &HeaderName| header.name.eq_ignore_ascii_case(name.as_str());
        if is(&hyper::header::RANGE) {
            record.range = text(header.value);
        } else if is(&hyper::header::IF_MATCH) {
            record.if_match = text(header.value);
        } else if is(&request::CHECKSUM_MODE) {
            record.checksum_mode = true;
        } else if is(&hyper::header::CONNECTION) {
            close = header.value.eq_ignore_ascii_case(b"close");
        } else if is(&hyper::header::CONTENT_LENGTH) && header.value != b"0" {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(Some((Ask { record, close }, length)))
}
