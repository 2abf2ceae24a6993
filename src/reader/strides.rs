//! Runs of reads that begin in equal steps, forward or back: records of one variable of netCDF-3, rows of a part of
//! an array, every n-th message.

use super::forward::RAMP;
use crate::cache::JOINED;
use crate::s3::ByteRange;

/// Steps fetched ahead: as many as there have been, and no more than this, or than lie within [`RAMP`] bytes ...
const MOST: u64 = 32;
/// ... but a part of a long run, as long as they are small. Over a far network each of them is worth its request.
const MOST_OF_LONG: u64 = 64;
const PART_OF_LONG: u64 = 8;
/// The kernel rounds reads to pages, so steps that are no multiple of one differ by as much.
pub(super) const PAGE: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Strides {
    /// Where the first run began.
    begun: u64,
    /// Where the last one did, so many steps later.
    last: u64,
    steps: u64,
    /// How much was read of the last one and of the one before, in bytes.
    len: u64,
    len_before: u64,
    /// Whether all steps are the same to the byte.
    is_exact: bool,
    /// Steps that were fetched ahead, from the first on.
    planned: u64,
    /// Steps that are probably made, if that is known.
    expected: u64,
    /// So many of the first steps are supposed to have been made, as they were elsewhere.
    supposed: u64,
}

impl Strides {
    /// Three runs in equal steps, with something between them; of the last there is only the first read. None of
    /// them is long: those are streams, one after the other.
    pub(super) fn of(runs: [ByteRange; 3]) -> Option<Self> {
        let [first, second, third] = runs.map(|run| run.start());
        let (step, next) = (distance(first, second), distance(second, third));
        let is_apart = match step > 0 {
            true => runs[0].end() < second && runs[1].end() < third,
            false => runs[1].end() < first && runs[2].end() < second,
        };
        let are_short = runs.iter().all(|run| run.len() <= RAMP);
        (is_apart && are_short && step.abs_diff(next) <= PAGE).then_some(Self {
            begun: first,
            last: third,
            steps: 2,
            len: runs[2].len(),
            len_before: runs[1].len(),
            is_exact: step == next,
            planned: 1,
            expected: 0,
            supposed: 0,
        })
    }

    /// `run` and `read`, the first two of `steps` steps of `step` bytes that were made before elsewhere.
    pub(super) fn again(run: ByteRange, read: ByteRange, step: i64, steps: u64) -> Option<Self> {
        let is_apart = match step > 0 {
            true => run.end() < read.start(),
            false => read.end() < run.start(),
        };
        // The one step from `run` to `read` is known to a page only: as many ahead as were made elsewhere would be
        // off by as many pages. So it is as if those had led to `read`.
        let room = match step > 0 {
            true => read.start() / step.unsigned_abs(),
            false => steps,
        };
        let made = steps.min(room).max(1);
        let all = i128::from(step) * i128::from(made);
        let begun = u64::try_from(i128::from(read.start()) - all).ok()?;
        is_apart.then_some(Self {
            begun,
            last: read.start(),
            steps: made,
            len: read.len(),
            len_before: run.len(),
            is_exact: distance(run.start(), read.start()) == step,
            planned: made - 1,
            expected: made - 1 + steps,
            supposed: made - 1,
        })
    }

    /// The length of a step, and how many were made.
    pub(super) fn made(&self) -> (i64, u64) {
        let all = distance(self.begun, self.last);
        (
            all / i64::try_from(self.steps).unwrap_or(i64::MAX),
            self.steps - self.supposed,
        )
    }

    /// Whether `read` is the next step, or goes on with the last one.
    pub(super) fn has(&self, read: ByteRange) -> bool {
        let slack = if self.is_exact { PAGE } else { 2 * PAGE };
        let next = self.start(self.steps + 1);
        let is_next = next.is_some_and(|next| next.abs_diff(read.start()) <= slack);
        let is_ahead = (self.begun < self.last) == (self.last < read.start());
        self.is_within(read) || is_next && is_ahead && self.last != read.start()
    }

    /// What of the run that is being read comes before `read`, if that goes on for longer than runs do: a
    /// stream begins there.
    pub(super) fn outrun_by(&self, read: ByteRange) -> Option<ByteRange> {
        let run = self.likely() + (self.likely() / 2).max(PAGE);
        let is_outrun = || read.end() - self.last > run.min(RAMP);
        self.latest()
            .filter(|_| self.is_within(read) && is_outrun())
    }

    /// Notes a read that is one of these.
    pub(super) fn advance(&mut self, read: ByteRange) {
        if !self.is_within(read) {
            let is_exact = Some(read.start()) == self.start(self.steps + 1);
            self.last = read.start();
            self.steps += 1;
            if self.is_exact && !is_exact {
                self.is_exact = false;
                // Of what was planned, the pages around it are missing.
                self.planned = self.steps;
            }
            self.len_before = std::mem::take(&mut self.len);
        }
        self.len = self.len.max(read.end() - self.last);
    }

