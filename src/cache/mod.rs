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
//! blocks that are being filled are not evicted, and blocks that were evicted are not filled any more;
//! whatever ends (a fill, a pin, a place in the queue) lets those go on who wait for memory.

mod block;
mod budget;
mod fill;
mod memory;
mod pinned;
mod sectors;

use std::collections::VecDeque;
use std::num::NonZeroU64;

use lru::LruCache;

use block::Block;
use budget::Budget;
pub use fill::Fill;
use memory::Memory;
pub use pinned::{Pinned, Slice};
use sectors::Sectors;

use crate::request::{Class, Request};
use crate::s3::{ByteRange, Error};
use crate::sync::{Arc, Mutex, lock, timeout_at};

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
pub const JOINED: u64 = 64 << 10;

/// Prefetch leaves one in so many bytes to demand, which need not wait then for guesses to arrive.
const SPARE_SHARE: u64 = 8;

/// One in so many bytes may be of blocks that streams have left behind.
const SPENT_SHARE: u64 = 32;

/// What a block takes beside its bytes: its state, its place in the map and in the list of what was used last.
const BESIDE: u64 = 512;

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
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            blocks: Mutex::new(LruCache::unbounded()),
            spent: Mutex::default(),
            budget: Arc::new(Budget::new(limit.max(2 * BLOCK))),
        })
    }

    /// The most that the cache holds, in bytes.
    pub fn limit(&self) -> u64 {
        self.budget.limit()
    }

    /// Bytes held now.
    #[cfg(test)]
    fn used(&self) -> u64 {
        self.budget.used()
    }

    /// Pins the blocks of `range`, making those that are missing. Demand waits for memory, first
    /// come, first served; prefetch gets `None` where there is none at once.
    ///
    /// # Errors
    /// [`Error::TimedOut`] at the request's deadline.
    pub async fn pin(
        self: &Arc<Self>,
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
                    self.evict(missing + spare, request.class);
                    match self.budget.try_reserve(missing, spare) {
                        Some(reservation) => reservation,
                        None => return Ok(None),
                    }
                }
                Class::Demand => {
                    // First in the queue, then evict: what can be evicted from here on sees who waits.
                    let mut turn = self.budget.queue(missing);
                    if self.budget.wanted() > 0 {
                        self.evict(missing, request.class);
                    }
                    match timeout_at(request.deadline, turn.granted()).await {
                        Ok(Some(reservation)) => reservation,
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
        self: &Arc<Self>,
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
        // All of them, before any is evicted for the addresses of another.
        let there = parts(object, range).map(|part| blocks.get(&id(part.index)).cloned());
        let there: Vec<_> = there.collect();
        let pinned = parts(object, range).zip(there).map(|(part, block)| {
            if let Some(block) = block {
                let lacks = block.lacks(part.within);
                if lacks > 0 {
                    block.hold(part.within, reserved(lacks));
                }
                return block;
            }
            let memory = self.memory(blocks, part);
            let block = Block::new(memory, part.held(), reserved(part.needs()));
            let block = Arc::new(block);
            blocks.put(id(part.index), Arc::clone(&block));
            block
        });
        let blocks = pinned.collect();
        Ok(Pinned::new(self, range.start() / BLOCK, blocks))
    }

    /// Memory for a new block. Where the process may have no more addresses, that of another one, of those used least
    /// recently.
    ///
    /// # Panics
    /// When all of them are in use: whoever asked gets an error, and the others live on.
    fn memory(&self, blocks: &mut LruCache<BlockId, Arc<Block>>, part: Part) -> Memory {
        let memories = self.budget.memories();
        let mut to_look_at = blocks.len();
        loop {
            if let Some(memory) = memories.take(part.len, part.is_whole()) {
                return memory;
            }
            assert!(to_look_at > 0, "no addresses left for blocks");
            to_look_at -= 1;
            if let Some((id, block)) = blocks.pop_lru()
                && (block.len() < BLOCK || Arc::strong_count(&block) > 1 || !block.evict())
            {
                blocks.put(id, block);
            }
        }
    }

    /// Notes that a stream has left the blocks that `range` touches behind. The kernel has their bytes;
    /// their memory, still warm, is worth more to what comes next. Some are kept for a moment, for
    /// other readers close behind.
    pub fn spend(&self, object: CachedObject, range: ByteRange) {
        let mut gone = Vec::new();
        {
            let mut spent = lock(&self.spent);
            for part in parts(object, range) {
                let id = BlockId {
                    object: object.number,
                    index: part.index,
                };
                // Once each: readers who come back to a few blocks are not to push them out.
                if !spent.contains(&id) {
                    spent.push_back(id);
                }
            }
            let keep = usize::try_from(self.limit() / SPENT_SHARE / BLOCK).unwrap_or(usize::MAX);
            let surplus = spent.len().saturating_sub(keep);
            let mut blocks = lock(&self.blocks);
            for id in spent.drain(..surplus) {
                if blocks.peek(&id).is_some_and(|block| block.evict()) {
                    gone.extend(blocks.pop(&id));
                }
            }
        }
        drop(gone);
    }

    /// Lets go of the blocks used least recently until `need` bytes are free, or only blocks that are
    /// being filled are left. Blocks that are pinned go for demand only, which can wait until they are
    /// freed; prefetch would push out the block for which it fetches ahead.
    fn evict(&self, need: u64, class: Class) {
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
                let is_pinned = Arc::strong_count(&block) > 1;
                if (is_pinned && class == Class::Prefetch) || !block.evict() {
                    blocks.put(id, block);
                    continue;
                }
                if !is_pinned {
                    freed += block.held();
                }
                gone.push(block);
            }
        }
        // Freed outside the lock: giving memory back takes its time.
        drop(gone);
    }

    /// Evicts for those who wait for memory, when a pin or a fill has ended: they were in the way.
    fn relieve(&self) {
        let need = self.budget.wanted();
        if need > 0 {
            self.evict(need, Class::Demand);
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

    /// How many bytes that takes. Of a short block, what is kept beside its bytes may be more than they are.
    fn needs(self) -> u64 {
        let bytes = Sectors::touched(self.held()).bytes(self.len);
        match self.len {
            BLOCK => bytes,
            _ => bytes + BESIDE,
        }
    }

    /// Whether all of a long block will be held.
    fn is_whole(self) -> bool {
        self.needs() == BLOCK
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

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

#[cfg(all(test, shuttle))]
mod model;
