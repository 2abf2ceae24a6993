//! One cache of blocks for the whole process.
//!
//! An object version is cut into blocks of [`BLOCK`] bytes (the last one as short as it falls), a
//! block into sectors of a page, the unit in which memory is held and bytes are present: a sector is
//! not held, absent, claimed by one [`Fill`], or present. Whoever wants bytes pins their blocks,
//! claims what is absent, and waits for what is claimed; so no byte is fetched twice at a time,
//! however many ask.
//!
//! Invariants: what all blocks hold never exceeds the limit (a block keeps its reservation as long as
//! it lives, also after its eviction while someone reads it); nobody waits for memory while
//! holding a pin, and a read reserves all it needs at once, so reads cannot lock one another out;
//! blocks that are being filled are not evicted.

mod block;
mod budget;
mod fill;
mod memory;
mod sectors;

use std::collections::VecDeque;
use std::num::NonZeroU64;

use lru::LruCache;
use tokio::time::Instant;

use block::Block;
use budget::Budget;
pub use fill::Fill;
use sectors::Sectors;

use crate::request::{Class, Request};
use crate::s3::{ByteRange, Error};
use crate::sync::{Arc, Mutex, lock};

/// Bytes of a block: the largest read that the kernel sends, so that most reads are one slice.
pub const BLOCK: u64 = 1 << 20;

/// An object version, as the cache knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedObject {
    /// Unique to the version for the life of the process.
    pub number: NonZeroU64,
    /// Bytes.
    pub size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct BlockId {
    object: NonZeroU64,
    index: u64,
}

/// Runs of absent bytes with so little between them are fetched in one request: another one costs the
/// server and us more.
const JOINED: u64 = 64 << 10;

/// Prefetch leaves one in so many bytes to demand, which need not wait then for guesses to arrive.
const SPARE_SHARE: u64 = 8;

/// One in so many bytes may be of blocks that streams have left behind.
const SPENT_SHARE: u64 = 8;

/// The cache.
pub struct Cache {
    blocks: Mutex<LruCache<BlockId, Arc<Block>>>,
    /// Blocks that streams have left behind, in this order.
    spent: Mutex<VecDeque<BlockId>>,
    budget: Arc<Budget>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache that holds at most `limit` bytes; at least room for two blocks, which one read needs.
    pub fn new(limit: u64) -> Self {
        Self {
            blocks: Mutex::new(LruCache::unbounded()),
            spent: Mutex::default(),
            budget: Arc::new(Budget::new(limit.max(2 * BLOCK))),
        }
    }

    /// The most that the cache holds, in bytes.
    pub fn limit(&self) -> u64 {
        self.budget.limit()
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.budget.used()
    }

    /// Pins the blocks of `range`, making those that are missing. Demand waits for memory, first
    /// come, first served; prefetch gets `None` where there is none at once.
    ///
    /// # Errors
    /// [`Error::TimedOut`] at the request's deadline.
    pub async fn pin(
        &self,
        object: CachedObject,
        range: ByteRange,
        request: &Request,
    ) -> Result<Option<Pinned>, Error> {
        let mut missing = {
            let mut blocks = lock(&self.blocks);
            match self.gather(&mut blocks, object, range, None) {
                Ok(pinned) => return Ok(Some(pinned)),
                Err(missing) => missing,
            }
        };
        loop {
            let reservation = match request.class {
                Class::Prefetch => {
                    let spare = self.limit() / SPARE_SHARE;
                    self.evict(missing + spare);
                    match self.budget.try_reserve(missing, spare) {
                        Some(reservation) => reservation,
                        None => return Ok(None),
                    }
                }
                Class::Demand => {
                    // First in the queue, then evict: a fill that ends from here on sees who waits.
                    let turn = self.budget.queue(missing);
                    if self.budget.wanted() > 0 {
                        self.evict(missing);
                    }
                    match tokio::time::timeout_at(request.deadline, turn).await {
                        Ok(Ok(reservation)) => reservation,
                        _ => return Err(Error::TimedOut),
                    }
                }
            };
            let mut blocks = lock(&self.blocks);
            match self.gather(&mut blocks, object, range, Some(reservation)) {
                Ok(pinned) => return Ok(Some(pinned)),
                // Blocks went while this waited for memory: ask for all of them, which is enough
                // whatever goes.
                Err(_) => missing = parts(object, range).map(Part::needs).sum(),
            }
        }
    }

    /// All blocks of `range`, making the missing ones out of `reservation`; or how many bytes they
    /// need beyond it.
    fn gather(
        &self,
        blocks: &mut LruCache<BlockId, Arc<Block>>,
        object: CachedObject,
        range: ByteRange,
        reservation: Option<budget::Reservation>,
    ) -> Result<Pinned, u64> {
        let id = |index| BlockId {
            object: object.number,
            index,
        };
        let missing: u64 = parts(object, range)
            .map(|part| match blocks.peek(&id(part.index)) {
                Some(block) => block.lacks(part.within),
                None => part.needs(),
            })
            .sum();
        let mut reservation = match reservation {
            None if missing > 0 => return Err(missing),
            Some(reservation) if reservation.bytes() < missing => return Err(missing),
            reservation => reservation,
        };
        let mut reserved = |bytes| {
            let whole = reservation.as_mut().expect("reserved for what is missing");
            whole.split(bytes)
        };
        let pinned = parts(object, range).map(|part| {
            if let Some(block) = blocks.get(&id(part.index)) {
                let lacks = block.lacks(part.within);
                if lacks > 0 {
                    block.hold(part.within, reserved(lacks));
                }
                return Arc::clone(block);
            }
            let block = Block::new(part.len, part.held(), reserved(part.needs()));
            let block = Arc::new(block);
            blocks.put(id(part.index), Arc::clone(&block));
            block
        });
        Ok(Pinned {
            first: range.start() / BLOCK,
            blocks: pinned.collect(),
        })
    }

