//! A backward sequence of reads, and how far before it to fetch.

use super::forward::START;
use crate::s3::ByteRange;

/// The largest window, in GETs of [`START`].
const MOST: u64 = 32 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Backward {
    /// Down to where fetches are planned.
    planned: u64,
    /// How far before the last read to plan.
    window: u64,
}

impl Backward {
    pub(super) fn new(planned: u64, window: u64) -> Self {
        Self { planned, window }
    }

    /// What to fetch for `read` if it is absent: where it is not planned, with what lies before it.
    pub(super) fn fetch(&mut self, read: ByteRange) -> ByteRange {
        if read.start() >= self.planned {
            return read;
        }
        self.planned = read.start().saturating_sub(self.window.min(START));
        ByteRange::new(self.planned, read.end()).unwrap_or(read)
    }

    /// What to fetch now before what is planned, what is read first at the beginning. The window doubles each
    /// time, up to `most` bytes.
    pub(super) fn extend(&mut self, read: ByteRange, most: u64) -> Vec<ByteRange> {
        let mut parts = Vec::new();
        if read.start().saturating_sub(self.window / 2) >= self.planned {
            return parts;
        }
        self.window = (2 * self.window).min(MOST).min(most);
        let down_to = read.start().saturating_sub(self.window);
        while down_to < self.planned {
            let end = self.planned;
            self.planned = ((end - 1) / START * START).max(down_to);
            parts.extend(ByteRange::new(self.planned, end));
        }
        parts
    }

    /// Nothing before the `last` read is on its way any more.
    pub(super) fn nothing_ahead(&mut self, last: ByteRange) {
        self.planned = last.start();
    }

    /// `part` and what was planned to come after it are not fetched after all; `last` is the last read.
    pub(super) fn not_fetched(&mut self, part: ByteRange, last: ByteRange) {
        if (self.planned..last.start()).contains(&part.start()) {
            self.planned = part.end();
        }
    }
}
