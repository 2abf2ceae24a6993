//! Object version, offset and length -> bytes.
//!
//! A read notes its access with a cursor of its object, which plans: what to fetch for this read, and
//! what to fetch ahead of it. Both go to the cache, which says what of it nobody fetches yet; each
//! absent run becomes one GET, whose bytes serve waiters as they arrive. Fetching ahead takes only
//! memory and connections that demand leaves free, and ends with the last handle; what is fetched for
//! whoever probably opens an object next, or again, goes on to its end.

mod backward;
mod credit;
mod cursor;
mod cursors;
mod first;
mod forward;
mod head;
mod object;
mod places;
mod random;
mod reopened;
mod runs;
mod scan;
mod shared;
mod starts;
mod strides;
mod whole;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tracing::Instrument as _;

pub use credit::Credit;
pub use first::Coming;
pub use object::OpenObject;

use crate::cache::{BLOCK, Cache, CachedObject, Fill, JOINED};
use crate::request::{Class, Request};
use crate::s3::{ByteRange, Error, ObjectVersion, Piece, S3};
use crate::sync::{AbortHandle, Arc, AtomicU64, Mutex, Ordering, spawn};

/// The largest GET. From a few MiB on the cost of a request disappears behind that of its bytes, and
/// smaller parts spread a window over more connections, each of which S3 serves at some 90 MB/s.
const PART: u64 = 6 << 20;
/// No stream fetches further ahead than this, however large the memory: 160 MiB in GETs of [`PART`], each at
/// 90 MB/s and 25 ms to its first byte, bring 1.7 GB/s.
const MAX_WINDOW: u64 = 160 << 20;

/// Beside so many fetches, a long range comes no sooner by short GETs: those only cost more.
const QUIET: usize = 8;

/// Reads object versions through one cache.
#[derive(Debug)]
pub struct Reader {
    s3: Arc<S3>,
    cache: Arc<Cache>,
    /// How long a fetch may take.
    timeout: Duration,
    /// Sequences of reads that are fetched ahead of: they share the memory for that.
    streams: AtomicU64,
    /// When these and what is whole were last counted anew.
    recounted: Mutex<Option<Instant>>,
    /// Bytes of the objects that are open, were fetched whole, and are read by now.
    whole: AtomicU64,
    link: whole::Link,
    /// Each fetch that is under way holds one.
    fetches: Arc<()>,
    heads: head::Heads,
    /// Whether small objects are read further than their first read.
    rests: Mutex<Credit>,
    places: places::Places,
    reopened: reopened::Reopened,
    /// The objects that are open, by the number of the version, and how many handles each has.
    open: Mutex<HashMap<NonZeroU64, (Arc<shared::Shared>, usize)>>,
}