    /// Notes that a stream has left the blocks that `range` touches behind. The kernel has their bytes;
    /// their memory, still warm, is worth more to what comes next. Some are kept for a moment, for
    /// other readers close behind.
    pub fn spend(&self, object: CachedObject, range: ByteRange) {
        let mut gone = Vec::new();
        {
            let mut spent = lock(&self.spent);
            spent.extend(parts(object, range).map(|part| BlockId {
                object: object.number,
                index: part.index,
            }));
            let keep = usize::try_from(self.limit() / SPENT_SHARE / BLOCK).unwrap_or(usize::MAX);
            let surplus = spent.len().saturating_sub(keep);
            let mut blocks = lock(&self.blocks);
            for id in spent.drain(..surplus) {
                if blocks.peek(&id).is_some_and(|b| !b.is_being_filled()) {
                    gone.extend(blocks.pop(&id));
                }
            }
        }
        drop(gone);
    }

    /// Lets go of the blocks used least recently until `need` bytes are free, or only blocks that are
    /// being filled are left.
    fn evict(&self, need: u64) {
        let mut gone = Vec::new();
        {
            let mut blocks = lock(&self.blocks);
            let mut to_look_at = blocks.len();
            let mut freed = 0;
            while to_look_at > 0 && self.budget.free() + freed < need {
                to_look_at -= 1;
                let Some((id, block)) = blocks.pop_lru() else {
                    break;
                };
                if block.is_being_filled() {
                    blocks.put(id, block);
                } else {
                    // What someone reads is freed when that reader is done, not now.
                    if Arc::strong_count(&block) == 1 {
                        freed += block.held();
                    }
                    gone.push(block);
                }
            }
        }
        // Freed outside the lock: giving memory back takes its time.
        drop(gone);
    }

    /// To be called when a fill ended: its blocks can be evicted now, for those who wait for memory.
    pub fn relieve(&self) {
        let need = self.budget.wanted();
        if need > 0 {
            self.evict(need);
        }
    }
}

/// What a range touches of one block.
#[derive(Clone, Copy)]
struct Part {
    index: u64,
    /// Bytes of the block: [`BLOCK`], but for the last one.
    len: u64,
    /// As offsets into the block.
    within: ByteRange,
}

impl Part {
    /// What a new block holds for this: a short one is held whole, as the heap cannot take a part
    /// of it back.
    fn held(self) -> ByteRange {
        match ByteRange::new(0, self.len) {
            Some(whole) if self.len < BLOCK => whole,
            _ => self.within,
        }
    }

    /// How many bytes that takes.
    fn needs(self) -> u64 {
        Sectors::touched(self.held()).bytes(self.len)
    }
}

fn parts(object: CachedObject, range: ByteRange) -> impl Iterator<Item = Part> {
    let first = range.start() / BLOCK;
    let last = (range.end() - 1) / BLOCK;
    (first..=last).filter_map(move |index| {
        let base = index * BLOCK;
        let len = BLOCK.min(object.size - base);
        let start = range.start().max(base) - base;
        let end = (range.end() - base).min(len);
        let within = ByteRange::new(start, end)?;
        Some(Part { index, len, within })
    })
}

/// What is known of some bytes.
#[derive(Clone, Debug)]
pub enum Status {
    /// All present.
    Present,
    /// None absent, some on their way.
    OnTheWay,
    /// Some absent.
    Absent,
    /// Some absent, and fetching them failed a moment ago.
    Failed(Error),
}

/// Blocks that stay in memory while this lives.
#[derive(Clone)]
pub struct Pinned {
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

impl Pinned {
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
    /// of absent bytes, over small gaps. Bytes whose fetch failed a moment ago are left alone.
    pub fn claim(&self, range: ByteRange) -> Vec<Fill> {
        let mut fills: Vec<Fill> = Vec::new();
        for (index, block, part) in self.parts(range) {
            for run in block.claim(part) {
                let at = index * BLOCK + run.start();
                match fills.last_mut() {
                    Some(fill) if at - fill.end() <= JOINED => {
                        fill.skip(at - fill.end());
                        fill.extend(Arc::clone(block), run);
                    }
                    _ => fills.push(Fill::new(at, Arc::clone(block), run)),
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
    /// [`Error::TimedOut`] at `deadline`.
    pub async fn settled(&self, range: ByteRange, deadline: Instant) -> Result<Status, Error> {
        for (_, block, part) in self.parts(range) {
            match tokio::time::timeout_at(deadline, block.settled(part)).await {
                Err(_) => return Err(Error::TimedOut),
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
                    let mut glued = Vec::with_capacity(usize::try_from(range.len()).unwrap_or(0));
                    for (_, block, part) in self.parts(range) {
                        glued.extend_from_slice(block.bytes(part));
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
    Glued(Vec<u8>),
}

impl Slice {
    /// No bytes: a read at the end.
    pub fn empty() -> Self {
        Self(Bytes::Glued(Vec::new()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Pinned(block, part) => block.bytes(*part),
            Bytes::Glued(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.as_bytes().len())
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
