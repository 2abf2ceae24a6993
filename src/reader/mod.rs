//! Object version, offset and length -> bytes.
//!
//! A read notes its access with a cursor of its object, which plans: what to fetch for this read, and
//! what to fetch ahead of it. Both go to the cache, which says what of it nobody fetches yet; each
//! absent run becomes one GET, whose bytes serve waiters as they arrive. Fetching ahead takes only
//! memory and connections that demand leaves free, and ends with the last handle; what is fetched of
//! objects that are probably opened next goes on to its end.

mod backward;
mod credit;
mod cursor;
mod first;
mod forward;
mod head;
mod places;
mod random;
mod rows;
mod runs;
mod scan;
mod strides;
mod whole;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use cursor::{Cursors, Plan};
use random::Width;
use tokio::time::Instant;
use tracing::Instrument;

pub use credit::Credit;
pub use first::Coming;

use crate::cache::{BLOCK, Cache, CachedObject, Fill, Pinned, Slice, Status};
use crate::request::Request;
use crate::s3::{ByteRange, Error, ObjectVersion, Piece, S3};
use crate::sync::{
    AbortHandle, Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, Weak, lock, spawn,
};

/// The largest GET. From a few MiB on the cost of a request disappears behind that of its bytes, and
/// smaller parts spread a window over more connections, each of which S3 serves at some 90 MB/s.
const PART: u64 = 6 << 20;
/// No stream fetches further ahead than this, however large the memory: 160 MiB in GETs of [`PART`], each at
/// 90 MB/s and 25 ms to its first byte, bring 1.7 GB/s.
const MAX_WINDOW: u64 = 160 << 20;

/// The part of the memory that objects may take by being fetched whole, all that are open together.
const WHOLE_ROOM: (u64, u64) = (7, 8);

/// Reads object versions through one cache.
#[derive(Debug)]
pub struct Reader {
    s3: Arc<S3>,
    cache: Arc<Cache>,
    /// How long a fetch may take.
    timeout: Duration,
    /// Sequences of reads that are fetched ahead of: they share the memory for that.
    streams: AtomicU64,
    /// Bytes of the objects that are open and were fetched whole.
    whole: AtomicU64,
    heads: head::Heads,
    places: places::Places,
    /// How the objects that are open are read, by the number of the version.
    accesses: Mutex<HashMap<NonZeroU64, Weak<Shared>>>,
}

impl Reader {
    /// A reader whose blocks take at most `memory_limit` bytes, and whose fetches at most `timeout`.
    pub fn new(s3: Arc<S3>, memory_limit: u64, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            s3,
            cache: Cache::new(memory_limit),
            timeout,
            streams: AtomicU64::new(0),
            whole: AtomicU64::new(0),
            heads: head::Heads::default(),
            places: places::Places::new(memory_limit),
            accesses: Mutex::default(),
        })
    }

    /// Opens a version; sends nothing.
    pub fn open(self: &Arc<Self>, object: Arc<ObjectVersion>) -> OpenObject {
        let number = object.number;
        let mut accesses = lock(&self.accesses);
        let shared = accesses.get(&number).and_then(Weak::upgrade);
        let shared = shared.unwrap_or_else(|| {
            let shared = Arc::new(Shared {
                reader: Arc::clone(self),
                number,
                head: head::Head::default(),
                size: object.meta.size,
                fetched: AtomicU64::new(0),
                at: Arc::default(),
                access: Mutex::default(),
            });
            accesses.insert(number, Arc::downgrade(&shared));
            shared
        });
        OpenObject {
            object,
            shared,
            read: AtomicU64::new(0),
            is_much: AtomicBool::new(false),
            is_through: AtomicBool::new(false),
        }
    }

    /// Fetches what a first read of `len` bytes at its start would fetch of an object that is probably
    /// read next, as far as there is memory for it.
    pub fn fetch_start(self: &Arc<Self>, object: Arc<ObjectVersion>, len: u64) {
        let size = object.meta.size;
        if let Some(range) = cursor::first_fetch(len, size) {
            let part = (range.len() / 4)
                .next_multiple_of(BLOCK)
                .clamp(forward::START, PART);
            self.fetch_for_later(&object, range, part);
        }
        for place in self.places.of(&object) {
            self.fetch_for_later(&object, place, forward::START);
        }
    }

    /// Fetches what is absent of a range, in GETs of `part` bytes, whether the object is open or not.
    fn fetch_for_later(self: &Arc<Self>, object: &Arc<ObjectVersion>, range: ByteRange, part: u64) {
        for part in parts(range, part) {
            let (reader, object) = (Arc::clone(self), Arc::clone(object));
            let fetch = async move { fetch_part(&reader, &object, part).await };
            spawn(fetch.in_current_span());
        }
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

    /// Of how many objects like `object` that are not open yet the start may be fetched.
    pub fn most_starts(&self, object: &ObjectVersion) -> usize {
        let places = self.places.of(object).into_iter().map(ByteRange::len);
        let start = cursor::HEADER + places.sum::<u64>();
        usize::try_from(self.most_ahead() / start).unwrap_or(usize::MAX)
    }

    /// What one stream may have in flight, in bytes: half of the memory belongs to them all.
    fn window(&self) -> u64 {
        let streams = self.streams.load(Ordering::Relaxed).max(1);
        (self.cache.limit() / 2 / streams).clamp(BLOCK, MAX_WINDOW)
    }
}

