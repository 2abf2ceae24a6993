//! How wide random reads are fetched: what was asked for and what surrounds it, wider while the
//! surroundings fetched lately answer other reads, narrower while they answer none.

use std::collections::VecDeque;
use std::time::Duration;

use super::cursor::LARGE;
use crate::s3::ByteRange;

/// At first: with 25 ms to the first byte and 90 MB/s a connection, its bytes cost a tenth of the wait.
const FIRST: u64 = 256 << 10;
/// Below it, the request costs more than its bytes.
const NARROWEST: u64 = 16 << 10;
const WIDEST: u64 = 1 << 20;
/// After so many reads the width is judged ...
const JUDGED_AFTER: u32 = 16;
/// ... by how many of them the last so many fetches answered.
const RECENT: usize = 64;
/// An object up to this size comes whole ...
pub(super) const WHOLE: u64 = 8 << 20;
/// ... with so many random reads that had to be fetched.
const MUCH_TOUCHED: u32 = 3;
/// A larger one, if it has room in memory, comes whole when its readers have also waited half as long as
/// that takes at so many bytes a second. HDF5 and NetCDF-4 metadata are hundreds of small reads all over
/// the file, each after the other: who has waited so often is not half done.
const WHOLE_RATE: u64 = 1_000_000_000;
/// Large reads, which say more of what they want, bring no object in as a whole that is larger than this.
const WHOLE_BY_LARGE: u64 = 64 << 20;
/// One in so many bytes of it they must have waited for.
const LARGE_PART: u64 = 32;
/// That pays if so many times as many reads follow as there had been until then.
const PAYS: u32 = 3;
/// A first read that ends so near the end is one for a table of contents there (zip, Parquet), which
/// is longer than the read.
const TAIL: u64 = 256 << 10;

/// What is learnt of the random reads of one object. Only what was fetched lately counts: that an
/// object is mostly in memory by now says nothing of how wide the rest should come.
#[derive(Debug)]
pub(super) struct Width {
    bytes: u64,
    recent: VecDeque<ByteRange>,
    reads: u32,
    /// Of these, answered by what is recent.
    hits: u32,
    misses_ever: u32,
    /// Of those that had to be fetched.
    waited: Duration,
    /// Bytes of these.
    read: u64,
    is_whole: bool,
    /// After how many misses the whole object was due, and how many reads there have been since.
    due: Option<u32>,
    since: u32,
}

impl Default for Width {
    fn default() -> Self {
        Self {
            bytes: FIRST,
            recent: VecDeque::new(),
            reads: 0,
            hits: 0,
            misses_ever: 0,
            waited: Duration::ZERO,
            read: 0,
            is_whole: false,
            due: None,
            since: 0,
        }
    }
}

impl Width {
    /// What to fetch for the random `read` that found nothing.
    pub(super) fn around(&mut self, read: ByteRange, size: u64) -> ByteRange {
        self.misses_ever += 1;
        let (start, end) = if self.misses_ever == 1 && size - read.end() < TAIL / 4 {
            (read.start().min(size.saturating_sub(TAIL)), size)
        } else if read.len() < self.bytes && (read.len() < LARGE || self.bytes > FIRST) {
            // One of data comes as it is, unless larger widths have been found to pay.
            let start = read.start() - read.start() % self.bytes;
            (start, read.end().next_multiple_of(self.bytes).min(size))
        } else {
            (read.start(), read.end())
        };
        let around = ByteRange::new(start, end).unwrap_or(read);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(around);
        self.judge(false);
        around
    }

    /// Whether the rest of an object of `size` bytes comes as well, while it is small.
    pub(super) fn is_small_and_much_touched(&self, size: u64) -> bool {
        size <= WHOLE && self.misses_ever >= MUCH_TOUCHED
    }

    /// Notes a random read that found its bytes.
    pub(super) fn found(&mut self, read: ByteRange) {
        self.since += 1;
        let within =
            |recent: &ByteRange| recent.start() <= read.start() && read.end() <= recent.end();
        if self.recent.iter().any(within) {
            self.judge(true);
        }
    }

    /// Notes how long a random read waited. Whether all of the object is to be fetched now: once. The first time that
    /// it is due, that is a `guess`; later, if it would have paid.
    pub(super) fn waited(
        &mut self,
        read: ByteRange,
        wait: Duration,
        (size, room): (u64, u64),
        guess: impl FnOnce() -> bool,
    ) -> bool {
        let whole = Duration::from_micros(size.saturating_mul(1_000_000) / WHOLE_RATE);
        let enough = match read.len() {
            ..LARGE => whole / 2,
            LARGE.. if size <= WHOLE_BY_LARGE => 2 * whole,
            LARGE.. => return false,
        };
        self.read += read.len();
        self.waited += wait;
        let is_part = read.len() < LARGE || self.read >= size / LARGE_PART;
        let is_much = self.misses_ever >= MUCH_TOUCHED && self.waited >= enough && is_part;
        self.since += 1;
        if !is_much || size > room || self.is_whole {
            return false;
        }
        self.is_whole = match self.due {
            Some(_) => self.pays(),
            None => {
                (self.due, self.since) = (Some(self.misses_ever), 0);
                guess()
            }
        };
        self.is_whole
    }

