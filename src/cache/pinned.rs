//! What is pinned: claimed, waited for, and read.

use std::cell::Cell;

use tokio::time::Instant;

use super::block::Block;
use super::fill::Fill;
use super::{BLOCK, Cache, JOINED, Status};
use crate::request::Awaited;
use crate::s3::{ByteRange, Error};
use crate::sync::{Arc, timeout_at};

/// Blocks that stay in memory while this lives.
#[derive(Clone)]
pub struct Pinned {
    cache: Arc<Cache>,
    /// Index of the first of them.
    first: u64,
    blocks: Vec<Arc<Block>>,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned")
            .field("first", &self.first)
            .field("blocks", &self.blocks.len())
            .finish()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.blocks.clear();
        self.cache.relieve();
    }
}

impl Pinned {
    pub(super) fn new(cache: &Arc<Cache>, first: u64, blocks: Vec<Arc<Block>>) -> Self {
        Self {
            cache: Arc::clone(cache),
            first,
            blocks,
        }
    }

    /// The blocks that `range` touches, each with the part of it as offsets into the block.
    fn parts(&self, range: ByteRange) -> impl Iterator<Item = (u64, &Arc<Block>, ByteRange)> {
        let indexed = (self.first..).zip(&self.blocks);
        indexed.filter_map(move |(index, block)| {
            let base = index * BLOCK;
            let start = range.start().max(base) - base;
            let end = range.end().min(base + block.len()).checked_sub(base)?;
            Some((index, block, ByteRange::new(start, end)?))
        })
    }

    /// Takes it on to fetch what is absent of `range`, rounded to sectors: one [`Fill`] for each run
    /// of absent bytes, over small gaps. Bytes whose fetch failed a moment ago are left alone, and so
    /// are blocks that were evicted meanwhile: to fetch those, pin them anew.
    pub fn claim(&self, range: ByteRange) -> Vec<Fill> {
        let mut fills: Vec<Fill> = Vec::new();
        let awaited = Arc::new(Awaited::default());
        for (index, block, part) in self.parts(range) {
            for run in block.claim(part, &awaited) {
                let at = index * BLOCK + run.start();
                match fills.last_mut() {
                    Some(fill) if at - fill.end() <= JOINED => {
                        fill.skip(at - fill.end());
                        fill.extend(Arc::clone(block), run);
                    }
                    _ => {
                        let block = Arc::clone(block);
                        fills.push(Fill::new(&self.cache, at, block, run, &awaited));
                    }
                }
            }
        }
        fills
    }

    /// What is known of `range`.
    pub fn status(&self, range: ByteRange) -> Status {
        let mut on_the_way = false;
        for (_, block, part) in self.parts(range) {
            match block.status(part) {
                Status::Present => {}
                Status::OnTheWay => on_the_way = true,
                absent_or_failed => return absent_or_failed,
            }
        }
        if on_the_way {
            Status::OnTheWay
        } else {
            Status::Present
        }
    }

    /// Waits until nothing of `range` is on its way; never answers [`Status::OnTheWay`].
    ///
    /// # Errors
    /// [`Error::TimedOut`] at `deadline`; whoever asks for the same at once hears that, too.
    pub async fn settled(&self, range: ByteRange, deadline: Instant) -> Result<Status, Error> {
        // What comes later is not to wait until the first is there.
        for (_, block, part) in self.parts(range).skip(1) {
            block.hurry(part);
        }
        for (_, block, part) in self.parts(range) {
            match timeout_at(deadline, block.settled(part)).await {
                Err(_) => {
                    block.came_late(part);
                    return Err(Error::TimedOut);
                }
                Ok(Status::Present) => {}
                Ok(absent_or_failed) => return Ok(absent_or_failed),
            }
        }
        Ok(Status::Present)
    }

    /// The bytes of `range`, all of which are present.
    pub fn slice(self, range: ByteRange) -> Slice {
        let (one, part) = {
            let mut parts = self.parts(range);
            match (parts.next(), parts.next()) {
                (Some((_, block, part)), None) => (Arc::clone(block), part),
                _ => {
                    let mut glued = Glued(SPARE.take());
                    glued.0.reserve(usize::try_from(range.len()).unwrap_or(0));
                    for (_, block, part) in self.parts(range) {
                        glued.0.extend_from_slice(block.bytes(part));
                    }
                    return Slice(Bytes::Glued(glued));
                }
            }
        };
        Slice(Bytes::Pinned(one, part))
    }
}

/// Bytes of an object, kept in memory while this lives.
pub struct Slice(Bytes);

enum Bytes {
    Pinned(Arc<Block>, ByteRange),
    /// A read over the border of two blocks.
    Glued(Glued),
}

#[derive(Default)]
struct Glued(Vec<u8>);

thread_local! {
    /// Memory for the next one: new pages for each would cost more than the copy. The kernel asks for no more
    /// than a mebibyte at a time.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Drop for Glued {
    fn drop(&mut self) {
        let mut spare = std::mem::take(&mut self.0);
        if spare.capacity() == 0 {
            return;
        }
        spare.clear();
        // Where the thread ends, there is no next one.
        let _ = SPARE.try_with(|it| it.set(spare));
    }
}

impl Slice {
    /// No bytes: a read at the end.
    pub fn empty() -> Self {
        Self(Bytes::Glued(Glued::default()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Pinned(block, part) => block.bytes(*part),
            Bytes::Glued(glued) => &glued.0,
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.as_bytes().len())
    }
}