/// An open object.
#[derive(Debug)]
pub struct OpenObject {
    object: Arc<ObjectVersion>,
    shared: Arc<Shared>,
    /// Bytes that were read.
    read: AtomicU64,
    is_much: AtomicBool,
    is_through: AtomicBool,
}

/// What the handles of one version share: the kernel's page cache is one for all of them, so what it asks
/// for on each handle makes sense only together.
#[derive(Debug)]
struct Shared {
    reader: Arc<Reader>,
    number: NonZeroU64,
    head: head::Head,
    size: u64,
    /// Bytes that its readers fetched.
    fetched: AtomicU64,
    /// Where a random read waited last.
    at: Arc<AtomicU64>,
    access: Mutex<Access>,
}

/// The cursors of all readers, and what is fetched ahead for them.
#[derive(Debug, Default)]
struct Access {
    cursors: Cursors,
    width: Width,
    /// From the first read on.
    visit: Option<places::Visit>,
    /// Reads that wait for S3.
    waiting: u32,
    /// Fetches ahead under way.
    ahead: Vec<AbortHandle>,
    counted_streams: u64,
    /// Bytes, if it was fetched whole.
    whole: u64,
}

impl OpenObject {
    /// The version that is open.
    pub fn object(&self) -> &ObjectVersion {
        &self.object
    }

    /// Whether nothing was read from it yet.
    pub fn is_untouched(&self) -> bool {
        self.read.load(Ordering::Relaxed) == 0
    }

    /// Whether by now nearly all of it was read, or so much that files like it come whole: says so once.
    pub fn was_just_read_through(&self) -> bool {
        let nearly_all = self.object.meta.size / 8 * 7;
        let is_through =
            self.is_much.load(Ordering::Relaxed) || self.read.load(Ordering::Relaxed) > nearly_all;
        is_through && !self.is_through.swap(true, Ordering::Relaxed)
    }

    fn reader(&self) -> &Arc<Reader> {
        &self.shared.reader
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        lock(&self.shared.access)
    }

    /// Up to `len` bytes from `offset` on; fewer only at the end of the object.
    ///
    /// # Errors
    /// As S3 says; [`Error::Changed`] when this version is gone.
    pub async fn read(&self, offset: u64, len: u64, request: &Request) -> Result<Slice, Error> {
        let end = offset.saturating_add(len).min(self.object.meta.size);
        let Some(wanted) = ByteRange::new(offset, end) else {
            return Ok(Slice::empty());
        };
        let read = self.read_range(wanted, request).await?;
        self.read.fetch_add(wanted.len(), Ordering::Relaxed);
        Ok(read)
    }