    /// Whether it is worth to fetch the whole object, or was.
    pub(super) fn pays(&self) -> bool {
        self.due.is_some_and(|misses| self.since >= PAYS * misses)
    }

    /// The object may be pushed out of memory, and then come whole once more.
    pub(super) fn forget_whole(&mut self) {
        if self.is_whole {
            (self.is_whole, self.waited, self.read) = (false, Duration::ZERO, 0);
        }
    }

    fn judge(&mut self, hit: bool) {
        self.reads += 1;
        self.hits += u32::from(hit);
        if self.reads == JUDGED_AFTER {
            if self.hits >= JUDGED_AFTER / 4 {
                self.bytes = (2 * self.bytes).min(WIDEST);
            } else if self.hits == 0 {
                self.bytes = (self.bytes / 2).max(NARROWEST);
            }
            (self.reads, self.hits) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::pretended::range;

    const GIB: u64 = 1 << 30;

    #[test]
    fn small_reads_take_their_surroundings_and_large_ones_nothing() {
        let mut width = Width::default();
        let around = width.around(range(5 * FIRST + 4096, 4096), GIB);
        assert_eq!(around, range(5 * FIRST, FIRST));
        let large = range(4096, LARGE);
        assert_eq!(width.around(large, GIB), large);
    }

    /// The width after random reads within `span` bytes of a large object.
    fn learnt(span: u64, reads: usize) -> u64 {
        let mut random = fastrand::Rng::with_seed(span);
        let mut width = Width::default();
        let mut fetched: Vec<ByteRange> = Vec::new();
        for _ in 0..reads {
            let read = range(GIB + random.u64(0..span / 4096) * 4096, 4096);
            let found = |f: &ByteRange| f.start() <= read.start() && read.end() <= f.end();
            match fetched.iter().any(found) {
                true => width.found(read),
                false => fetched.push(width.around(read, 100 * GIB)),
            }
        }
        width.bytes
    }

    #[test]
    fn wider_while_it_pays_and_narrower_when_not() {
        assert_eq!(learnt(20 * GIB, 1000), NARROWEST);
        assert_eq!(learnt(8 << 20, 400), WIDEST);
    }

    #[test]
    fn no_wider_because_much_of_the_object_is_in_memory() {
        assert!(learnt(GIB, 40_000) <= FIRST);
    }

    #[test]
    fn who_waits_long_gets_the_whole_object_once() {
        let waits = |width: &mut Width, size, room| {
            let wait = Duration::from_millis(30);
            (1..200).find(|i| {
                let read = range(*i << 20, 4096);
                width.around(read, size);
                width.waited(read, wait, (size, room), || true)
            })
        };
        let mut width = Width::default();
        assert_eq!(waits(&mut width, GIB / 4, GIB), Some(5));
        assert_eq!(waits(&mut width, GIB / 4, GIB), None, "once");
        let new = Width::default;
        assert_eq!(waits(&mut new(), GIB / 4, GIB / 8), None, "no room");
        assert_eq!(waits(&mut new(), 20 << 20, GIB), Some(3), "one is no sign");
    }

    #[test]
    fn what_is_not_worth_a_guess_comes_whole_when_it_would_have_paid() {
        let mut width = Width::default();
        let due = (1..200).find(|i| {
            let read = range(*i << 20, 4096);
            width.around(read, GIB / 4);
            let wait = Duration::from_millis(30);
            width.waited(read, wait, (GIB / 4, GIB), || false)
        });
        assert_eq!(due, Some(5 + 5 * u64::from(PAYS)));
        assert!(width.pays());
    }

    #[test]
    fn large_reads_get_the_whole_of_what_is_not_large_itself() {
        let after = |size| {
            let mut width = Width::default();
            (1..200).find(|i| {
                let read = range((i % 16) << 20, LARGE);
                width.around(read, size);
                width.waited(read, Duration::from_millis(30), (size, GIB), || true)
            })
        };
        assert_eq!(after(20 << 20), Some(10));
        assert_eq!(after(WHOLE_BY_LARGE), Some(32));
        assert_eq!(after(WHOLE_BY_LARGE + 1), None);
    }

    #[test]
    fn a_first_read_at_the_end_takes_the_tail() {
        let read = range(GIB - 22, 22);
        assert_eq!(Width::default().around(read, GIB), range(GIB - TAIL, TAIL));
        let mut later = Width::default();
        later.around(range(GIB / 2, 4096), GIB);
        assert_eq!(later.around(read, GIB).len(), FIRST);
    }

    #[test]
    fn a_small_object_comes_whole_when_it_is_touched_again_and_again() {
        let mut width = Width::default();
        let mut is_rest_due = |size| {
            // Nobody waits for the rest.
            assert_eq!(width.around(range(1 << 20, 4096), size).len(), FIRST);
            width.is_small_and_much_touched(size)
        };
        let touched = [WHOLE, WHOLE, WHOLE, WHOLE + 1].map(&mut is_rest_due);
        assert_eq!(touched, [false, false, true, false]);
    }
}
