//! What is learnt of how an object is read, kept for when it is opened again.
//!
//! A script opens its file anew for each time step (`ncks` in a loop of the shell, `dd` with `skip`), and goes on
//! each time where it was. To the mount that is one reader. How wide random reads are to be, and whether an object
//! is to come whole, is learnt anew: that takes longer than such a visit.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::cursors::Cursors;
use super::random::WHOLE;
use crate::s3::{ByteRange, ObjectVersion};
use crate::sync::{AbortHandle, Mutex, lock};

/// So many objects are remembered, those closed last. What is left under way for all of them is to fit into memory.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");
/// Who comes back later than this is somebody else.
const OLDEST: Duration = Duration::from_secs(60);
/// For who opens the object again and again, so many bytes are fetched ahead, and to their end when it is closed.
const MOST_LEFT: u64 = 32 << 20;
/// Who went on so often with what he read before he closed it does so again. Once is a program that first looks
/// what the file is.
const ENOUGH: u32 = 2;
/// Who opens it again and again reads no more bytes than this each time: beyond it, he is a reader like any other.
const SHORT_VISIT: u64 = 64 << 20;

/// Of objects that are not open, by the number of the version, and when they were closed.
#[derive(Debug)]
pub(super) struct Reopened(Mutex<LruCache<NonZeroU64, (Learnt, Instant)>>);

/// The sequences of reads of one object, and what is under way for them.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    pub(super) cursors: Cursors,
    /// Fetches ahead.
    pub(super) ahead: Vec<(AbortHandle, ByteRange)>,
}

impl Default for Reopened {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Reopened {
    /// What was learnt of an object that is opened.
    pub(super) fn take(&self, object: &ObjectVersion, now: Instant) -> Learnt {
        let closed = lock(&self.0).pop(&object.number);
        let recent = closed.filter(|(_, at)| now <= *at + OLDEST);
        recent.map_or_else(Learnt::default, |(learnt, _)| learnt)
    }

    /// Keeps what was learnt of an object that was closed. Small ones come whole before that is of use.
    pub(super) fn keep(&self, object: &ObjectVersion, learnt: Learnt, now: Instant) {
        if object.meta.size > WHOLE {
            lock(&self.0).put(object.number, (learnt, now));
        }
    }
}

impl Learnt {
    /// Nobody has the object open any more: nothing is fetched ahead, except for who opens it again and again and
    /// goes on.
    pub(super) fn close(&mut self) {
        self.ahead.retain(|(fetch, _)| !fetch.is_finished());
        if !self.cursors.close() {
            for (fetch, _) in self.ahead.drain(..) {
                fetch.abort();
            }
            self.cursors.nothing_ahead();
        }
        let mut left = 0;
        self.ahead.retain(|(fetch, range)| {
            left += range.len();
            let is_left = left <= MOST_LEFT;
            if !is_left {
                fetch.abort();
                self.cursors.not_fetched(*range);
            }
            is_left
        });
    }
}

/// Whether who opens an object goes on with what was read before it was closed. Reads are known by their numbers.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// The last read before it was closed.
    last: u64,
    /// Bytes that were read since.
    bytes: u64,
    /// Whether some of these went on with a sequence from before that.
    goes_on: bool,
    /// How many visits in a row did.
    went_on: u32,
}

impl Visits {
    /// Notes a read of `len` bytes.
    pub(super) fn read(&mut self, len: u64) {
        self.bytes += len;
    }

    /// Notes that a sequence is gone on with whose latest read was this one.
    pub(super) fn go_on_with(&mut self, read: u64) {
        self.goes_on |= read <= self.last;
    }

    /// Notes that nobody has the object open any more, and the last `read`. Whether it will probably be gone on with.
    /// Who found all in the kernel's pages, or read nothing, does not count.
    pub(super) fn end(&mut self, read: u64) -> bool {
        if read > self.last {
            let goes_on = std::mem::take(&mut self.goes_on);
            self.went_on = if goes_on { self.went_on + 1 } else { 0 };
            (self.last, self.bytes) = (read, 0);
        }
        self.went_on >= ENOUGH
    }

    /// How much of `most` bytes may be on its way, so that it can be left there when the object is closed.
    pub(super) fn window(&self, most: u64) -> u64 {
        match self.went_on >= ENOUGH && self.bytes <= SHORT_VISIT {
            true => most.min(MOST_LEFT),
            false => most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_went_on_twice_in_a_row_goes_on() {
        let mut visits = Visits::default();
        let mut visit = |nth: u64, with: Option<u64>| {
            if let Some(read) = with {
                visits.go_on_with(read);
            }
            visits.end(10 * nth)
        };
        assert!(!visit(1, Some(3)), "nothing was read before");
        assert!(!visit(2, Some(10)));
        assert!(!visit(2, None), "a look at the header");
        assert!(visit(3, Some(20)));
        assert!(visit(3, None), "another look");
        assert!(visit(4, Some(12)));
        assert!(!visit(5, Some(42)), "begun in the same visit");
        assert!(!visit(6, Some(50)));
        assert!(visit(7, Some(60)));
        assert!(!visit(8, None));
    }

    #[test]
    fn little_is_on_its_way_to_who_reads_little_each_time() {
        let mut visits = Visits::default();
        for nth in 1..=3 {
            assert_eq!(visits.window(u64::MAX), u64::MAX);
            if nth > 1 {
                visits.go_on_with(10 * nth - 10);
            }
            visits.end(10 * nth);
        }
        assert_eq!(visits.window(u64::MAX), MOST_LEFT);
        assert_eq!(visits.window(4096), 4096);
        visits.read(SHORT_VISIT + 1);
        assert_eq!(visits.window(u64::MAX), u64::MAX);
    }
}
