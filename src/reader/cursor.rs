//! Cursors: how far each sequence of reads of an object has come, and what to fetch for it.
//!
//! Plain arithmetic, without fetching. A cursor follows one sequence of reads: forward, backward, or
//! in equal strides. A read that belongs to none starts a cursor of its own and is a random read
//! until a second one follows ([`super::random`] says how wide it is fetched). From then on a cursor
//! fetches ahead ([`super::forward`], [`super::backward`], [`super::strides`], [`super::scan`]). What is
//! learnt of sequences that end ([`super::runs`], [`super::rows`]) says what comes along with the start of the next one.

use std::time::Duration;

use tokio::time::Instant;

use super::backward::Backward;
use super::credit::Credit;
use super::forward::{Bounds, Forward, LEAST_WINDOW, RAMP, SHORT, START};
use super::random::WHOLE;
use super::rows::Rows;
use super::runs::Runs;
use super::scan::Scan;
use super::strides::Strides;
use crate::cache::BLOCK;
use crate::s3::ByteRange;

/// Where a sequence is established, reads within this distance of the expected position continue it:
/// the kernel sends read-ahead out of order.
const NEAR: u64 = 1 << 20;
/// What the first read at the start of an object fetches, if it looks at the header only.
pub(super) const HEADER: u64 = 256 << 10;
/// The kernel doubles and quadruples the first read of a file: one of 128 KiB was at least 32 KiB.
pub(super) const STREAMS_READ: u64 = 128 << 10;
/// From this size on a read is one of data, not of metadata.
pub(super) const LARGE: u64 = 64 << 10;
/// Sequences that are followed in one object: 64 processes may each read their own part of it.
const MAX_CURSORS: usize = 128;
/// A sequence of which none of the last so many reads was is over: of those that may be followed, some get ahead.
const LATELY: u64 = 8 * MAX_CURSORS as u64;
/// One that nobody read for so long has no use for much memory.
const PAUSE: Duration = Duration::from_secs(2);
/// Who came back to a sequence so often after others had begun does so again. Once may be the kernel's read-ahead.
const RETURNS: u32 = 2;
/// So many of the last 32 reads that continued nothing mean that readers are all over the object.
const SCATTERED: u32 = 24;
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

#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Most recently used last.
    cursors: Vec<Cursor>,
    runs: Runs,
    rows: Rows,
    /// Whether scans are still worth their bytes.
    scans: Credit,
    /// Which of the last reads continued nothing, a bit each.
    lone: u32,
    /// How many reads there have been.
    reads: u64,
}

#[derive(Debug)]
struct Cursor {
    /// Bytes of the first read.
    first: u64,
    /// The number of its last run.
    run: usize,
    /// The number of its first read.
    begun: u64,
    /// The number of its last read, and when that was.
    used: (u64, Instant),
    /// Another sequence has begun right after that, and how often it was gone on with all the same.
    is_left: bool,
    returns: u32,
    /// The last read; together with the one before if they came as in a swap.
    last: ByteRange,
    /// The one before.
    before: Option<ByteRange>,
    course: Course,
}

#[derive(Debug)]
enum Course {
    /// One read so far; or two, the second right before the first: a swap, or the way back.
    New {
        swapped: bool,
    },
    Forward(Forward),
    Backward(Backward),
    Strides(Strides),
}

impl Cursors {
    /// Notes a read and plans for it. `size` is the object's, `most` the largest window.
    pub(super) fn access(&mut self, read: ByteRange, size: u64, most: u64, now: Instant) -> Plan {
        self.reads += 1;
        let is_scattered = |lone: u32| lone.count_ones() >= SCATTERED;
        let by_chance = is_scattered(self.lone);
        let near = |i: &usize| self.cursors[*i].distance(read, by_chance);
        // Of equals, the one that was used last.
        let nearest = (0..self.cursors.len())
            .rev()
            .filter(|i| near(i).is_some())
            .min_by_key(near);
        let nearest = nearest.map(|nearest| self.cursors.remove(nearest));
        let nearest = nearest.map(|cursor| self.overtake(cursor));
        let nearest = nearest.and_then(|cursor| self.step(cursor, read, now));
        self.lone = self.lone << 1 | u32::from(nearest.is_none());
        let bounds = Bounds {
            size,
            most,
            likely: self.runs.likely(),
            is_scattered: is_scattered(self.lone),
        };
        let Some(mut cursor) = nearest else {
            if self.cursors.len() == MAX_CURSORS {
                // What is over is forgotten first, and a single read before a sequence.
                let is_over = |cursor: &Cursor| self.reads - cursor.used.0 >= LATELY;
                let is_new = |cursor: &Cursor| matches!(cursor.course, Course::New { .. });
                let mut all = self.cursors.iter();
                let oldest = all.position(|cursor| is_over(cursor) || is_new(cursor));
                self.cursors.remove(oldest.unwrap_or(0));
            }
            self.note_run(read);
            let (cursor, plan) = self.begin(read, bounds, now);
            self.cursors.push(cursor);
            return plan;
        };
        let was_first = match &mut cursor.course {
            Course::New { .. } => true,
            Course::Forward(forward) => std::mem::take(&mut forward.is_guess),
            Course::Backward(_) | Course::Strides(_) => false,
        };
        cursor.used = (self.reads, now);
        cursor.returns += u32::from(std::mem::take(&mut cursor.is_left));
        let plan = cursor.advance(read, bounds, now);
        if was_first && matches!(cursor.course, Course::Forward(_)) {
            self.runs.goes_on(cursor.first);
        }
        match &cursor.course {
            Course::Strides(strides) if strides.is_at_start(read) => {
                cursor.run = self.rows.begin(read, now);
            }
            Course::Strides(_) => self.rows.extend(cursor.run, read.end()),
            Course::Forward(forward) if forward.scan.is_none() => {
                self.rows.extend(cursor.run, forward.next);
            }
            Course::New { .. } | Course::Forward(_) | Course::Backward(_) => {}
        }
        self.cursors.push(cursor);
        plan
    }