    /// What was read of the last run.
    pub(super) fn latest(&self) -> Option<ByteRange> {
        ByteRange::new(self.last, self.last + self.len)
    }

    /// Whether the last run begins with `read`.
    pub(super) fn is_at_start(&self, read: ByteRange) -> bool {
        self.last == read.start()
    }

    /// How long the next run is going to be.
    fn likely(&self) -> u64 {
        self.len.max(self.len_before)
    }

    fn is_within(&self, read: ByteRange) -> bool {
        let goes_on = self.last < read.start() && read.start() <= self.last + self.likely();
        goes_on && read.end() < self.last + self.step()
    }

    /// The length of a step, whichever way it goes.
    fn step(&self) -> u64 {
        self.last.abs_diff(self.begun) / self.steps
    }

    /// What was planned from `position` on is not fetched after all.
    pub(super) fn not_fetched_from(&mut self, position: u64) {
        let planned = self.step() * (self.planned + 1).saturating_sub(self.steps);
        if self.last.abs_diff(position) < planned {
            self.planned = self.steps;
        }
    }

    /// Nothing of the next steps is on its way any more.
    pub(super) fn nothing_ahead(&mut self) {
        self.planned = self.steps;
    }

    /// The next steps of an object of `size` bytes that are not fetched yet, `most` bytes of them.
    pub(super) fn ahead(&mut self, size: u64, most: u64) -> Vec<ByteRange> {
        let step = self.step();
        let steps = match self.expected {
            expected if self.steps <= expected => expected - self.steps,
            _ => self.steps - self.supposed,
        };
        let of_long = (self.steps / PART_OF_LONG).min(MOST_OF_LONG);
        let of_long = of_long.min(RAMP / self.likely().max(1));
        let steps = steps.min(MOST.max(RAMP / step.max(1)).max(of_long));
        let steps = steps.min(most / self.likely());
        let are_close = step <= self.likely() + JOINED;
        if are_close && self.planned > self.steps + steps / 2 {
            return Vec::new();
        }
        // The rest of the last one comes along.
        let first = self.steps.max(self.planned + 1);
        let end = self.steps + steps;
        self.planned = self.planned.max(end);
        let nth = |nth| {
            let is_known = self.is_exact || nth == self.steps;
            let slack = if is_known { 0 } else { 2 * PAGE };
            let start = self.start(nth)?;
            let end = (start + self.likely() + slack).min(size);
            ByteRange::new(start.saturating_sub(slack), end)
        };
        let all = (first..=end).filter_map(nth);
        if are_close {
            let join = |a: ByteRange, b: ByteRange| {
                let (start, end) = (a.start().min(b.start()), a.end().max(b.end()));
                ByteRange::new(start, end).unwrap_or(a)
            };
            let joined = all.reduce(join);
            return joined.into_iter().collect();
        }
        all.collect()
    }

    /// Where the read so many steps after the first begins, unless that is before the object does.
    fn start(&self, steps: u64) -> Option<u64> {
        let all = i128::from(distance(self.begun, self.last));
        let from_first = all * i128::from(steps) / i128::from(self.steps);
        u64::try_from(i128::from(self.begun) + from_first).ok()
    }
}

