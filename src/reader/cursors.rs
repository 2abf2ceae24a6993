//! Cursors: how far each sequence of reads of an object has come, and what to fetch for it.
//!
//! Plain arithmetic, without fetching. A cursor follows one sequence of reads: forward, backward, or
//! in equal strides. A read that belongs to none starts a cursor of its own and is a random read
//! until a second one follows ([`super::random`] says how wide it is fetched). From then on a cursor
//! fetches ahead ([`super::forward`], [`super::backward`], [`super::strides`], [`super::scan`]). What is
//! learnt of sequences that end ([`super::runs`], [`super::starts`]) says what comes along with the start of the next one.

use std::time::Duration;

use tokio::time::Instant;

use super::credit::Credit;
use super::cursor::{Course, Cursor, LARGE, Plan};
use super::forward::{Bounds, Forward, RAMP, SHORT, START};
use super::random::WHOLE;
use super::reopened::Visits;
use super::runs::Runs;
use super::scan::Scan;
use super::starts::Starts;
use crate::s3::ByteRange;

/// What the first read at the start of an object fetches, if it looks at the header only.
pub(super) const HEADER: u64 = 256 << 10;
/// The kernel doubles and quadruples the first read of a file: one of 128 KiB was at least 32 KiB.
pub(super) const STREAMS_READ: u64 = 128 << 10;
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

/// All sequences of reads of one object.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Most recently used last.
    cursors: Vec<Cursor>,
    runs: Runs,
    starts: Starts,
    /// Whether scans are still worth their bytes.
    scans: Credit,
    /// The last one that was not.
    last_scan: Option<Scan>,
    /// Which of the last reads continued nothing, a bit each.
    lone: u32,
    /// How many reads there have been.
    reads: u64,
    visits: Visits,
}

