//! Reads and runs of reads in the order in which they began, and which of them begin in equal steps.
//!
//! Several such sequences may go on in turn: those of some variables of each record, or of several arrays. Many
//! steps that were made before, as those through the rows of a part of an array of three dimensions, are made
//! again in each plane. Few are rather those from one array to the next where all are read in turn, each in
//! longer steps of its own.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::strides::{PAGE, Strides, distance};
use crate::s3::ByteRange;

/// So many sequences of equal steps may go on in turn.
const IN_TURN: usize = 24;
/// Lengths of steps that are remembered.
const REMEMBERED: usize = 4;
/// A scan is looked for among the latest so many runs.
const RECENT: usize = 16;
/// So many runs make it one with the read that they lead to.
const LEADING: usize = 4;
/// So many steps are followed as soon as they come again.
const MANY: u64 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Runs, and when they began, the latest first.
    runs: VecDeque<(ByteRange, Instant)>,
    /// How many there have been.
    begun: usize,
    /// Equal steps that ended.
    made: VecDeque<Row>,
}

#[derive(Debug)]
struct Row {
    /// In bytes.
    step: i64,
    steps: u64,
}

impl Row {
    fn has(&self, run: ByteRange, next: ByteRange) -> bool {
        distance(run.start(), next.start()).abs_diff(self.step) <= PAGE
    }
}

impl Starts {
    /// Notes a run that begins with `read`; its number.
    pub(super) fn begin(&mut self, read: ByteRange, now: Instant) -> usize {
        self.runs.truncate(3 * IN_TURN);
        self.runs.push_front((read, now));
        self.begun += 1;
        self.begun
    }

    /// Notes that the run of this number goes on to `end`.
    pub(super) fn extend(&mut self, number: usize, end: u64) {
        if let Some((run, _)) = self.runs.get_mut(self.begun - number) {
            *run = ByteRange::new(run.start(), end).unwrap_or(*run);
        }
    }

    /// Notes that `steps` of `step` bytes were made.
    pub(super) fn note(&mut self, (step, steps): (i64, u64)) {
        self.made.retain(|row| row.step.abs_diff(step) > PAGE);
        if self.made.len() == REMEMBERED {
            self.made.pop_front();
        }
        self.made.push_back(Row { step, steps });
    }

    /// The equal steps that `read` goes on with.
    pub(super) fn strides(&self, read: ByteRange) -> Option<Strides> {
        // How many runs before this one, and how long those before each of them.
        let run = |before: usize| Some(self.runs.get(before.checked_sub(1)?)?.0);
        let next = |lag| Strides::of([run(2 * lag)?, run(lag)?, read]);
        let was_next = |before, lag| {
            let first = run(before + 2 * lag);
            let strides = || Strides::of([first?, run(before + lag)?, run(before)?]);
            strides().is_some()
        };
        // Once is chance, unless it was so with the run before, too, or once more.
        let both = |lag: usize| next(lag).filter(|_| was_next(1, lag));
        let twice = |lag: usize| next(lag).filter(|_| was_next(lag, lag));
        // Where each array is read in short steps, from one to another there are long ones.
        let shortest = |strides: &dyn Fn(usize) -> Option<Strides>| {
            let all = (2..=IN_TURN).filter_map(strides);
            all.min_by_key(|strides| strides.made().0.unsigned_abs())
        };
        let is_between_arrays = || {
            run(1).is_some_and(|last| self.are_few(last, read))
                && (2..=IN_TURN).any(|lag| was_next(1, lag))
        };
        next(1)
            .filter(|_| !is_between_arrays())
            .or_else(|| self.again(read))
            .or_else(|| shortest(&both))
            .or_else(|| shortest(&twice))
    }