    async fn read_range(&self, wanted: ByteRange, request: &Request) -> Result<Slice, Error> {
        let plan = self.plan(wanted);
        let cached = cached(&self.object);
        let cache = &self.reader().cache;
        loop {
            let pinned = cache.pin(cached, wanted, request).await?;
            let pinned = pinned.ok_or(Error::TimedOut)?;
            match pinned.status(wanted) {
                Status::Present => {
                    if plan.random {
                        self.access().width.found(wanted);
                    }
                    self.keep_ahead(&plan).await;
                    return Ok(pinned.slice(wanted));
                }
                Status::OnTheWay => {}
                Status::Failed(error) => return Err(error),
                Status::Absent => self.fetch_now(&pinned, &plan, wanted, request).await,
            }
            self.keep_ahead(&plan).await;
            let waiting = Waiting::begin(&self.shared, wanted);
            match pinned.settled(wanted, request.deadline).await? {
                Status::Present => {
                    let wait = waiting.end();
                    if plan.random {
                        self.waited(wanted, wait);
                    }
                    return Ok(pinned.slice(wanted));
                }
                Status::Failed(error) => return Err(error),
                // A fetch that was under way for another handle ended with it, or a block was evicted
                // before it was claimed.
                Status::Absent | Status::OnTheWay => {}
            }
        }
    }

    fn plan(&self, wanted: ByteRange) -> Plan {
        let Shared { reader, head, .. } = &*self.shared;
        head.read(&reader.heads, &self.object.key, cursor::HEADER, wanted);
        let size = self.object.meta.size;
        let mut access = self.access();
        let visit = access.visit.get_or_insert_with(|| {
            let visit = reader.places.visit(&self.object);
            for place in visit.expected() {
                reader.fetch_for_later(&self.object, *place, forward::START);
            }
            visit
        });
        let is_foreseen = visit.read(wanted);
        if visit.is_just_much() {
            self.is_much.store(true, Ordering::Relaxed);
        }
        if is_foreseen {
            return Plan::new(wanted, false);
        }
        let window = self.reader().window();
        let now = Instant::now();
        let mut plan = access.cursors.access(wanted, size, window, now);
        if plan.is_header {
            let along = head.along(&reader.heads, &self.object.key, wanted, size);
            plan.ahead.extend(along);
        }
        if size > random::WHOLE {
            let streams = access.cursors.streams(now);
            self.reader().count_streams(access.counted_streams, streams);
            access.counted_streams = streams;
        }
        plan
    }

    /// Fetches what is absent of `wanted`, and in the same requests what the plan adds to it if
    /// there is memory for it.
    async fn fetch_now(&self, pinned: &Pinned, plan: &Plan, wanted: ByteRange, request: &Request) {
        let size = self.object.meta.size;
        let range = if plan.random {
            self.access().width.around(wanted, size)
        } else {
            plan.fetch
        };
        let cache = &self.reader().cache;
        let wider = cache
            .pin(cached(&self.object), range, &request.as_prefetch())
            .await;
        let mut fills = match wider {
            Ok(Some(wider)) => wider.claim(range),
            _ => pinned.claim(wanted),
        };
        fills.retain(|fill| fill.touches(wanted));
        // Short enough to be read to its end if the file is closed: a connection is worth more.
        let demand = Request::demand(self.reader().timeout);
        for fill in fills {
            self.spawn_fetch(fill, demand);
        }
    }

    /// A random read had to wait: if such waits take too long beside fetching the object, it is fetched,
    /// at each time what is nearest to the latest of such reads.
    fn waited(&self, read: ByteRange, wait: Duration) {
        self.shared.at.store(read.start(), Ordering::Relaxed);
        let size = self.object.meta.size;
        let reader = self.reader();
        let room = reader.cache.limit() / WHOLE_ROOM.1 * WHOLE_ROOM.0;
        let room = room.saturating_sub(reader.whole.load(Ordering::Relaxed));
        {
            let mut access = self.access();
            if !access.width.waited(read, wait, size, room) {
                return;
            }
            reader.whole.fetch_add(size, Ordering::Relaxed);
            access.whole = size;
        }
        let (reader, object) = (Arc::clone(reader), Arc::clone(&self.object));
        let all = whole::fetch(reader, object, Arc::clone(&self.shared.at));
        let fetch_all = spawn(all.in_current_span()).abort_handle();
        self.access().ahead.push(fetch_all);
    }

    /// Does what the plan has for what lies ahead of the read and behind it.
    async fn keep_ahead(&self, plan: &Plan) {
        if let Some(spent) = plan.spent {
            self.reader().cache.spend(cached(&self.object), spent);
        }
        self.fetch_ahead(plan).await;
    }