/// How far it is from one position to another, less than 0 if that is back.
pub(super) fn distance(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Reads of `len` bytes every `step` bytes, as the kernel asks for them; how many were not fetched
    /// ahead, and how many bytes were fetched for each byte read.
    fn read(step: u64, len: u64, count: u64) -> (usize, f64) {
        let pages = |nth: u64| {
            let (start, end) = (nth * step + 77, nth * step + 77 + len);
            ByteRange::new(start / PAGE * PAGE, end.next_multiple_of(PAGE)).expect("not empty")
        };
        let mut strides = Strides::of([0, 1, 2].map(pages)).expect("equal");
        let mut fetched = strides.ahead(u64::MAX, 64 * MIB);
        let mut absent = 0;
        for nth in 3..count {
            let read = pages(nth);
            assert!(strides.has(read), "step {nth}");
            let holds = |it: &&ByteRange| it.start() <= read.start() && read.end() <= it.end();
            absent += usize::from(!fetched.iter().any(|it| holds(&it)));
            strides.advance(read);
            fetched.extend(strides.ahead(u64::MAX, 64 * MIB));
        }
        let bytes: u64 = fetched.iter().map(|it| it.len()).sum();
        #[expect(clippy::cast_precision_loss, reason = "few")]
        (absent, bytes as f64 / (count * len) as f64)
    }

    #[test]
    fn steps_of_whole_pages_are_fetched_to_the_byte() {
        let (absent, fetched) = read(17 * MIB, MIB - PAGE, 400);
        assert_eq!(absent, 0);
        assert!(fetched < 1.1, "{fetched}");
    }

    #[test]
    fn steps_of_any_length_are_found_and_met() {
        for step in [1_234_568, 3_000_001, 150_004, 40_000_000] {
            let (absent, fetched) = read(step, 64 << 10, 400);
            assert!(absent <= 2, "{absent} of {step}");
            assert!(fetched < 1.5, "{fetched} of {step}");
        }
    }

    /// How many steps are on their way after so many steps of 10 MiB.
    fn ahead_after(steps: u64, len: u64) -> u64 {
        let step = |nth: u64| ByteRange::new(nth * 10 * MIB, nth * 10 * MIB + len).expect("some");
        let mut strides = Strides::of([0, 1, 2].map(step)).expect("equal");
        for nth in 3..=steps {
            strides.advance(step(nth));
            strides.ahead(u64::MAX, 64 * MIB);
        }
        strides.planned - steps
    }

    #[test]
    fn of_long_runs_of_small_steps_more_are_on_their_way() {
        assert_eq!(ahead_after(20, 65536), 20);
        assert_eq!(ahead_after(200, 65536), 32);
        assert_eq!(ahead_after(400, 65536), 50);
        assert_eq!(ahead_after(1000, 65536), 64);
        assert_eq!(ahead_after(1000, MIB), 32);
    }

    /// The times of a file from its last to its first; each is read forward.
    #[test]
    fn steps_back_are_found_and_met_down_to_the_start() {
        for (step, pieces) in [(9 * MIB, 1), (3_000_001, 2), (40_000_000, 3)] {
            let run = |nth: u64, piece: u64| {
                let start = ((400 - nth) * step / PAGE + piece * 16) * PAGE;
                ByteRange::new(start, start + 64 * 1024).expect("not empty")
            };
            let whole = |nth| {
                let (start, end) = (run(nth, 0).start(), run(nth, pieces - 1).end());
                ByteRange::new(start, end).expect("some")
            };
            let mut strides = Strides::of([whole(0), whole(1), run(2, 0)]).expect("equal");
            let mut fetched = strides.ahead(u64::MAX, 64 * MIB);
            let mut absent: u64 = 0;
            for (nth, piece) in (3..=390).flat_map(|nth| (0..pieces).map(move |it| (nth, it))) {
                let read = run(nth, piece);
                assert!(strides.has(read), "step {nth}, piece {piece} of {step}");
                let holds = |it: &&ByteRange| it.start() <= read.start() && read.end() <= it.end();
                absent += u64::from(!fetched.iter().any(|it| holds(&it)));
                strides.advance(read);
                fetched.extend(strides.ahead(u64::MAX, 64 * MIB));
            }
            assert!(absent <= 2 * pieces, "{absent} of {step}");
            let bytes: u64 = fetched.iter().map(|it| it.len()).sum();
            assert!(bytes <= 400 * pieces * 3 * 64 * 1024, "{bytes} of {step}");
        }
    }

    /// The kernel asks for much in several pieces.
    #[test]
    fn runs_of_several_reads_come_whole() {
        let run = |nth: u64, piece: u64| {
            let start = nth * 17 * MIB + piece * MIB;
            ByteRange::new(start, start + MIB).expect("not empty")
        };
        let whole = |nth| ByteRange::new(run(nth, 0).start(), run(nth, 2).end()).expect("some");
        let mut strides = Strides::of([whole(0), whole(1), run(2, 0)]).expect("equal");
        let mut fetched = strides.ahead(u64::MAX, 64 * MIB);
        for (nth, piece) in [(2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (4, 0)] {
            assert!(strides.has(run(nth, piece)), "{nth}, {piece}");
            strides.advance(run(nth, piece));
            fetched.extend(strides.ahead(u64::MAX, 64 * MIB));
        }
        assert_eq!(fetched, (2..=8).map(whole).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_beyond_the_end_and_no_more_than_there_is_room_for() {
        let reads = [0, 10, 20].map(|mib| ByteRange::new(mib * MIB, (mib + 1) * MIB));
        let strides = || Strides::of(reads.map(|read| read.expect("not empty"))).expect("equal");
        let ahead = |size, most| {
            let ahead = strides().ahead(size, most);
            assert_eq!(ahead[0].start(), 20 * MIB, "of the last run it is the rest");
            ahead.len() - 1
        };
        assert_eq!(ahead(35 * MIB, 64 * MIB), 1);
        assert_eq!(ahead(1 << 40, 64 * MIB), 2);
        assert_eq!(ahead(1 << 40, MIB), 1);
        assert_eq!(ahead(1 << 40, MIB / 2), 0);
    }

    #[test]
    fn what_differs_is_no_stride() {
        let of = |starts: [u64; 3]| {
            Strides::of(starts.map(|at| ByteRange::new(at, at + 8192).expect("not empty")))
        };
        assert!(of([0, MIB, 3 * MIB]).is_none());
        assert!(of([3 * MIB, 2 * MIB, 3 * MIB]).is_none(), "back and forth");
        assert!(of([0, 8192, 16384]).is_none(), "one after the other");
    }
}
