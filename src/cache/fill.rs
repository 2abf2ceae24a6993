//! A run of claimed bytes on its way into its blocks.
//!
//! Bytes that are to be proven right first are put where they belong, so that they take no memory of their
//! own, and published all at once.

use std::collections::VecDeque;

use super::Cache;
use super::block::Block;
use crate::request::Awaited;
use crate::s3::{ByteRange, Error};
use crate::sync::Arc;

/// The one writer of a run of absent bytes. Bytes are pushed in order and serve waiters sector by
/// sector. When it is dropped, what has not come is absent again, and whoever waits for it fetches
/// for itself.
pub struct Fill {
    cache: Arc<Cache>,
    /// Where in the object the next byte belongs.
    position: u64,
    end: u64,
    parts: VecDeque<Part>,
    /// Bytes written to the first part beyond what is published.
    written: u64,
    awaited: Arc<Awaited>,
}

enum Part {
    /// What is claimed and not yet published of a block.
    Claimed(Arc<Block>, ByteRange),
    /// So many bytes are somebody else's: too few for a request to end before them.
    Skipped(u64),
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fill({}..{})", self.position, self.end)
    }
}

impl Fill {
    pub(super) fn new(
        cache: &Arc<Cache>,
        position: u64,
        block: Arc<Block>,
        part: ByteRange,
        awaited: &Arc<Awaited>,
    ) -> Self {
        Self {
            cache: Arc::clone(cache),
            position,
            end: position + part.len(),
            parts: VecDeque::from([Part::Claimed(block, part)]),
            written: 0,
            awaited: Arc::clone(awaited),
        }
    }

    pub(super) fn extend(&mut self, block: Arc<Block>, part: ByteRange) {
        self.end += part.len();
        self.parts.push_back(Part::Claimed(block, part));
    }

    pub(super) fn skip(&mut self, bytes: u64) {
        if bytes > 0 {
            self.end += bytes;
            self.parts.push_back(Part::Skipped(bytes));
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What is still to come, as bytes of the object.
    pub fn rest(&self) -> Option<ByteRange> {
        ByteRange::new(self.position, self.end)
    }

    /// Set when somebody begins to wait for this, or for what was claimed together with it.
    pub fn awaited(&self) -> &Arc<Awaited> {
        &self.awaited
    }

    /// Whether some of `range` is to come from here.
    pub fn touches(&self, range: ByteRange) -> bool {
        self.position < range.end() && range.start() < self.end
    }

    /// Takes the next bytes. More than was claimed is cut off.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty()
            && let Some(first) = self.parts.front_mut()
        {
            let Part::Skipped(left) = first else {
                bytes = self.put(bytes);
                self.show();
                continue;
            };
            let now = usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            *left -= now as u64;
            if *left == 0 {
                self.parts.pop_front();
            }
            self.position += now as u64;
            bytes = &bytes[now..];
        }
    }

    /// Whether its bytes can be kept from readers until all of them have come: one run in one block.
    pub fn can_hide(&self) -> bool {
        self.parts.len() == 1 && self.written == 0
    }

    /// Takes the next bytes as [`Fill::push`] does, and keeps them from readers. Only where
    /// [`Fill::can_hide`] says so, and before any other bytes.
    pub fn hide(&mut self, bytes: &[u8]) {
        self.put(bytes);
    }

    /// Puts bytes into the first block, which is claimed, as many as it takes. The others are left.
    fn put<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(Part::Claimed(block, part)) = self.parts.front() else {
            return &[];
        };
        let room = usize::try_from(part.len() - self.written).unwrap_or(usize::MAX);
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        // SAFETY: `part` was claimed for this fill, which is its only writer.
        unsafe { block.put(part.start() + self.written, now) };
        self.written += now.len() as u64;
        self.position += now.len() as u64;
        later
    }

    /// Lets readers have what was put into the first block, as far as sectors are whole.
    pub fn show(&mut self) {
        let Some(Part::Claimed(block, part)) = self.parts.front_mut() else {
            return;
        };
        let end = part.start() + self.written;
        // SAFETY: `part` was claimed for this fill, which has put all bytes of it up to `end`.
        let published = unsafe { block.publish(part.start(), end) };
        self.written = end - published;
        match ByteRange::new(published, part.end()) {
            Some(unpublished) => *part = unpublished,
            None => drop(self.parts.pop_front()),
        }
    }

    /// Forgets what was hidden: it comes again.
    pub fn forget_hidden(&mut self) {
        self.position -= self.written;
        self.written = 0;
    }

    /// Ends the fill; `error` answers for a moment for the bytes that have not come.
    pub fn fail(mut self, error: &Error) {
        self.release(Some(error));
    }

    fn release(&mut self, failure: Option<&Error>) {
        for part in self.parts.drain(..) {
            if let Part::Claimed(block, part) = part {
                block.release(part, failure);
            }
        }
        // These blocks were not to be evicted before.
        self.cache.relieve();
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.release(None);
    }
}
