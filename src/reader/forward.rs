//! A forward sequence of reads, and how far ahead of it to fetch.
//!
//! Its window doubles until it reaches [`RAMP`], and beyond it for as long as that makes a reader that
//! waits faster, so it grows to bandwidth x latency and no further.

use tokio::time::Instant;

use super::PART;
use super::scan::Scan;
use crate::s3::ByteRange;

/// What the first read at the start of an object fetches, if it is that of a stream; and what the kernel
/// asks for at a time, at most.
pub(super) const START: u64 = 1 << 20;
/// The shortest GET of several for what is needed at once: at 90 MB/s its bytes take a quarter of the wait for the
/// first one.
pub(super) const SHORT: u64 = 512 << 10;
/// Up to here the window doubles with each extension.
pub(super) const RAMP: u64 = 8 << 20;
/// Windows begin with at least this.
pub(super) const LEAST_WINDOW: u64 = 128 << 10;
/// A larger window must make a reader that waits so much faster, in percent, to be kept growing.
const GAIN: u64 = 120;
/// How often in turn it may fail to, which may be chance.
const TRIES: u32 = 3;
/// A stream of so many bytes has grown its window: short GETs are for those that begin.
const LONG: u64 = 128 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Forward {
    /// Where it began.
    pub(super) begun: u64,
    /// Where the next read is expected.
    pub(super) next: u64,
    /// Up to where fetches are planned.
    pub(super) planned: u64,
    /// How far ahead of `next` to plan.
    pub(super) window: u64,
    /// Begun by a single read.
    pub(super) is_guess: bool,
    /// How long it was is remembered.
    pub(super) is_noted: bool,
    /// The last so many reads each left as much out as the one before.
    pub(super) skips: u32,
    /// If it leaves out what it likes.
    pub(super) scan: Option<Scan>,
    /// The reader had to wait since the window was last judged.
    pub(super) starved: bool,
    /// There was no more memory for the window.
    is_bounded: bool,
    /// How often the window may still be found to make the reader no faster: until then it counts as growing.
    tries: u32,
    /// When it was judged, and `next` then.
    judged: Option<(Instant, u64)>,
    /// Bytes per second, at the window before.
    rate: u64,
}

/// Where fetching ahead ends.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Of the object.
    pub(super) size: u64,
    /// The largest window.
    pub(super) most: u64,
    /// How long runs are, if that is known.
    pub(super) likely: Option<u64>,
    /// Nearly all reads are of other places than those before: two in a row may be chance.
    pub(super) is_scattered: bool,
}

impl Forward {
    pub(super) fn new(begun: u64, next: u64, planned: u64, window: u64) -> Self {
        Self {
            begun,
            next,
            planned,
            window,
            is_guess: false,
            is_noted: false,
            skips: 0,
            scan: None,
            starved: false,
            is_bounded: false,
            tries: TRIES,
            judged: None,
            rate: 0,
        }
    }

    /// What fetches are rounded to.
    fn grain(&self) -> u64 {
        match self.window {
            ..START => LEAST_WINDOW / 2,
            // A part of the window: one that the grain swallows would never grow.
            START..RAMP => START / 4,
            RAMP.. => self.part(),
        }
    }

    /// How long a GET is. As long as the window grows, it is to be here soon, over many connections; later
    /// few long ones are cheaper.
    pub(super) fn part(&self) -> u64 {
        if self.tries == 0 || self.next - self.begun >= LONG {
            return PART;
        }
        (self.window / 16)
            .next_multiple_of(START)
            .clamp(START, PART)
    }

    /// `read` takes along what follows it: no GET per read. Where it is planned, it should be on its way; if
    /// it is not, because that failed, no more than what was planned comes with it.
    pub(super) fn fetch(&mut self, read: ByteRange, size: u64) -> ByteRange {
        self.next = self.next.max(read.end());
        let end = read.end().next_multiple_of(self.grain().min(START));
        let end = match read.end() <= self.planned {
            true => end.min(self.planned),
            false => end.min(size),
        };
        let fetch = ByteRange::new(read.start(), end).unwrap_or(read);
        self.planned = self.planned.max(fetch.end());
        fetch
    }

