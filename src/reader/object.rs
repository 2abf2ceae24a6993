//! Open objects: what their readers do, and what is fetched for them.

use std::time::Duration;

use tokio::time::Instant;

use super::credit::Guess;
use super::cursor::Plan;
use super::cursors;
use super::random;
use super::shared::{Access, Shared, Waiting};
use super::{Reader, cached, fetch, forward, halves, head, parts, places, whole};
use crate::cache::{BLOCK, Fill, Pinned, Slice, Status};
use crate::request::Request;
use crate::s3::{ByteRange, Error, ObjectVersion};
use crate::sync::{
    AbortHandle, Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, lock, watch,
};

/// One part in so many of the memory is not for objects that come whole, all that are open together.
const KEPT_FROM_WHOLE: u64 = 8;

/// An open object.
#[derive(Debug)]
pub struct OpenObject {
    shared: Arc<Shared>,
    /// Bytes that were read.
    read: AtomicU64,
    is_begun: AtomicBool,
    is_much: AtomicBool,
    is_through: AtomicBool,
}

impl Reader {
    /// Opens a version; sends nothing.
    pub fn open(self: &Arc<Self>, object: Arc<ObjectVersion>) -> OpenObject {
        let mut open = lock(&self.open);
        let (shared, handles) = open.entry(object.number).or_insert_with(|| {
            let access = Access {
                learnt: self.reopened.take(&object, Instant::now()),
                ..Access::default()
            };
            let shared = Shared {
                reader: Arc::clone(self),
                object,
                head: head::Head::default(),
                rest: Guess::default(),
                fetched: AtomicU64::new(0),
                waits: watch::channel(whole::Waits::default()).0,
                access: Mutex::new(access),
            };
            (Arc::new(shared), 0)
        });
        *handles += 1;
        let shared = Arc::clone(shared);
        drop(open);
        OpenObject {
            shared,
            read: AtomicU64::new(0),
            is_begun: AtomicBool::new(false),
            is_much: AtomicBool::new(false),
            is_through: AtomicBool::new(false),
        }
    }
}

impl OpenObject {
    /// The version that is open.
    pub fn object(&self) -> &ObjectVersion {
        &self.shared.object
    }

    /// Whether a read is the first one, at the start, or at the end, where zip and Parquet have their table of
    /// contents: says so once.
    pub fn is_begun_by(&self, offset: u64, len: u64) -> bool {
        let is_end = offset.saturating_add(len) >= self.object().meta.size;
        // What the kernel reads ahead may be the end as well.
        let is_begin = offset == 0 || is_end && len < cursors::STREAMS_READ;
        let is_first = is_begin && self.read.load(Ordering::Relaxed) == 0;
        is_first && !self.is_begun.swap(true, Ordering::Relaxed)
    }

    /// Whether by now nearly all of it was read, or so much that files like it come whole: says so once.
    pub fn was_just_read_through(&self) -> bool {
        let nearly_all = self.object().meta.size / 8 * 7;
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
        let end = offset.saturating_add(len).min(self.object().meta.size);
        let Some(wanted) = ByteRange::new(offset, end) else {
            return Ok(Slice::empty());
        };
        let read = self.read_range(wanted, request).await?;
        self.read.fetch_add(wanted.len(), Ordering::Relaxed);
        Ok(read)
    }

