//! One cursor: how far a sequence of reads has come, and what to fetch for its next read.

use tokio::time::Instant;

use super::backward::Backward;
use super::forward::{Bounds, Forward, LEAST_WINDOW, RAMP, START};
use super::strides::Strides;
use crate::cache::BLOCK;
use crate::s3::ByteRange;

/// Where a sequence is established, reads within this distance of the expected position continue it:
/// the kernel sends read-ahead out of order.
const NEAR: u64 = 1 << 20;
/// From this size on a read is one of data, not of metadata.
pub(super) const LARGE: u64 = 64 << 10;
/// A sequence that leaves out at least so much each time is worth a request for each step ...
const LEAST_SKIP: u64 = 512 << 10;
/// ... once it has done so often.
const SKIPS: u32 = 4;

/// What to fetch for one read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// If the read itself is absent; holds its range.
    pub(super) fetch: ByteRange,
    /// Ahead of it.
    pub(super) ahead: Vec<ByteRange>,
    /// In GETs of so many bytes; longer ones where many are under way.
    pub(super) part: u64,
    /// Blocks that the reader has left behind.
    pub(super) spent: Option<ByteRange>,
    /// A read of the header of an object that is larger than that.
    pub(super) is_header: bool,
    /// A read that follows no other: its `fetch` is for others to widen.
    pub(super) random: bool,
}

impl Plan {
    /// To fetch what is absent of a read, and nothing else yet.
    pub(super) fn new(read: ByteRange, random: bool) -> Self {
        Self {
            fetch: read,
            ahead: Vec::new(),
            part: START,
            spent: None,
            is_header: false,
            random,
        }
    }
}

/// One sequence of reads.
#[derive(Debug)]
pub(super) struct Cursor {
    /// Bytes of the first read.
    pub(super) first: u64,
    /// The number of its last run.
    pub(super) run: usize,
    /// The number of its first read.
    pub(super) begun: u64,
    /// The number of its last read, and when that was.
    pub(super) used: (u64, Instant),
    /// Another sequence has begun right after that, and how often it was gone on with all the same.
    pub(super) is_left: bool,
    pub(super) returns: u32,
    /// The last read; together with the one before if they came as in a swap.
    pub(super) last: ByteRange,
    /// The one before.
    pub(super) before: Option<ByteRange>,
    pub(super) course: Course,
}

#[derive(Debug)]
pub(super) enum Course {
    /// One read so far; or two, the second right before the first: a swap, or the way back.
    New {
        swapped: bool,
    },
    Forward(Forward),
    Backward(Backward),
    Strides(Strides),
}

impl Cursor {
    /// How far `read` is from what was expected; `None` if it is none of this cursor's. Reads all over the
    /// object come close to one another `by_chance`.
    pub(super) fn distance(&self, read: ByteRange, by_chance: bool) -> Option<u64> {
        let (start, len) = (read.start(), read.len());
        let (distance, near) = match &self.course {
            Course::New { swapped } => {
                let forward = self.last.end().abs_diff(start);
                let backward = self.last.start().abs_diff(read.end());
                // Large reads follow one another closely, or are of different places.
                let near = match len.min(self.last.len()) {
                    small @ ..LARGE => small,
                    // The next two may be swapped as well.
                    large if *swapped => large,
                    _ if by_chance => 0,
                    large => large / 4,
                };
                (forward.min(backward), near)
            }
            Course::Forward(forward) => {
                let distance = forward.next.abs_diff(start);
                // Random reads that happened to follow one another must not catch others.
                let near = forward.window.min(NEAR);
                // Nor must small ones among large ones, which look something up.
                let on_its_way = forward.next..forward.planned.min(forward.next + RAMP);
                let is_skip = match &forward.scan {
                    Some(scan) => scan.has(start, forward.next),
                    None => on_its_way.contains(&start) && len >= self.last.len() / 4,
                };
                (
                    distance,
                    if is_skip && !by_chance {
                        distance
                    } else {
                        near
                    },
                )
            }
            Course::Backward(_) => (self.last.start().abs_diff(read.end()), len),
            Course::Strides(strides) => {
                return strides.has(read).then(|| self.last.end().abs_diff(start));
            }
        };
        (distance <= near).then_some(distance)
    }

    pub(super) fn advance(&mut self, read: ByteRange, bounds: Bounds, now: Instant) -> Plan {
        let Bounds { size, most, .. } = bounds;
        let before = std::mem::replace(&mut self.last, read);
        let before_that = self.before.replace(before);
        let least_window = (2 * read.len()).max(LEAST_WINDOW);
        let mut is_second = false;
        if let Course::New { swapped } = self.course {
            is_second = bounds.is_scattered && read.start() >= before.start();
            let window = if is_second { 0 } else { least_window };
            self.take_course(swapped, before, read, window);
        }
        let mut plan = Plan::new(read, false);
        if let Course::Strides(strides) = &self.course
            && let Some(run) = strides.outrun_by(read)
        {
            let forward = Forward::new(run.start(), run.end(), run.end(), least_window);
            self.course = Course::Forward(forward);
        }
        if let Course::Forward(forward) = &mut self.course {
            let is_skip = read.start() >= forward.next + LEAST_SKIP;
            let strides = before_that.and_then(|first| Strides::of([first, before, read]));
            let strides = strides.filter(|_| is_skip);
            forward.skips = strides.as_ref().map_or(0, |_| forward.skips + 1);
            if forward.skips >= SKIPS
                && let Some(mut strides) = strides
            {
                plan.ahead = strides.ahead(size, most);
                self.course = Course::Strides(strides);
                return plan;
            }
        }
        match &mut self.course {
            Course::New { .. } => plan.random = true,
            Course::Forward(forward) => {
                if forward.window == 0 && !is_second {
                    forward.window = least_window;
                }
                let before = forward.next;
                plan.fetch = forward.fetch(read, size);
                // What was left out may be another reader's.
                let is_skip = read.start() > before + NEAR;
                plan.spent = left_behind(before, if is_skip { before } else { forward.next });
                plan.part = forward.part();
                plan.ahead.extend(forward.extend(bounds, now));
            }
            Course::Backward(backward) => {
                plan.fetch = backward.fetch(read);
                plan.ahead = backward.extend(read, most);
            }
            Course::Strides(strides) => {
                strides.advance(read);
                plan.ahead = strides.ahead(size, most);
            }
        }
        plan
    }

    /// Which way the sequence goes, as `read` says after `before`; one backward step may be two reads `swapped`.
    fn take_course(&mut self, swapped: bool, before: ByteRange, read: ByteRange, window: u64) {
        self.course = if read.start() >= before.start() {
            Course::Forward(Forward::new(before.start(), read.end(), read.end(), window))
        } else if swapped {
            Course::Backward(Backward::new(before.start(), window))
        } else {
            let both = ByteRange::new(read.start(), before.end().max(read.end()));
            self.last = both.unwrap_or(read);
            Course::New { swapped: true }
        };
    }
}

/// The blocks that a reader leaves behind who goes from `before` to `next`: with one between, as the
/// kernel's reads are out of order.
fn left_behind(before: u64, next: u64) -> Option<ByteRange> {
    let end = |position: u64| (position / BLOCK).saturating_sub(1) * BLOCK;
    ByteRange::new(end(before), end(next))
}