    /// Whether this stream, which comes from before `old`, is planned as far as where that began, and has not
    /// passed its end.
    pub(super) fn reaches(&self, old: &Self) -> bool {
        let are_runs = !self.is_guess && self.scan.is_none() && old.scan.is_none();
        let has_come = self.begun < old.begun && old.begun <= self.planned;
        are_runs && has_come && self.next <= old.next
    }

    /// Goes on at the end of `old`, which it [reaches](Self::reaches): the kernel has the pages up to there.
    pub(super) fn skip(&mut self, old: &Self) {
        if let Some((_, from)) = &mut self.judged {
            *from += old.next - self.next;
        }
        self.next = old.next;
        self.planned = self.planned.max(old.planned);
        self.window = self.window.max(old.window);
    }

    /// What was planned from `position` on is not fetched after all.
    pub(super) fn not_fetched_from(&mut self, position: u64) {
        if self.next <= position && position < self.planned {
            self.planned = position;
        }
    }

    /// Nothing of what is planned is on its way any more: whoever goes on right here begins with a new window, which
    /// that read sets.
    pub(super) fn nothing_ahead(&mut self) {
        *self = Self {
            is_guess: self.is_guess,
            // What a scan left out is no run.
            is_noted: self.is_noted || self.scan.is_some(),
            ..Self::new(self.begun, self.next, self.next, 0)
        };
    }

    /// What to fetch now, ahead of what is planned.
    pub(super) fn extend(&mut self, bounds: Bounds, now: Instant) -> Option<ByteRange> {
        let Bounds {
            size, most, likely, ..
        } = bounds;
        self.is_bounded |= self.window > most;
        self.window = self.window.min(most);
        let grain = self.grain();
        let end = self.next + self.window;
        let end = if end >= size { size } else { end - end % grain };
        // No further than runs go, until this one does.
        let end = match likely.map(|run| self.begun + run) {
            Some(likely) if self.begun > 0 && self.next <= likely && self.scan.is_none() => {
                end.min(likely.next_multiple_of(LEAST_WINDOW).min(size))
            }
            _ => end,
        };
        let ahead = ByteRange::new(self.planned, end)?;
        self.planned = end;
        self.judge(most, now);
        Some(ahead)
    }

    /// Doubles the window if it is small, or if the last doubling was worth it.
    fn judge(&mut self, most: u64, now: Instant) {
        if self.window < RAMP {
            self.window = (2 * self.window).min(most);
            return;
        }
        let Some((since, from)) = self.judged else {
            self.judged = Some((now, self.next));
            return;
        };
        let read = self.next.saturating_sub(from);
        // The first half of it was asked for before the window grew.
        if read < self.window {
            return;
        }
        if self.is_bounded && self.window <= most / 2 {
            // The streams that it shared the memory with have ended.
            (self.is_bounded, self.rate) = (false, 0);
        }
        let micros = now.duration_since(since).as_micros().max(1);
        let rate = u128::from(read) * 1_000_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let is_gain = |from: u64, to: u64| to > from.saturating_mul(GAIN) / 100;
        if self.starved && is_gain(self.rate, rate) {
            self.rate = rate;
            self.window = (2 * self.window).min(most);
            self.is_bounded = self.window == most;
            self.tries = if self.is_bounded { 0 } else { TRIES };
        } else if self.starved && self.tries == 0 && is_gain(rate, self.rate) {
            // It was faster with short GETs.
            self.tries = TRIES;
        } else if self.starved {
            self.tries = self.tries.saturating_sub(1);
        } else {
            self.tries = 0;
        }
        self.starved = false;
        self.judged = Some((now, self.next));
    }
}
