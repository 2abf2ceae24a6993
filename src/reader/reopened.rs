//! What is learnt of how an object is read, kept for when it is opened again.
//!
//! A script opens its file anew for each time step (`ncks` in a loop of the shell, `dd` with `skip`), and goes on
//! each time where it was. To the mount that is one reader.

use std::num::{NonZeroU64, NonZeroUsize};

use lru::LruCache;

use super::cursors::Cursors;
use super::random::WHOLE;
use crate::s3::ObjectVersion;
use crate::sync::{Mutex, lock};

/// Objects that were closed last.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// So many bytes that are on their way to who opens the object again and again are fetched to their end.
pub(super) const MOST_LEFT: u64 = 32 << 20;
/// Who went on so often with what he read before he closed it does so again. Once is a program that first looks
/// what the file is.
const ENOUGH: u32 = 2;
/// Who opens it again and again makes no more reads than this each time.
const SHORT: u64 = 64;

/// Of objects that are not open, by the number of the version.
#[derive(Debug)]
pub(super) struct Reopened(Mutex<LruCache<NonZeroU64, Cursors>>);

impl Default for Reopened {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Reopened {
    /// What was learnt of an object that is opened.
    pub(super) fn take(&self, object: &ObjectVersion) -> Cursors {
        lock(&self.0).pop(&object.number).unwrap_or_default()
    }

    /// Keeps what was learnt of an object that was closed. Small ones come whole before that is of use.
    pub(super) fn keep(&self, object: &ObjectVersion, cursors: Cursors) {
        if object.meta.size > WHOLE {
            lock(&self.0).put(object.number, cursors);
        }
    }
}

/// Whether who opens an object goes on with what was read before it was closed. Reads are known by their numbers.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// The last read before it was closed.
    last: u64,
    goes_on: bool,
    /// How often in a row that was so.
    went_on: u32,
}

impl Visits {
    /// Notes that a sequence is gone on with whose latest read was this one.
    pub(super) fn go_on_with(&mut self, read: u64) {
        self.goes_on |= read <= self.last;
    }

    /// Notes that nobody has the object open any more, and the last `read`. Whether it will probably be gone on with.
    pub(super) fn end(&mut self, read: u64) -> bool {
        self.last = read;
        self.went_on = match std::mem::take(&mut self.goes_on) {
            true => self.went_on + 1,
            false => 0,
        };
        self.went_on >= ENOUGH
    }

    /// How much of `most` bytes may be on its way when it is closed, at this read.
    pub(super) fn window(&self, read: u64, most: u64) -> u64 {
        match self.went_on >= ENOUGH && read - self.last <= SHORT {
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
        assert!(visit(3, Some(20)));
        assert!(visit(4, Some(12)));
        assert!(!visit(5, Some(42)), "begun in the same visit");
        assert!(!visit(6, Some(50)));
        assert!(visit(7, Some(60)));
        assert!(!visit(8, None));
    }

    #[test]
    fn little_is_on_its_way_to_who_reads_little_each_time() {
        let mut visits = Visits::default();
        visits.end(10);
        for nth in 2..=3 {
            assert_eq!(visits.window(10 * nth, u64::MAX), u64::MAX);
            visits.go_on_with(10 * nth - 10);
            visits.end(10 * nth);
        }
        assert_eq!(visits.window(40, u64::MAX), MOST_LEFT);
        assert_eq!(visits.window(40, 4096), 4096);
        assert_eq!(visits.window(30 + SHORT + 1, u64::MAX), u64::MAX);
    }
}
