//! What the handles of one object version share: what its readers do, and its part of the memory that is for all objects.

use std::time::Duration;

use tokio::time::Instant;

use super::credit::Guess;
use super::random::Width;
use super::reopened::Learnt;
use super::whole::Waits;
use super::{Reader, head, places};
use crate::s3::{ByteRange, ObjectVersion};
use crate::sync::{AbortHandle, Arc, AtomicU64, Mutex, Ordering, lock, watch};

/// How often it is looked who still reads.
pub(super) const RECOUNT: Duration = Duration::from_secs(1);

/// What the handles share: the kernel's page cache is one for all of them, so what it asks
/// for on each handle makes sense only together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) reader: Arc<Reader>,
    pub(super) object: Arc<ObjectVersion>,
    pub(super) head: head::Head,
    /// That a small one is read further than its first read.
    pub(super) rest: Guess,
    /// Bytes that its readers fetched.
    pub(super) fetched: AtomicU64,
    /// What its random reads wait for.
    pub(super) waits: watch::Sender<Waits>,
    pub(super) access: Mutex<Access>,
}

/// What all readers do, and what is fetched because of that.
#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) learnt: Learnt,
    pub(super) width: Width,
    /// From the first read on.
    pub(super) visit: Option<places::Visit>,
    /// Reads that wait for S3.
    pub(super) waiting: u32,
    pub(super) counted_streams: u64,
    /// Bytes, if it was fetched whole.
    pub(super) whole: u64,
    /// The same, while it is read.
    pub(super) counted_whole: u64,
    /// The fetch of all of it.
    pub(super) fetch_all: Option<AbortHandle>,
}

impl Reader {
    /// Looks now and then who of those that have an object open still reads.
    pub(super) fn recount(&self, now: Instant) {
        let mut recounted = lock(&self.recounted);
        if recounted.is_some_and(|at| now < at + RECOUNT) {
            return;
        }
        *recounted = Some(now);
        drop(recounted);
        let open: Vec<_> = lock(&self.open)
            .values()
            .map(|(it, _)| Arc::clone(it))
            .collect();
        for shared in open {
            shared.recount(now);
        }
    }
}

impl Shared {
    /// A closed file stops fetching, except for who opens it again and again and goes on.
    pub(super) fn close(&self) {
        let mut access = std::mem::take(&mut *lock(&self.access));
        if let Some(visit) = access.visit {
            let fetched = self.fetched.load(Ordering::Relaxed) + access.whole;
            visit.end(fetched > self.object.meta.size / 4 * 3, access.width.pays());
        }
        if let Some(fetch_all) = access.fetch_all {
            fetch_all.abort();
        }
        access.learnt.close();
        self.reader
            .reopened
            .keep(&self.object, access.learnt, Instant::now());
        self.reader.count_streams(access.counted_streams, 0);
        let whole = access.counted_whole;
        self.reader.whole.fetch_sub(whole, Ordering::Relaxed);
    }

    /// Gives back what it has of the memory that all objects share, as far as nobody reads it by now.
    fn recount(&self, now: Instant) {
        let mut access = lock(&self.access);
        if access.waiting > 0 {
            return;
        }
        let streams = access.learnt.cursors.streams(now);
        if streams < access.counted_streams {
            self.reader.count_streams(access.counted_streams, streams);
            access.counted_streams = streams;
        }
        let mut fetch_all = access.fetch_all.iter();
        if access.learnt.cursors.are_idle(now) && fetch_all.all(AbortHandle::is_finished) {
            let whole = std::mem::take(&mut access.counted_whole);
            self.reader.whole.fetch_sub(whole, Ordering::Relaxed);
            // Others may push it out, and then it may come once more.
            access.width.forget_whole();
        }
    }
}

/// A read that waits for S3. Several at once share the time that they wait.
pub(super) struct Waiting<'a> {
    shared: &'a Shared,
    since: Instant,
    among: u32,
}

impl<'a> Waiting<'a> {
    pub(super) fn begin(shared: &'a Shared, wanted: ByteRange) -> Self {
        let mut access = lock(&shared.access);
        access.learnt.cursors.starved(wanted);
        access.waiting += 1;
        Self {
            shared,
            since: Instant::now(),
            among: access.waiting,
        }
    }

    /// The part of the time that this read waited.
    pub(super) fn end(self) -> Duration {
        self.since.elapsed() / self.among
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.shared.access).waiting -= 1;
    }
}
