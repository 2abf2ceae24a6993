//! What is learnt of runs: reads that follow one another and end, as those of a chunk of an array, a row of
//! tiles, a member of a zip file. How long the next one will be, and whether a read is the start of one.

use std::collections::VecDeque;

use super::cursor::LARGE;
use super::cursors::STREAMS_READ;
use super::forward::START;
use crate::s3::ByteRange;

/// With so much evidence, what follows a read comes along.
const EVIDENCE: i32 = 2;
/// Runs whose length is remembered.
const REMEMBERED: usize = 4;

/// Whether reads turned out to be the start of more, lately: up if so, down if not.
#[derive(Debug)]
pub(super) struct Runs {
    /// Of headers, as of the members of a zip file: the start of so much that it is worth a request.
    small: i32,
    large: i32,
    /// Of the largest reads that the kernel sends: until known better, they are the start of more.
    full: i32,
    /// How long runs were, in bytes.
    lens: VecDeque<u64>,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            small: 0,
            large: 0,
            full: EVIDENCE,
            lens: VecDeque::new(),
        }
    }
}

impl Runs {
    fn of(&mut self, read: u64) -> &mut i32 {
        match read {
            ..LARGE => &mut self.small,
            LARGE..START => &mut self.large,
            START.. => &mut self.full,
        }
    }

    /// Whether a read of `len` bytes that follows no other is probably the start of more; it counts as one
    /// that is not until something follows.
    pub(super) fn is_start(&mut self, len: u64) -> bool {
        let evidence = self.of(len);
        let is_start = *evidence >= EVIDENCE;
        *evidence = (*evidence - 1).max(-2 * EVIDENCE);
        is_start
    }

    /// More followed a first read of `len` bytes.
    fn followed(&mut self, len: u64) {
        let evidence = self.of(len);
        *evidence = (*evidence + 2).min(2 * EVIDENCE);
    }

    /// A second read followed a first one of `first` bytes. How much follows a small one is known when the
    /// run is over.
    pub(super) fn goes_on(&mut self, first: u64) {
        if first >= LARGE {
            self.followed(first);
        }
    }

    /// Notes a run that is over, which began with a read of `first` bytes, and that the next one begins at
    /// `next`. Where less than a run lies between them, it is as well to fetch ahead through that.
    pub(super) fn ended(&mut self, run: ByteRange, first: u64, next: u64) {
        if first < LARGE && run.len() >= STREAMS_READ {
            self.followed(first);
        }
        let is_close = (run.start()..run.end() + run.len()).contains(&next);
        if self.lens.len() == REMEMBERED {
            self.lens.pop_front();
        }
        let len = if is_close {
            next - run.start()
        } else {
            run.len()
        };
        self.lens.push_back(len);
    }

    /// How long the next run will be, in bytes, if some are known.
    pub(super) fn likely(&self) -> Option<u64> {
        let longest = self.lens.iter().max()?;
        (self.lens.len() >= REMEMBERED / 2).then_some(*longest)
    }
}
