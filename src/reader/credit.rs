//! Whether guesses of a kind are still worth their bytes.

use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// What a guess that is used earns, in guesses.
const EARNED: u32 = 2;
/// So many in vain end them ...
const MOST: u32 = 8;
/// ... and so many a mount begins with.
const FIRST: u32 = 2;

/// Guesses that may still be made. They go on with use, and end by themselves without.
#[derive(Debug)]
pub struct Credit(u32);

/// One of these guesses, by which it is seen whether they are used.
#[derive(Debug, Default)]
pub(super) struct Guess {
    is_open: AtomicBool,
}

impl Guess {
    /// Whether to guess, on `credit`.
    pub(super) fn make(&self, credit: &Mutex<Credit>) -> bool {
        // What was not guessed for want of credit would have been used, too, if it is.
        self.is_open.store(true, Ordering::Relaxed);
        lock(credit).spend()
    }

    /// Notes that it is used.
    pub(super) fn used(&self, credit: &Mutex<Credit>) {
        if self.is_open.swap(false, Ordering::Relaxed) {
            lock(credit).earn();
        }
    }
}

impl Default for Credit {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Credit {
    /// For guesses that are mostly right.
    pub(super) fn most() -> Self {
        Self(MOST)
    }

    /// Whether to guess once more, which is paid for then.
    pub fn spend(&mut self) -> bool {
        let is_worth_it = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        is_worth_it
    }

    /// Notes that a guess was used, or would have been.
    pub fn earn(&mut self) {
        self.0 = (self.0 + EARNED).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_guesses_at_first_more_with_use_and_none_without() {
        let mut credit = Credit::default();
        assert_eq!((0..100).filter(|_| credit.spend()).count(), FIRST as usize);
        for _ in 0..20 {
            credit.earn();
            assert!(credit.spend());
        }
        let in_vain = (0..100).filter(|_| credit.spend()).count();
        assert_eq!(in_vain, MOST as usize - 1);
    }
}
