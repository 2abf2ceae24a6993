//! Whether the first bytes of a file are worth fetching along with the lookup of its name.
//!
//! They save a round trip where a program opens and reads what it has looked up, and are wasted on one
//! that only looks. Each file that is read right after its lookup earns credit, each such fetch costs
//! some, so that it goes on with reads and ends by itself. The first ones are on credit.

use std::num::NonZeroU64;

use lru::LruCache;

use crate::reader::Credit;
use crate::sync::{Mutex, lock};

/// Files looked up of which it is remembered that they are not read yet.
const REMEMBERED: usize = 256;

#[derive(Debug)]
pub(super) struct Along(Mutex<State>);

#[derive(Debug)]
struct State {
    credit: Credit,
    /// Versions that S3 was asked for by name, and not read since.
    asked: LruCache<NonZeroU64, ()>,
}

impl Default for Along {
    fn default() -> Self {
        let remembered = std::num::NonZeroUsize::new(REMEMBERED).expect("not zero");
        Self(Mutex::new(State {
            credit: Credit::default(),
            asked: LruCache::new(remembered),
        }))
    }
}

impl Along {
    /// Whether to fetch along with the next lookup, which is paid for then.
    pub(super) fn spend(&self) -> bool {
        lock(&self.0).credit.spend()
    }

    /// Notes that S3 was asked for this version by name.
    pub(super) fn asked(&self, version: NonZeroU64) {
        lock(&self.0).asked.put(version, ());
    }

    /// Notes that the beginning of this version is read.
    pub(super) fn read(&self, version: NonZeroU64) {
        let mut state = lock(&self.0);
        if state.asked.pop(&version).is_some() {
            state.credit.earn();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_read_after_their_lookup_earn_more() {
        let along = Along::default();
        let left = || (0..100).filter(|_| along.spend()).count();
        let number = |n| NonZeroU64::MIN.saturating_add(n);
        assert!(left() > 0, "on credit");
        along.asked(number(3));
        assert_eq!(left(), 0);
        along.read(number(3));
        assert!(left() > 0);
        // Read again, or listed and not looked up.
        along.read(number(3));
        along.read(number(4));
        assert_eq!(left(), 0);
    }
}