    async fn read_range(&self, wanted: ByteRange, request: &Request) -> Result<Slice, Error> {
        let mut plan = self.plan(wanted);
        let cached = cached(self.object());
        let cache = &self.reader().cache;
        loop {
            let pinned = cache.pin(cached, wanted, request).await?;
            let pinned = pinned.ok_or(Error::TimedOut)?;
            match pinned.status(wanted) {
                Status::Present => {
                    if plan.random {
                        self.access().width.found(wanted);
                    }
                    self.spare(&mut plan, wanted);
                    self.keep_ahead(&plan).await;
                    return Ok(pinned.slice(wanted));
                }
                Status::OnTheWay => self.spare(&mut plan, wanted),
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
        let Shared {
            reader,
            object,
            head,
            ..
        } = &*self.shared;
        let (key, size) = (&object.key, object.meta.size);
        head.read(&reader.heads, key, cursors::HEADER, wanted);
        let now = Instant::now();
        reader.recount(now);
        let mut access = self.access();
        let visit = access.visit.get_or_insert_with(|| {
            let visit = reader.places.visit(object);
            for place in visit.expected() {
                reader.fetch_for_later(object, *place, forward::START);
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
        let window = reader.window();
        let mut plan = access.learnt.cursors.access(wanted, size, window, now);
        if plan.is_header {
            let along = head.along(&reader.heads, key, wanted, size);
            plan.ahead.extend(along);
        }
        if size <= random::WHOLE {
            self.guess_rest(wanted, &mut plan, &mut access);
        } else {
            let streams = access.learnt.cursors.streams(now);
            reader.count_streams(access.counted_streams, streams);
            access.counted_streams = streams;
        }
        plan
    }

    /// `wanted` need not be fetched, so nothing comes along with it: what the plan believes does, comes ahead of it. Who
    /// only looks at a header goes without.
    fn spare(&self, plan: &mut Plan, wanted: ByteRange) {
        if plan.random {
            return;
        }
        let before = ByteRange::new(plan.fetch.start(), wanted.start());
        let behind = ByteRange::new(wanted.end(), plan.fetch.end());
        match behind {
            Some(behind) if plan.is_header => {
                if plan.ahead.is_empty() {
                    self.access().learnt.cursors.not_fetched(behind);
                }
            }
            _ => drop(plan.ahead.splice(0..0, before.into_iter().chain(behind))),
        }
    }

    /// All of a small object is planned with its first read, which pays where it is read to its end. Who looks at the
    /// beginning of one after the other has no use for that.
    fn guess_rest(&self, wanted: ByteRange, plan: &mut Plan, access: &mut Access) {
        let Shared { reader, rest, .. } = &*self.shared;
        if wanted.end() > forward::START {
            rest.used(&reader.rests);
        }
        let size = self.object().meta.size;
        let Some(behind) = ByteRange::new(plan.fetch.end(), size) else {
            return;
        };
        if wanted.start() == 0 && plan.ahead == [behind] && !rest.make(&reader.rests) {
            plan.ahead.clear();
            access.learnt.cursors.not_fetched(behind);
        }
    }

    /// Fetches what is absent of `wanted`, and in the same requests what the plan adds to it if
    /// there is memory for it.
    async fn fetch_now(&self, pinned: &Pinned, plan: &Plan, wanted: ByteRange, request: &Request) {
        let size = self.object().meta.size;
        let (range, is_rest_due) = if plan.random {
            let width = &mut self.access().width;
            let around = width.around(wanted, size);
            (around, width.is_small_and_much_touched(size))
        } else {
            (plan.fetch, false)
        };
        let cache = &self.reader().cache;
        let wider = cache
            .pin(cached(self.object()), range, &request.as_prefetch())
            .await;
        // Both halves are read. What is whole and of one block is compared with S3's checksum.
        let are_read = 2 * wanted.len() > range.len() && range.len() >= forward::START;
        let mut fills = match wider {
            Ok(Some(wider)) if are_read && size > BLOCK && self.reader().is_quiet() => {
                halves(range).flat_map(|half| wider.claim(half)).collect()
            }
            Ok(Some(wider)) => wider.claim(range),
            _ => pinned.claim(wanted),
        };
        fills.retain(|fill| fill.touches(wanted));
        // Short enough to be read to its end if the file is closed: a connection is worth more.
        let demand = Request::demand(self.reader().timeout);
        for fill in fills {
            self.spawn_fetch(fill, &demand);
        }
        if is_rest_due && let Some(all) = ByteRange::new(0, size) {
            let (reader, object) = (self.reader(), &self.shared.object);
            reader.fetch_for_later(object, all, forward::START);
        }
    }

    /// A random read had to wait: if such waits take too long beside fetching the object, it is fetched,
    /// at each time what is nearest to the latest of such reads.
    fn waited(&self, read: ByteRange, wait: Duration) {
        self.shared.waits.send_modify(|waits| {
            waits.at = read.start();
            waits.time += wait;
        });
        let size = self.object().meta.size;
        let reader = self.reader();
        let room = reader.cache.limit() / KEPT_FROM_WHOLE * (KEPT_FROM_WHOLE - 1);
        let room = room.saturating_sub(reader.whole.load(Ordering::Relaxed));
        let mut access = self.access();
        let Access { width, visit, .. } = &mut *access;
        let guess = || visit.as_ref().is_none_or(places::Visit::may_come_whole);
        if !width.waited(read, wait, (size, room), guess) {
            return;
        }
        reader.whole.fetch_add(size, Ordering::Relaxed);
        (access.whole, access.counted_whole) = (size, size);
        let object = Arc::clone(&self.shared.object);
        let all = whole::fetch(Arc::clone(reader), object, self.shared.waits.subscribe());
        access.fetch_all = Some(reader.begin(all));
    }

    /// Does what the plan has for what lies ahead of the read and behind it.
    async fn keep_ahead(&self, plan: &Plan) {
        if let Some(spent) = plan.spent {
            self.reader().cache.spend(cached(self.object()), spent);
        }
        self.fetch_ahead(plan).await;
    }

    /// Fetches what is absent ahead of the read, as far as memory goes.
    async fn fetch_ahead(&self, plan: &Plan) {
        let cache = &self.reader().cache;
        let request = Request::demand(self.reader().timeout).as_prefetch();
        let part = match self.reader().is_quiet() {
            true => plan.part,
            false => plan.part.max(forward::START),
        };
        let ranges = plan.ahead.iter();
        for part in ranges.flat_map(|range| parts(*range, part)) {
            let pinned = cache.pin(cached(self.object()), part, &request).await;
            let Ok(Some(pinned)) = pinned else {
                // No memory for more: the cursor must not believe that it is on its way.
                self.access().learnt.cursors.not_fetched(part);
                return;
            };
            let fills = pinned.claim(part).into_iter();
            let started: Vec<_> = fills
                .filter_map(|fill| {
                    let range = fill.rest()?;
                    Some((self.spawn_fetch(fill, &request), range))
                })
                .collect();
            if plan.is_header {
                // Who looks at the header of a file, closes it, and opens it to read on (netCDF-C) is to find
                // the rest of its head.
                continue;
            }
            let ahead = &mut self.access().learnt.ahead;
            ahead.retain(|(fetch, _)| !fetch.is_finished());
            ahead.extend(started);
        }
    }

    fn spawn_fetch(&self, fill: Fill, request: &Request) -> AbortHandle {
        let reader = Arc::clone(self.reader());
        let (object, request) = (Arc::clone(&self.shared.object), request.clone());
        let bytes = fill.rest().map_or(0, ByteRange::len);
        self.shared.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.reader()
            .begin(async move { fetch(&reader, &object, fill, &request).await })
    }
}

impl Drop for OpenObject {
    fn drop(&mut self) {
        let mut open = lock(&self.reader().open);
        let number = self.object().number;
        if let Some((_, handles)) = open.get_mut(&number) {
            *handles -= 1;
            if *handles == 0 {
                open.remove(&number);
                // Before anybody opens it again, and takes what is planned for what is on its way.
                self.shared.close();
            }
        }
    }
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