    /// `cursor`, or in its stead the stream that has come since to where it ran, and goes on at its end.
    fn overtake(&mut self, mut cursor: Cursor) -> Cursor {
        let lone;
        let old = match &cursor.course {
            Course::Forward(old) => old,
            Course::New { swapped: false } => {
                let (start, end) = (cursor.last.start(), cursor.last.end());
                lone = Forward::new(start, end, end, 0);
                &lone
            }
            Course::New { .. } | Course::Backward(_) | Course::Strides(_) => return cursor,
        };
        let reaches = |it: &Cursor| match &it.course {
            Course::Forward(stream) => it.begun > cursor.used.0 && stream.reaches(old),
            Course::New { .. } | Course::Backward(_) | Course::Strides(_) => false,
        };
        let Some(at) = self.cursors.iter().rposition(reaches) else {
            return cursor;
        };
        let Cursor { begun, course, .. } = self.cursors.remove(at);
        if let Course::Forward(mut stream) = course {
            stream.skip(old);
            cursor.course = Course::Forward(stream);
            cursor.begun = begun;
        }
        cursor
    }

    /// Notes `read` as a step of `cursor`, if that is a scan, which ends if it is not worth it.
    fn step(&mut self, mut cursor: Cursor, read: ByteRange, now: Instant) -> Option<Cursor> {
        if let Course::Forward(forward) = &mut cursor.course
            && read.start() > forward.next
            && let Some(scan) = &mut forward.scan
            && let Some(is_faster) = scan.step(now)
        {
            if !is_faster {
                return None;
            }
            self.scans.earn();
        }
        Some(cursor)
    }

    /// Sequences that are fetched ahead of, and are read by now.
    pub(super) fn streams(&self, now: Instant) -> u64 {
        let is_one = |cursor: &&Cursor| match &cursor.course {
            Course::New { .. } => false,
            Course::Forward(forward) => !forward.is_guess,
            Course::Backward(_) | Course::Strides(_) => true,
        };
        // Readers who take turns come back; who reads here and there does not.
        let is_read = |cursor: &&Cursor| {
            let is_lively = now < cursor.used.1 + PAUSE;
            is_lively && (!cursor.is_left || cursor.returns >= RETURNS)
        };
        self.cursors.iter().filter(is_read).filter(is_one).count() as u64
    }

    /// Notes the run that was read last, as `read` begins another one elsewhere.
    fn note_run(&mut self, read: ByteRange) {
        let Some(Cursor {
            first,
            is_left,
            course,
            ..
        }) = self.cursors.last_mut()
        else {
            return;
        };
        *is_left = true;
        if let Course::Strides(strides) = course {
            self.rows.note(strides.made());
        }
        if let Course::Forward(forward) = course
            && forward.begun > 0
            && !forward.is_guess
            && forward.scan.is_none()
            && !std::mem::replace(&mut forward.is_noted, true)
            && let Some(run) = ByteRange::new(forward.begun, forward.next)
        {
            self.runs.ended(run, *first, read.start());
        }
    }