impl Cursors {
    /// Notes a read and plans for it. `size` is the object's, `most` the largest window.
    pub(super) fn access(&mut self, read: ByteRange, size: u64, most: u64, now: Instant) -> Plan {
        self.reads += 1;
        let is_scattered = |lone: u32| lone.count_ones() >= SCATTERED;
        let by_chance = is_scattered(self.lone);
        let distances = self
            .cursors
            .iter()
            .map(|cursor| cursor.distance(read, by_chance));
        let near = distances
            .enumerate()
            .filter_map(|(i, distance)| Some((distance?, i)));
        // Of equals, the one that was used last.
        let nearest = near.rev().min_by_key(|(distance, _)| *distance);
        let nearest = nearest.map(|(_, nearest)| self.cursors.remove(nearest));
        let nearest = nearest.map(|cursor| self.overtake(cursor));
        let nearest = nearest.and_then(|cursor| self.step(cursor, read, now));
        self.lone = self.lone << 1 | u32::from(nearest.is_none());
        self.visits.read(read.len());
        let most = self.visits.window(most);
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
        self.visits.go_on_with(cursor.used.0);
        cursor.used = (self.reads, now);
        cursor.returns += u32::from(std::mem::take(&mut cursor.is_left));
        let plan = cursor.advance(read, bounds, now);
        if was_first && matches!(cursor.course, Course::Forward(_)) {
            self.runs.goes_on(cursor.first);
        }
        match &cursor.course {
            Course::Strides(strides) if strides.is_at_start(read) => {
                cursor.run = self.starts.begin(read, now);
            }
            Course::Strides(_) => self.starts.extend(cursor.run, read.end()),
            Course::Forward(forward) if forward.scan.is_none() => {
                self.starts.extend(cursor.run, forward.next);
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
        let Cursor {
            begun,
            used,
            course,
            ..
        } = self.cursors.remove(at);
        if let Course::Forward(mut stream) = course {
            stream.skip(old);
            cursor.course = Course::Forward(stream);
            (cursor.begun, cursor.used) = (begun, used);
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
                self.last_scan = forward.scan.take();
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
            // One read at the start is a look at the header.
            Course::Forward(forward) => !forward.is_guess && cursor.begun < cursor.used.0,
            Course::Backward(_) | Course::Strides(_) => true,
        };
        // Readers who take turns come back; who reads here and there does not.
        let is_read = |cursor: &&Cursor| {
            let is_lively = now < cursor.used.1 + PAUSE;
            is_lively && (!cursor.is_left || cursor.returns >= RETURNS)
        };
        self.cursors.iter().filter(is_read).filter(is_one).count() as u64
    }

    /// Whether nobody reads the object by now.
    pub(super) fn are_idle(&self, now: Instant) -> bool {
        self.cursors
            .last()
            .is_none_or(|latest| now >= latest.used.1 + PAUSE)
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
            self.starts.note(strides.made());
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
        let mut plan = Plan::new(read, true);
        let course = if read.start() == 0 {
            at_the_start(&mut plan, read, bounds.size)
        } else if let Some(mut strides) = self.starts.strides(read) {
            plan.ahead = strides.ahead(bounds.size, bounds.most);
            Course::Strides(strides)
        } else if let Some((scan, window)) = self.scan(read, bounds, now) {
            let end = (read.end() + window).min(bounds.size);
            plan.ahead.extend(ByteRange::new(read.end(), end));
            let mut forward = Forward::new(read.start(), read.end(), end, window);
            forward.scan = Some(scan);
            Course::Forward(forward)
        } else {
            self.perhaps_a_run(&mut plan, read, bounds)
        };
        let cursor = Cursor {
            first: read.len(),
            run: self.starts.begin(read, now),
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

    /// A read anywhere that may be the start of a run, as those before it were, and what of that comes along.
    fn perhaps_a_run(&mut self, plan: &mut Plan, read: ByteRange, bounds: Bounds) -> Course {
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
        let end = (read.end() + more).min(bounds.size);
        if !is_start || end <= read.end() {
            return Course::New { swapped: false };
        }
        if read.len() < LARGE {
            // Nothing of what surrounds it.
            plan.random = false;
            plan.fetch = ByteRange::new(read.start(), end.min(read.end() + START)).unwrap_or(read);
        }
        plan.part = SHORT;
        plan.ahead.extend(ByteRange::new(plan.fetch.end(), end));
        let mut forward = Forward::new(read.start(), read.end(), end, window);
        forward.is_guess = true;
        Course::Forward(forward)
    }

    /// Whether the runs read last and `read` are a scan, for which there is memory, and how much to fetch
    /// ahead of it.
    fn scan(&mut self, read: ByteRange, bounds: Bounds, now: Instant) -> Option<(Scan, u64)> {
        let most = Scan::most(bounds.size);
        let (first, since) = self.starts.leading_to(read, most)?;
        let over = first..read.start();
        let (scan, window) = Scan::new(over, since, bounds.size, self.last_scan.as_ref(), now);
        (window <= bounds.most && self.scans.spend()).then_some((scan, window))
    }

    /// The reader had to wait for `read`.
    pub(super) fn starved(&mut self, read: ByteRange) {
        let waiting = self.cursors.iter_mut().rfind(|c| c.last == read);
        if let Some(Course::Forward(forward)) = waiting.map(|c| &mut c.course) {
            forward.starved = true;
        }
    }

    /// Notes that nobody has the object open any more. Whether it will probably be gone on with.
    pub(super) fn close(&mut self) -> bool {
        self.visits.end(self.reads)
    }

    /// Nothing of what was planned is on its way any more.
    pub(super) fn nothing_ahead(&mut self) {
        for cursor in &mut self.cursors {
            match &mut cursor.course {
                Course::New { .. } => {}
                Course::Forward(forward) => forward.nothing_ahead(),
                Course::Backward(backward) => backward.nothing_ahead(cursor.last),
                Course::Strides(strides) => strides.nothing_ahead(),
            }
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

/// A read at the start of an object of `size` bytes, and what comes along.
fn at_the_start(plan: &mut Plan, read: ByteRange, size: u64) -> Course {
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
    Course::Forward(Forward::new(0, read.end(), more, 2 * START))
}

/// What a first read of `len` bytes at the start of an object fetches.
pub(super) fn first_fetch(len: u64, size: u64) -> Option<ByteRange> {
    let least = if len < STREAMS_READ { HEADER } else { START };
    ByteRange::new(0, len.max(least).min(size))
}

#[cfg(test)]
#[path = "cursors_streams_tests.rs"]
mod streams;
#[cfg(test)]
#[path = "cursors_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "cursors_waits_tests.rs"]
mod waits;
