//! The memory of blocks.
//!
//! To give a mebibyte back to the system and get it anew costs a page fault for each of its pages, so
//! blocks that are fetched whole hand their memory on, and it lies in huge pages where those come
//! cheaply. Blocks of which little is fetched have addresses for all of it, and the system gives memory
//! for what is written. Blocks of small objects come from the heap.

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use super::BLOCK;
use crate::sync::{Mutex, lock};

const BLOCK_LEN: usize = BLOCK as usize;
/// A huge page of x86-64, and of most others.
const CHUNK_LEN: usize = 2 * BLOCK_LEN;

/// Blocks whose addresses are mapped at once, for those of which little is fetched.
const AREA_BLOCKS: usize = 64;

/// The memory of one block, to be given back to its [`Memories`].
#[derive(Debug)]
pub(super) struct Memory {
    at: NonNull<u8>,
    len: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Shorter than a block.
    Heap,
    /// Part of an area in small pages.
    Sparse,
    /// Half of a chunk; handed on from block to block.
    Whole,
}

impl Memory {
    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr()
    }
}

// SAFETY: nobody else has this memory; what is done with it is the block's affair.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// All memory of blocks, in use and free.
#[derive(Debug)]
pub(super) struct Memories {
    /// What is held and what is free stay within this.
    limit: u64,
    /// Addresses of all areas and chunks, in bytes, stay within this.
    addresses: u64,
    free: Mutex<Free>,
    costs: Mutex<Costs>,
}

/// What the pages of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    Huge,
    Small,
}

/// How long it took lately to get a chunk in pages of each kind. Huge ones come in a quarter of the time
/// and are cheaper to use; but on a virtual machine whose free memory goes back to its host (free page
/// reporting, in just such pieces) they are what has to be fetched from there, and take ten times as long.
#[derive(Debug, Default)]
struct Costs {
    huge: Duration,
    small: Duration,
    chunks: u32,
}

/// One chunk in so many tries the other kind.
const TRIES: u32 = 32;

impl Costs {
    fn cheaper(&mut self) -> Pages {
        self.chunks += 1;
        let is_huge = self.huge <= self.small;
        match is_huge ^ self.chunks.is_multiple_of(TRIES) {
            true => Pages::Huge,
            false => Pages::Small,
        }
    }

    fn note(&mut self, pages: Pages, took: Duration) {
        match pages {
            Pages::Huge => self.huge = took,
            Pages::Small => self.small = took,
        }
    }
}

/// What is free, and how much is not.
#[derive(Debug, Default)]
struct Free {
    /// Bytes that blocks hold.
    held: u64,
    /// Addresses of all areas and chunks, in bytes.
    mapped: u64,
    /// With pages.
    warm: Vec<Memory>,
    /// Addresses only.
    cold: Vec<Memory>,
    /// Addresses only, in small pages.
    sparse: Vec<Memory>,
}

impl Free {
    fn take(&mut self, whole: bool) -> Option<Memory> {
        match whole {
            true => self.warm.pop().or_else(|| self.cold.pop()),
            false => self.sparse.pop(),
        }
    }
}

impl Memories {
    pub(super) fn new(limit: u64, addresses: u64) -> Self {
        Self {
            limit,
            addresses,
            free: Mutex::default(),
            costs: Mutex::default(),
        }
    }

    /// Notes that `bytes` more are held, and gives free pages back to the system as far as the limit
    /// asks for it.
    pub(super) fn hold(&self, bytes: u64) {
        let mut free = lock(&self.free);
        free.held += bytes;
        let most = self.limit.saturating_sub(free.held) / BLOCK;
        let keep = usize::try_from(most).unwrap_or(usize::MAX);
        while free.warm.len() > keep {
            let Some(memory) = free.warm.pop() else { break };
            give_pages_back(&memory);
            free.cold.push(memory);
        }
    }