impl Reader {
    /// A reader whose blocks take at most `memory_limit` bytes, and whose fetches at most `timeout`.
    pub fn new(s3: Arc<S3>, memory_limit: u64, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            s3,
            cache: Cache::new(memory_limit),
            timeout,
            streams: AtomicU64::new(0),
            recounted: Mutex::default(),
            whole: AtomicU64::new(0),
            link: whole::Link::default(),
            fetches: Arc::default(),
            heads: head::Heads::default(),
            rests: Mutex::new(Credit::most()),
            places: places::Places::new(memory_limit),
            reopened: reopened::Reopened::default(),
            open: Mutex::default(),
        })
    }

    /// Fetches what a first read of `len` bytes at its start would fetch of an object that is probably
    /// read next, as far as there is memory for it.
    pub fn fetch_start(self: &Arc<Self>, object: Arc<ObjectVersion>, len: u64) {
        let size = object.meta.size;
        if let Some(range) = cursors::first_fetch(len, size) {
            let part = (range.len() / 4)
                .next_multiple_of(BLOCK)
                .clamp(forward::START, PART);
            self.fetch_for_later(&object, range, part);
        }
        self.fetch_places(&object);
    }

    /// Fetches of an object that is probably read next where those like it were read, as far as there is memory
    /// for it.
    pub fn fetch_places(self: &Arc<Self>, object: &Arc<ObjectVersion>) {
        for place in self.places.of(object) {
            self.fetch_for_later(object, place, forward::START);
        }
    }

    /// Fetches what is absent of a range, in GETs of `part` bytes, whether the object is open or not.
    fn fetch_for_later(self: &Arc<Self>, object: &Arc<ObjectVersion>, range: ByteRange, part: u64) {
        for part in parts(range, part) {
            let (reader, object) = (Arc::clone(self), Arc::clone(object));
            self.begin(async move { fetch_part(&reader, &object, part).await });
        }
    }

    /// Begins a fetch, which is under way until it ends or is aborted.
    fn begin<T: Send + 'static>(
        &self,
        fetch: impl Future<Output = T> + Send + 'static,
    ) -> AbortHandle {
        let counted = Arc::clone(&self.fetches);
        let fetch = async move {
            let _counted = counted;
            fetch.await
        };
        // A read is traceable down to the requests that it caused.
        spawn(fetch.in_current_span()).abort_handle()
    }

    fn count_streams(&self, before: u64, now: u64) {
        if now > before {
            self.streams.fetch_add(now - before, Ordering::Relaxed);
        } else if now < before {
            self.streams.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// How many bytes of objects that are not open yet may be fetched: a quarter of the memory.
    pub fn most_ahead(&self) -> u64 {
        (self.cache.limit() / 4).min(MAX_WINDOW)
    }

    /// Of how many objects like `object` that are not open yet the start may be fetched, for a first read of `len` bytes.
    pub fn most_starts(&self, object: &ObjectVersion, len: u64) -> usize {
        let places = self.places.of(object).into_iter().map(ByteRange::len);
        let start = cursors::first_fetch(len, object.meta.size).map_or(0, ByteRange::len);
        let bytes = (start + places.sum::<u64>()).max(1);
        usize::try_from(self.most_ahead() / bytes).unwrap_or(usize::MAX)
    }

    /// Whether there are so few fetches under way that several short ones bring a range sooner than a long one.
    fn is_quiet(&self) -> bool {
        Arc::strong_count(&self.fetches) <= QUIET
    }

    /// What one stream may have in flight, in bytes: half of the memory belongs to them all.
    fn window(&self) -> u64 {
        let streams = self.streams.load(Ordering::Relaxed).max(1);
        (self.cache.limit() / 2 / streams).clamp(BLOCK, MAX_WINDOW)
    }
}

fn cached(object: &ObjectVersion) -> CachedObject {
    CachedObject {
        number: object.number,
        size: object.meta.size,
    }
}

/// Cuts a range at multiples of `len`. What little is left at the end is worth no GET of its own, and makes the last
/// part longer.
fn parts(range: ByteRange, len: u64) -> impl Iterator<Item = ByteRange> {
    let mut start = range.start();
    std::iter::from_fn(move || {
        let end = (start / len + 1) * len;
        let end = if end + JOINED < range.end() {
            end
        } else {
            range.end()
        };
        let part = ByteRange::new(start, end);
        start = end;
        part
    })
}

/// Cuts a range in two. Where the halves meet within a sector, who claims the first one has all of that.
fn halves(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let middle = range.start() + range.len() / 2;
    let halves = [(range.start(), middle), (middle, range.end())];
    let halves = halves.map(|(start, end)| ByteRange::new(start, end));
    halves.into_iter().flatten()
}

/// Fetches what is absent of a range as a guess, if there is memory for it. How many bytes that were.
async fn fetch_part(
    reader: &Reader,
    object: &ObjectVersion,
    range: ByteRange,
) -> Result<u64, Error> {
    let request = Request::demand(reader.timeout).as_prefetch();
    let pinned = reader.cache.pin(cached(object), range, &request).await?;
    let fills = pinned.map_or_else(Vec::new, |pinned| pinned.claim(range));
    let rests = fills.iter().filter_map(Fill::rest);
    let fetched = rests.map(ByteRange::len).sum();
    // Side by side: somebody may wait for the last of what is claimed.
    let fetches = fills.into_iter();
    try_join_all(fetches.map(|fill| fetch(reader, object, fill, &request))).await?;
    Ok(fetched)
}

/// Fetches one run of bytes into its blocks.
async fn fetch(
    reader: &Reader,
    object: &ObjectVersion,
    mut fill: Fill,
    request: &Request,
) -> Result<(), Error> {
    let Some(range) = fill.rest() else {
        return Ok(());
    };
    tracing::trace!(key = &*object.key, ?range, class = ?request.class, "GET");
    let request = request.until_awaited(fill.awaited(), range.len() > forward::SHORT);
    let (s3, key, etag) = (&reader.s3, &object.key, &object.meta.etag);
    let class = request.class;
    let mut body = match ByteRange::new(0, object.meta.size) {
        Some(all) if range == all && fill.can_hide() => s3.get_whole(key, etag, range, request),
        _ => s3.get_range(key, etag, range, request),
    };
    loop {
        match body.next().await {
            Ok(Some(Piece::Bytes(bytes))) => fill.push(&bytes),
            Ok(Some(Piece::Unproven(bytes))) => fill.hide(&bytes),
            Ok(Some(Piece::Proven)) => fill.show(),
            Ok(Some(Piece::Disproven)) => fill.forget_hidden(),
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::debug!(key = &*object.key, ?range, "GET failed: {error}");
                match class {
                    Class::Demand => fill.fail(&error),
                    // Whoever needs these bytes asks for them itself, with patience of its own.
                    Class::Prefetch => drop(fill),
                }
                return Err(error);
            }
        }
    }
}