    /// A read that continues nothing: the start of something, or a stride from the last such read.
    fn begin(&mut self, read: ByteRange, bounds: Bounds, now: Instant) -> (Cursor, Plan) {
        let Bounds { size, most, .. } = bounds;
        let mut plan = Plan::new(read, true);
        let mut course = Course::New { swapped: false };
        if read.start() == 0 {
            plan.part = SHORT;
            // Most readers go on from here, and who asks for much at once wants more.
            plan.fetch = first_fetch(read.len(), size).unwrap_or(read);
            plan.random = false;
            plan.is_header = read.len() < STREAMS_READ && size > HEADER;
            let end = plan.fetch.end();
            let more = match size {
                _ if read.len() < STREAMS_READ => end,
                ..=WHOLE => size,
                _ if read.len() >= START => end + RAMP / 2,
                _ => end,
            };
            plan.ahead.extend(ByteRange::new(end, more));
            course = Course::Forward(Forward::new(0, read.end(), more, 2 * START));
        } else if let Some(mut strides) = self.rows.strides(read) {
            plan.ahead = strides.ahead(size, most);
            course = Course::Strides(strides);
        } else if let Some((scan, window)) = self.scan(read, bounds, now) {
            let end = (read.end() + window).min(size);
            plan.ahead.extend(ByteRange::new(read.end(), end));
            let mut forward = Forward::new(read.start(), read.end(), end, window);
            forward.scan = Some(scan);
            course = Course::Forward(forward);
        } else {
            let is_start = self.runs.is_start(read.len());
            let is_start = is_start && !(read.len() < LARGE && bounds.is_scattered);
            let window = match read.len() {
                // As much as the kernel asks for at a time, and not from where a block begins.
                START.. if !read.start().is_multiple_of(START) => RAMP / 2,
                LARGE.. => (4 * read.len()).min(START),
                ..LARGE => 0,
            };
            let likely = self.runs.likely();
            let more = likely.map_or(window, |run| run.saturating_sub(read.len()).min(RAMP));
            let end = (read.end() + more).min(size);
            if is_start && end > read.end() {
                if read.len() < LARGE {
                    // Nothing of what surrounds it.
                    plan.random = false;
                    plan.fetch =
                        ByteRange::new(read.start(), end.min(read.end() + START)).unwrap_or(read);
                }
                plan.part = SHORT;
                plan.ahead.extend(ByteRange::new(plan.fetch.end(), end));
                let mut forward = Forward::new(read.start(), read.end(), end, window);
                forward.is_guess = true;
                course = Course::Forward(forward);
            }
        }
        let cursor = Cursor {
            first: read.len(),
            run: self.rows.begin(read, now),
            begun: self.reads,
            used: (self.reads, now),
            is_left: false,
            returns: 0,
            last: read,
            before: None,
            course,
        };
        (cursor, plan)
    }

    /// Whether the runs read last and `read` are a scan, for which there is memory, and how much to fetch
    /// ahead of it.
    fn scan(&mut self, read: ByteRange, bounds: Bounds, now: Instant) -> Option<(Scan, u64)> {
        let most = Scan::most(bounds.size);
        let (first, since) = self.rows.leading_to(read, most)?;
        let (scan, window) = Scan::new(first..read.start(), since, most, now);
        (window <= bounds.most && self.scans.spend()).then_some((scan, window))
    }

    /// The reader had to wait for `read`.
    pub(super) fn starved(&mut self, read: ByteRange) {
        let waiting = self.cursors.iter_mut().rfind(|c| c.last == read);
        if let Some(Course::Forward(forward)) = waiting.map(|c| &mut c.course) {
            forward.starved = true;
        }
    }

    /// `part` and what was planned to come after it are not fetched after all.
    pub(super) fn not_fetched(&mut self, part: ByteRange) {
        for cursor in &mut self.cursors {
            match &mut cursor.course {
                Course::New { .. } => {}
                Course::Forward(forward) => forward.not_fetched_from(part.start()),
                Course::Backward(backward) => backward.not_fetched(part, cursor.last),
                Course::Strides(strides) => strides.not_fetched_from(part.start()),
            }
        }
    }
}

impl Cursor {
    /// How far `read` is from what was expected; `None` if it is none of this cursor's. Reads all over the
    /// object come close to one another `by_chance`.
    fn distance(&self, read: ByteRange, by_chance: bool) -> Option<u64> {
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

    fn advance(&mut self, read: ByteRange, bounds: Bounds, now: Instant) -> Plan {
        let Bounds { size, most, .. } = bounds;
        let before = std::mem::replace(&mut self.last, read);
        let before_that = self.before.replace(before);
        let least_window = (2 * read.len()).max(LEAST_WINDOW);
        let mut is_second = false;
        if let Course::New { swapped } = self.course {
            let window = least_window;
            if read.start() >= before.start() {
                is_second = bounds.is_scattered;
                let window = if is_second { 0 } else { window };
                let forward = Forward::new(before.start(), read.end(), read.end(), window);
                self.course = Course::Forward(forward);
            } else if swapped {
                self.course = Course::Backward(Backward::new(before.start(), window));
            } else {
                self.course = Course::New { swapped: true };
                let both = ByteRange::new(read.start(), before.end().max(read.end()));
                self.last = both.unwrap_or(read);
            }
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
}

/// What a first read of `len` bytes at the start of an object fetches.
pub(super) fn first_fetch(len: u64, size: u64) -> Option<ByteRange> {
    let least = if len < STREAMS_READ { HEADER } else { START };
    ByteRange::new(0, len.max(least).min(size))
}

/// The blocks that a reader leaves behind who goes from `before` to `next`: with one between, as the
/// kernel's reads are out of order.
fn left_behind(before: u64, next: u64) -> Option<ByteRange> {
    let end = |position: u64| (position / BLOCK).saturating_sub(1) * BLOCK;
    ByteRange::new(end(before), end(next))
}

#[cfg(test)]
#[path = "cursor_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "cursor_waits.rs"]
mod waits;