    /// Memory for a block of `len` bytes, with whatever content; `whole` if all of it will be held. `None` where the
    /// process may have no more addresses.
    pub(super) fn take(&self, len: u64, whole: bool) -> Option<Memory> {
        let len = usize::try_from(len).expect("at most BLOCK");
        if len < BLOCK_LEN {
            let memory = Box::leak(Box::<[u8]>::new_uninit_slice(len));
            return Some(Memory {
                at: NonNull::from(memory).cast(),
                len,
                kind: Kind::Heap,
            });
        }
        let free = lock(&self.free).take(whole);
        free.or_else(|| match whole {
            true => {
                let [first, second] = self.map_chunk()?;
                lock(&self.free).warm.push(second);
                Some(first)
            }
            false => {
                let mut area = self.map_area()?;
                let first = area.next();
                lock(&self.free).sparse.extend(area);
                first
            }
        })
        .or_else(|| {
            // Of the other kind.
            let memory = lock(&self.free).take(!whole)?;
            if memory.kind == Kind::Whole {
                give_pages_back(&memory);
            }
            Some(memory)
        })
    }

    /// Addresses for `len` bytes, of which `kept` are to stay; `None` if the process may have no more.
    fn map(&self, len: usize, kept: usize) -> Option<NonNull<u8>> {
        let may = {
            let mut free = lock(&self.free);
            let mapped = free.mapped + kept as u64;
            let may = mapped <= self.addresses;
            if may {
                free.mapped = mapped;
            }
            may
        };
        let area = may.then(|| map(len))?;
        if area.is_none() {
            lock(&self.free).mapped -= kept as u64;
        }
        area
    }

    /// One aligned chunk with its pages, as memory for two blocks.
    fn map_chunk(&self) -> Option<[Memory; 2]> {
        let area = self.map(2 * CHUNK_LEN, CHUNK_LEN)?;
        let before = area.as_ptr().align_offset(CHUNK_LEN);
        // SAFETY: within the area, which is two chunks long; what is cut off is nobody's.
        let chunk = unsafe {
            let chunk = area.add(before);
            unmap(area, before);
            unmap(chunk.add(CHUNK_LEN), CHUNK_LEN - before);
            chunk
        };
        let pages = lock(&self.costs).cheaper();
        let begin = Instant::now();
        let advise = |advice| {
            // SAFETY: mapped privately just now, and nobody else's.
            let done = unsafe { libc::madvise(chunk.as_ptr().cast(), CHUNK_LEN, advice) };
            done == 0
        };
        advise(match pages {
            Pages::Huge => libc::MADV_HUGEPAGE,
            Pages::Small => libc::MADV_NOHUGEPAGE,
        });
        let is_populated = advise(libc::MADV_POPULATE_WRITE);
        lock(&self.costs).note(pages, begin.elapsed());
        // Huge pages that are there stay so. Later the system must not make any of a half that is in use and
        // one that was given back, which would be memory that nobody counts.
        advise(match is_populated {
            true => libc::MADV_NOHUGEPAGE,
            // Linux before 5.14: the pages come as they are written.
            false => libc::MADV_HUGEPAGE,
        });
        // SAFETY: within the chunk.
        let halves = [chunk, unsafe { chunk.add(BLOCK_LEN) }];
        Some(halves.map(|at| Memory {
            at,
            len: BLOCK_LEN,
            kind: Kind::Whole,
        }))
    }

    /// An area in small pages, so that a page written does not become two mebibytes, as memory for
    /// [`AREA_BLOCKS`] blocks. The system counts areas, and allows some ten thousand to a process.
    fn map_area(&self) -> Option<impl Iterator<Item = Memory> + use<>> {
        const LEN: usize = AREA_BLOCKS * BLOCK_LEN;
        let area = self.map(LEN, LEN)?;
        // SAFETY: mapped just now.
        unsafe { libc::madvise(area.as_ptr().cast(), LEN, libc::MADV_NOHUGEPAGE) };
        Some((0..AREA_BLOCKS).map(move |i| Memory {
            // SAFETY: within the area.
            at: unsafe { area.add(i * BLOCK_LEN) },
            len: BLOCK_LEN,
            kind: Kind::Sparse,
        }))
    }