    /// Where the first of some runs lies, and when it began, of which each lies before the next one and the last
    /// before `read`, with at most so many bytes between them, and none elsewhere near. Other sequences may go on
    /// in between, far from there.
    pub(super) fn leading_to(&self, read: ByteRange, most: u64) -> Option<(u64, Instant)> {
        let (mut next, mut count) = (read.start(), 0);
        for (run, since) in self.runs.iter().take(RECENT) {
            if (run.end()..=run.end() + most).contains(&next) {
                next = run.start();
                count += 1;
            } else if next < run.end() + most && run.start() < read.end() + most {
                return None;
            }
            if count == LEADING {
                return Some((next, *since));
            }
        }
        None
    }

    fn are_few(&self, run: ByteRange, read: ByteRange) -> bool {
        let is_it = |row: &Row| row.steps < MANY && row.has(run, read);
        self.made.iter().any(is_it)
    }

    /// Many steps that were made before and begin again here, from one of the latest runs.
    fn again(&self, read: ByteRange) -> Option<Strides> {
        self.runs.iter().take(IN_TURN).find_map(|(run, _)| {
            let is_it = |row: &&Row| row.steps >= MANY && row.has(*run, read);
            let row = self.made.iter().find(is_it)?;
            Strides::again(*run, read, row.step, row.steps)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64) -> ByteRange {
        ByteRange::new(start, start + 8192).expect("not empty")
    }

    #[test]
    fn many_steps_begin_again_with_the_first() {
        let mut starts = Starts::default();
        starts.begin(range(90 * MIB), Instant::now());
        let again = |starts: &Starts, step| starts.strides(range(90 * MIB + step)).is_some();
        assert!(!again(&starts, MIB));
        starts.note((MIB.cast_signed(), 20));
        assert!(again(&starts, MIB) && again(&starts, MIB + PAGE) && !again(&starts, 2 * MIB));
        starts.note((MIB.cast_signed(), 3));
        assert!(!again(&starts, MIB));
        starts.note((MIB.cast_signed(), 20));
        starts.begin(range(95 * MIB), Instant::now());
        assert!(again(&starts, MIB), "another reader's run came between");
    }

    #[test]
    fn the_last_few_lengths_are_remembered() {
        let mut starts = Starts::default();
        starts.begin(range(0), Instant::now());
        for step in 1..10 {
            starts.note(((step * MIB).cast_signed(), 9));
        }
        let is_known = |step: &u64| starts.strides(range(step * MIB)).is_some();
        let known: Vec<_> = (1..10).filter(is_known).collect();
        assert_eq!(known, [6, 7, 8, 9]);
    }

    #[test]
    fn a_run_that_fills_its_step_is_none() {
        let mut starts = Starts::default();
        starts.begin(range(0), Instant::now());
        let number = starts.begin(range(MIB), Instant::now());
        starts.extend(number, MIB + 8192);
        assert!(starts.strides(range(2 * MIB)).is_some());
        starts.extend(number, 2 * MIB);
        assert!(starts.strides(range(2 * MIB)).is_none());
        for nth in 0..100 {
            starts.begin(range(nth * nth * MIB), Instant::now());
        }
        starts.extend(number, 3 * MIB);
    }

    #[test]
    fn runs_lead_to_a_read_over_short_gaps_only() {
        let leads = |runs: &[u64]| {
            let mut starts = Starts::default();
            let [before @ .., read] = runs else {
                return None;
            };
            for start in before {
                starts.begin(range(start * MIB), Instant::now());
            }
            let (first, _) = starts.leading_to(range(read * MIB), 8 * MIB)?;
            Some(first / MIB)
        };
        assert_eq!(leads(&[70, 0, 1, 4, 5, 12]), Some(0));
        assert_eq!(leads(&[1, 4, 5, 12]), None);
        assert_eq!(leads(&[0, 1, 4, 3, 12]), None);
        assert_eq!(leads(&[0, 1, 4, 5, 14]), None, "far");
        // Two readers at a time.
        let two = [0, 500, 1, 503, 4, 509, 5, 510, 12];
        assert_eq!(leads(&two), Some(0));
        assert_eq!(leads(&[0, 1, 6, 4, 5, 12]), None, "back and forth");
    }
}
