//! Scans: reads that go forward through an object and leave out parts of it, each of another length, such as
//! the headers of the members of a tar file, or the messages of a GRIB file that are wanted. What they leave
//! out is fetched as well, as long as that takes less time than a request for each of them.

use std::time::Duration;

use tokio::time::Instant;

use super::forward::{RAMP, START};
use crate::s3::ByteRange;

/// Where more is left out than this, a request for each read costs less ...
const MOST: u64 = RAMP;
/// ... and where it is more than one in so many bytes of the object, reads all over that may look like a
/// scan by chance.
const PART: u64 = 32;
/// What a scan that is known to be one may leave out now and then, as a multiple.
const FAR: u64 = 4;
/// The window is to hold so many steps at first.
const AHEAD: u64 = 6;
/// So many steps are timed.
const JUDGED_AFTER: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Scan {
    /// What may be left out before the next read, in bytes.
    most: u64,
    /// How long a step took when each waited for its request.
    before: Duration,
    /// Since when steps are counted now.
    since: Instant,
    steps: u32,
}

impl Scan {
    /// Four runs that were read since `begun`, and `read`, each ahead of the one before, in an object of `size`
    /// bytes. With it comes how much to fetch ahead.
    pub(super) fn of(
        runs: [ByteRange; 4],
        begun: Instant,
        read: ByteRange,
        size: u64,
        now: Instant,
    ) -> Option<(Self, u64)> {
        let most = MOST.min(size / PART);
        let ends = runs.iter().map(|run| run.end());
        let starts = runs[1..].iter().chain([&read]).map(|next| next.start());
        let is_step = |(end, start): (u64, u64)| (end..=end + most).contains(&start);
        if !ends.zip(starts).all(is_step) {
            return None;
        }
        let step = (read.start() - runs[0].start()) / runs.len() as u64;
        let scan = Self {
            most,
            before: (now - begun) / 4,
            since: now,
            steps: 0,
        };
        Some((scan, (AHEAD * step).clamp(START, 3 * RAMP)))
    }

    /// Whether a read at `start` goes on with it, where `next` is right behind the last one.
    pub(super) fn has(&self, start: u64, next: u64) -> bool {
        (next..=next + self.most).contains(&start)
    }

    /// Notes a step. Once in a while, whether they take less time by now.
    pub(super) fn step(&mut self, now: Instant) -> Option<bool> {
        self.steps += 1;
        if self.steps < JUDGED_AFTER {
            return None;
        }
        let is_faster = now - self.since < self.before * self.steps;
        if is_faster && self.most <= MOST {
            self.most *= FAR;
        }
        (self.since, self.steps) = (now, 0);
        Some(is_faster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// A scan of reads that began at these places, each after so many milliseconds.
    fn of(starts: [u64; 5], size: u64, millis: u64, now: Instant) -> Option<(Scan, u64)> {
        let [runs @ .., read] = starts.map(|at| ByteRange::new(at, at + 8192).expect("not empty"));
        let step = Duration::from_millis(millis);
        Scan::of(runs, now, read, size, now + 4 * step)
    }

    #[test]
    fn reads_ahead_of_one_another_are_one_if_they_are_close() {
        let is_one = |starts, size| of(starts, size, 30, Instant::now()).is_some();
        let close = [0, 1, 4, 5, 12].map(|nth| nth * MIB);
        assert!(is_one(close, GIB));
        assert!(!is_one(close, GIB / 8), "all over an object of this size");
        assert!(!is_one([0, 1, 4, 3, 12].map(|nth| nth * MIB), GIB));
        assert!(!is_one([0, 1, 4, 5, 14].map(|nth| nth * MIB), GIB), "far");
    }

    #[test]
    fn a_few_steps_are_fetched_ahead_at_first() {
        let window = |step| {
            let starts = [1, 2, 3, 4, 5].map(|nth| nth * step);
            of(starts, GIB, 30, Instant::now()).map(|(_, window)| window)
        };
        assert_eq!(window(MIB / 16), Some(MIB));
        assert_eq!(window(MIB), Some(6 * MIB));
        assert_eq!(window(5 * MIB), Some(24 * MIB));
    }

    /// What the first verdict is, where steps took 30 ms before.
    fn verdict(millis: u64) -> (Option<bool>, Scan) {
        let mut now = Instant::now();
        let (mut scan, _) = of([0, 1, 2, 3, 4].map(|nth| nth * MIB), GIB, 30, now).expect("one");
        now = scan.since;
        let mut verdict = None;
        for _ in 0..JUDGED_AFTER {
            assert_eq!(verdict, None, "too soon");
            now += Duration::from_millis(millis);
            verdict = scan.step(now);
        }
        (verdict, scan)
    }

    #[test]
    fn it_is_worth_it_as_long_as_it_is_faster() {
        let (is_faster, scan) = verdict(5);
        assert_eq!(is_faster, Some(true));
        assert!(scan.has(40 * MIB, 10 * MIB), "leaves out much now and then");
        let (is_faster, scan) = verdict(40);
        assert_eq!(is_faster, Some(false));
        assert!(scan.has(18 * MIB, 10 * MIB) && !scan.has(19 * MIB, 10 * MIB));
    }
}