    /// Takes memory back of which `held` bytes were held.
    pub(super) fn give(&self, memory: Memory, held: u64) {
        if memory.kind == Kind::Sparse {
            give_pages_back(&memory);
        }
        let mut free = lock(&self.free);
        free.held -= held;
        match memory.kind {
            Kind::Whole => free.warm.push(memory),
            Kind::Sparse => free.sparse.push(memory),
            Kind::Heap => {
                let slice = NonNull::slice_from_raw_parts(memory.at.cast(), memory.len);
                // SAFETY: leaked in `take` with this length; taken back once.
                drop(unsafe { Box::<[MaybeUninit<u8>]>::from_raw(slice.as_ptr()) });
            }
        }
    }
}

/// Every block has given its memory back: each holds a reservation, and with it the budget that owns this.
impl Drop for Memories {
    fn drop(&mut self) {
        let free = self.free.get_mut();
        let free = std::mem::take(free.unwrap_or_else(std::sync::PoisonError::into_inner));
        for memory in [free.warm, free.cold, free.sparse].into_iter().flatten() {
            // SAFETY: mapped, and free.
            unsafe { unmap(memory.at, memory.len) };
        }
    }
}

/// The addresses stay.
fn give_pages_back(free: &Memory) {
    // SAFETY: free memory, mapped privately, of which nobody expects any content.
    unsafe { libc::madvise(free.as_ptr().cast(), free.len, libc::MADV_DONTNEED) };
}

/// Addresses for `len` bytes, if the system has them.
fn map(len: usize) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new private mapping, at no particular address.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    match at {
        libc::MAP_FAILED => None,
        at => NonNull::new(at.cast()),
    }
}

/// # Safety
/// `at..at + len` is mapped, and nobody's any more.
unsafe fn unmap(at: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(at.as_ptr().cast(), len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_lie_in_the_pages_that_come_sooner_and_the_others_are_tried_again() {
        let mut costs = Costs::default();
        let mut last = |huge, small| {
            let of = |pages| Duration::from_micros(if pages == Pages::Huge { huge } else { small });
            let mut count = 0;
            for _ in 0..TRIES {
                let pages = costs.cheaper();
                costs.note(pages, of(pages));
                count += u32::from(pages == Pages::Huge);
            }
            count
        };
        last(250, 1000);
        assert_eq!(last(250, 1000), TRIES - 1);
        last(5000, 1000);
        assert_eq!(last(5000, 1000), 1);
        last(250, 1000);
        assert_eq!(last(250, 1000), TRIES - 1);
    }

    #[test]
    fn addresses_are_bounded_and_what_is_free_serves_both_kinds() {
        let area = AREA_BLOCKS as u64 * BLOCK;
        let memories = Memories::new(1 << 40, area + 2 * BLOCK);
        let take = |whole| memories.take(BLOCK, whole);
        let mut taken: Vec<_> = (0..=AREA_BLOCKS).map(|_| take(false)).collect();
        assert!(taken.pop().flatten().is_none(), "no second area");
        let whole: Vec<_> = [take(true), take(true), take(true)]
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(whole.len(), 2, "one chunk");
        memories.hold(1);
        memories.give(taken.pop().flatten().expect("one"), 1);
        assert_eq!(take(true).expect("sparse").kind, Kind::Sparse);
        memories.hold(BLOCK);
        for memory in whole {
            memories.give(memory, BLOCK / 2);
        }
        assert_eq!(take(false).expect("of the chunk").kind, Kind::Whole);
    }

    /// vm.max_map_count is 65,530 by default.
    #[test]
    fn many_blocks_in_any_order_are_few_areas() {
        let memories = Memories::new(1 << 40, u64::MAX);
        let mut blocks: Vec<_> = (0..4096)
            .filter_map(|_| memories.take(BLOCK, false))
            .collect();
        for block in &blocks {
            // SAFETY: within the block.
            unsafe { block.as_ptr().write(1) };
        }
        fastrand::Rng::with_seed(1).shuffle(&mut blocks);
        memories.hold(4096);
        for block in blocks.drain(2048..) {
            memories.give(block, 1);
        }
        let again = memories.take(BLOCK, false).expect("free");
        // SAFETY: within the block.
        let byte = unsafe { again.as_ptr().read() };
        assert_eq!(byte, 0, "the pages were given back");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let areas = maps.lines().count();
        assert!(areas < 1000, "{areas}");
    }
}
