//! Scans: reads that go forward through an object and leave out parts of it, each of another length, such as
//! the headers of the members of a tar file, or the messages of a GRIB file that are wanted. What they leave
//! out is fetched as well, as long as that takes less time than a request for each of them.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::forward::{RAMP, START};

/// Where more is left out than this, a request for each read costs less ...
const MOST: u64 = RAMP;
/// ... and where it is more than one in so many bytes of the object, reads all over that may look like a
/// scan by chance.
const ONE_IN: u64 = 32;
/// What a scan may leave out now and then, as a multiple.
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
    /// What reads of an object of `size` bytes may leave out until they are known for a scan.
    pub(super) fn most(size: u64) -> u64 {
        MOST.min(size / ONE_IN)
    }

    /// Four steps over these bytes of an object of `size` bytes since `begun`, after another one that ended, `old`. With
    /// it comes how much to fetch ahead.
    pub(super) fn new(
        over: Range<u64>,
        begun: Instant,
        size: u64,
        old: Option<&Self>,
        now: Instant,
    ) -> (Self, u64) {
        let step = (over.end - over.start) / 4;
        let before = (now - begun) / 4;
        let scan = Self {
            most: (FAR * MOST).min(size / ONE_IN),
            // What the old one still had on its way may have held these up.
            before: old.map_or(before, |old| old.before.min(before)),
            since: now,
            steps: 0,
        };
        (scan, (AHEAD * step).clamp(START, 3 * RAMP))
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
        (self.since, self.steps) = (now, 0);
        Some(is_faster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    #[test]
    fn a_few_steps_are_fetched_ahead_at_first() {
        let now = Instant::now();
        let window = |step| Scan::new(MIB..MIB + 4 * step, now, 1 << 40, None, now).1;
        assert_eq!(window(MIB / 16), MIB);
        assert_eq!(window(MIB), 6 * MIB);
        assert_eq!(window(5 * MIB), 24 * MIB);
    }

    #[test]
    fn no_more_is_left_out_than_what_is_worth_it_and_no_chance() {
        assert_eq!(Scan::most(1 << 40), MOST);
        assert_eq!(Scan::most(64 * MIB), 2 * MIB);
        // Now and then it is more.
        let now = Instant::now();
        let reaches = |size| {
            let scan = Scan::new(0..4 * MIB, now, size, None, now).0;
            (0..64).rfind(|mib| scan.has(mib * MIB, 0))
        };
        assert_eq!(reaches(1 << 40), Some(32));
        assert_eq!(reaches(64 * MIB), Some(2));
    }

    /// A scan of which steps took so many milliseconds before, after `old`.
    fn after(millis: u64, old: Option<&Scan>) -> (Scan, Instant) {
        let begun = Instant::now();
        let now = begun + 4 * Duration::from_millis(millis);
        (Scan::new(0..4 * MIB, begun, 1 << 40, old, now).0, now)
    }

    /// What its first verdict is, where steps take so many milliseconds now.
    fn verdict((mut scan, mut now): (Scan, Instant), millis: u64) -> Option<bool> {
        let mut verdict = None;
        for _ in 0..JUDGED_AFTER {
            assert_eq!(verdict, None, "too soon");
            now += Duration::from_millis(millis);
            verdict = scan.step(now);
        }
        verdict
    }

    #[test]
    fn it_is_worth_it_as_long_as_it_is_faster_than_ever_before() {
        assert_eq!(verdict(after(30, None), 5), Some(true));
        assert_eq!(verdict(after(30, None), 40), Some(false));
        let (old, _) = after(30, None);
        assert_eq!(verdict(after(110, Some(&old)), 50), Some(false));
        assert_eq!(verdict(after(20, Some(&old)), 25), Some(false));
    }
}