    /// Fetches what is absent ahead of the read, as far as memory goes.
    async fn fetch_ahead(&self, plan: &Plan) {
        let cache = &self.reader().cache;
        let request = Request::demand(self.reader().timeout).as_prefetch();
        let ranges = plan.ahead.iter();
        for part in ranges.flat_map(|range| parts(*range, plan.part)) {
            let pinned = cache.pin(cached(&self.object), part, &request).await;
            let Ok(Some(pinned)) = pinned else {
                // No memory for more: the cursor must not believe that it is on its way.
                self.access().cursors.not_fetched(part);
                return;
            };
            let fills = pinned.claim(part).into_iter();
            let started: Vec<_> = fills.map(|fill| self.spawn_fetch(fill, request)).collect();
            if plan.is_header {
                // Who looks at the header of a file, closes it, and opens it to read on (netCDF-C) is to find
                // the rest of its head.
                continue;
            }
            let mut access = self.access();
            access.ahead.retain(|fetch| !fetch.is_finished());
            access.ahead.extend(started);
        }
    }

    fn spawn_fetch(&self, fill: Fill, request: Request) -> AbortHandle {
        let reader = Arc::clone(self.reader());
        let object = Arc::clone(&self.object);
        let bytes = fill.rest().map_or(0, ByteRange::len);
        self.shared.fetched.fetch_add(bytes, Ordering::Relaxed);
        let fetch = async move { fetch(&reader, &object, fill, request).await };
        // A read is traceable down to the requests that it caused.
        spawn(fetch.in_current_span()).abort_handle()
    }
}

/// A closed file stops fetching ahead.
impl Drop for Shared {
    fn drop(&mut self) {
        let mut access = lock(&self.access);
        if let Some(visit) = access.visit.take() {
            let fetched = self.fetched.load(Ordering::Relaxed) + access.whole;
            visit.end(fetched > self.size / 4 * 3);
        }
        for fetch in &access.ahead {
            fetch.abort();
        }
        self.reader.count_streams(access.counted_streams, 0);
        self.reader.whole.fetch_sub(access.whole, Ordering::Relaxed);
        let mut accesses = lock(&self.reader.accesses);
        // The file may have been opened again meanwhile.
        let is_own = |shared: &Weak<Self>| std::ptr::eq(shared.as_ptr(), self);
        if accesses.get(&self.number).is_some_and(is_own) {
            accesses.remove(&self.number);
        }
    }
}

/// A read that waits for S3. Several at once share the time that they wait.
struct Waiting<'a> {
    shared: &'a Shared,
    since: Instant,
    among: u32,
}

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared, wanted: ByteRange) -> Self {
        let mut access = lock(&shared.access);
        access.cursors.starved(wanted);
        access.waiting += 1;
        Self {
            shared,
            since: Instant::now(),
            among: access.waiting,
        }
    }

    /// The part of the time that this read waited.
    fn end(self) -> Duration {
        self.since.elapsed() / self.among
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.shared.access).waiting -= 1;
    }
}

fn cached(object: &ObjectVersion) -> CachedObject {
    CachedObject {
        number: object.number,
        size: object.meta.size,
    }
}

/// Cuts a range at multiples of `len`.
fn parts(range: ByteRange, len: u64) -> impl Iterator<Item = ByteRange> {
    let mut start = range.start();
    std::iter::from_fn(move || {
        let end = range.end().min((start / len + 1) * len);
        let part = ByteRange::new(start, end);
        start = end;
        part
    })
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
    let mut fetched = 0;
    for fill in fills {
        fetched += fill.rest().map_or(0, |rest| rest.len());
        fetch(reader, object, fill, request).await?;
    }
    Ok(fetched)
}

/// Fetches one run of bytes into its blocks.
async fn fetch(
    reader: &Reader,
    object: &ObjectVersion,
    mut fill: Fill,
    request: Request,
) -> Result<(), Error> {
    let Some(range) = fill.rest() else {
        return Ok(());
    };
    tracing::trace!(key = &*object.key, ?range, class = ?request.class, "GET");
    let (s3, key, etag) = (&reader.s3, &object.key, &object.meta.etag);
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
                match request.class {
                    crate::request::Class::Demand => fill.fail(&error),
                    // Whoever needs these bytes asks for them itself, with patience of its own.
                    crate::request::Class::Prefetch => drop(fill),
                }
                return Err(error);
            }
        }
    }
}
