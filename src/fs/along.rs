//! Whether the first bytes of a file are worth fetching along with the lookup of its name.
//!
//! They save a round trip where a program opens and reads what it has looked up, and are wasted on one
//! that only looks. Each file that is read right after its lookup earns credit, each such fetch costs
//! some, so that it begins after the first read and ends by itself.

use std::num::NonZeroU64;

use lru::LruCache;

use crate::sync::{Mutex, lock};

/// What one file that is read earns, in fetches.
const EARNED: u32 = 2;
/// So many fetches in vain end it.
const MOST: u32 = 8;
/// Files looked up of which it is remembered that they are not read yet.
const REMEMBERED: usize = 256;

#[derive(Debug)]
pub(super) struct Along(Mutex<State>);

#[derive(Debug)]
struct State {
    credit: u32,
    /// Versions that S3 was asked for by name, and not read since.
    asked: LruCache<NonZeroU64, ()>,
}

impl Default for Along {
    fn default() -> Self {
        let remembered = std::num::NonZeroUsize::new(REMEMBERED).expect("not zero");
        Self(Mutex::new(State {
            credit: 0,
            asked: LruCache::new(remembered),
        }))
    }
}

impl Along {
    /// Whether to fetch along with the next lookup, which is paid for then.
    pub(super) fn spend(&self) -> bool {
        let credit = &mut lock(&self.0).credit;
        let is_worth_it = *credit > 0;
        *credit = credit.saturating_sub(1);
        is_worth_it
    }

    /// Notes that S3 was asked for this version by name.
    pub(super) fn asked(&self, version: NonZeroU64) {
        lock(&self.0).asked.put(version, ());
    }

    /// Notes that the beginning of this version is read.
    pub(super) fn read(&self, version: NonZeroU64) {
        let mut state = lock(&self.0);
        if state.asked.pop(&version).is_some() {
            state.credit = (state.credit + EARNED).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_read_goes_on_with_reads_and_ends_without() {
        let along = Along::default();
        let number = |n| NonZeroU64::MIN.saturating_add(n);
        assert!(!along.spend());
        for n in 0..20 {
            along.asked(number(n));
            along.read(number(n));
            assert!(along.spend());
        }
        // Read again, or listed and not looked up: earns nothing.
        along.read(number(3));
        let in_vain = (0..100).filter(|_| along.spend()).count();
        assert!(in_vain <= MOST as usize, "{in_vain}");
    }
}
