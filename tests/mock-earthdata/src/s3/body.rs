//! The body of an S3 answer on its way out: at its bandwidth, counted, and its end announced.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::StreamBody;

use super::pace::Pace;
use crate::content::Reader;
use crate::meter::Ticket;
use crate::reply::BodyError;

/// Bytes read from an object at a time: large enough that the cost of a step disappears, small beside the buffers.
const CHUNK: usize = 128 * 1024;

/// The bytes `start..end` of an object, in chunks.
pub(crate) fn stream_object(
    reader: Reader,
    start: u64,
    end: u64,
) -> impl Body<Data = Bytes, Error = BodyError> + Send + 'static {
    let chunks = stream::unfold(start, move |offset| {
        let reader = reader.clone();
        async move {
            let left = end.checked_sub(offset).filter(|left| *left > 0)?;
            let len = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = reader.read(offset, len).await;
            // After an error the stream ends, and the connection is cut short of its Content-Length.
            let next = match &chunk {
                Ok(chunk) => offset + chunk.len() as u64,
                Err(_) => end,
            };
            Some((chunk.map(Frame::data).map_err(BodyError::from), next))
        }
    });
    StreamBody::new(chunks)
}

/// Wraps a body that hyper sends. The ticket ends with it: finished when the last byte is handed over, given up when it
/// is dropped before.
pub(crate) struct Metered {
    inner: Pin<Box<s3s::Body>>,
    /// Bytes still to come, where known.
    left: Option<u64>,
    ticket: Ticket,
    pace: Option<Pace>,
    /// Read, but not handed over yet.
    chunk: Bytes,
}

impl Metered {
    /// `length` is that of the body as sent, None where unknown. A body of no bytes is finished at once.
    pub(crate) fn new(
        inner: s3s::Body,
        length: Option<u64>,
        mut ticket: Ticket,
        pace: Option<Pace>,
    ) -> Self {
        if length == Some(0) {
            ticket.finish();
        }
        Self {
            inner: Box::pin(inner),
            left: length,
            ticket,
            pace,
            chunk: Bytes::new(),
        }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while this.chunk.is_empty() {
            match ready!(this.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => this.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.ticket.finish();
                    return Poll::Ready(None);
                }
            }
        }
        let piece = match &mut this.pace {
            None => std::mem::take(&mut this.chunk),
            Some(pace) => {
                let len = pace.piece().min(this.chunk.len());
                ready!(pace.poll(len, cx));
                this.chunk.split_to(len)
            }
        };
        this.ticket.sent(piece.len() as u64);
        if let Some(left) = &mut this.left {
            *left = left.saturating_sub(piece.len() as u64);
            if *left == 0 {
                this.ticket.finish();
            }
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
