//! Names that the kernel is to forget, and when.
//!
//! It forgets a name under the lock of its directory: it waits for the lookups and listings there, which
//! may be slow, and whoever comes later waits as well. So a name is told only while nothing is under way
//! in its directory.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;

use crate::sync::{Arc, Condvar, Mutex, lock};

/// What does not fit is found out when the kernel's entry times out.
const MOST: usize = 1024;

/// What the kernel is to forget, by the inode numbers of directories.
#[derive(Debug, Default)]
pub struct Changes {
    state: Mutex<State>,
    is_due: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: VecDeque<(NonZeroU64, String)>,
    /// Lookups and listings.
    under_way: HashMap<u64, usize>,
    /// For these to end.
    waiting: HashMap<u64, HashSet<String>>,
    is_closed: bool,
}

impl State {
    fn next(&mut self) -> Option<(NonZeroU64, String)> {
        if self.is_closed {
            return None;
        }
        while let Some((parent, name)) = self.due.pop_front() {
            if !self.under_way.contains_key(&parent.get()) {
                return Some((parent, name));
            }
            self.waiting.entry(parent.get()).or_default().insert(name);
        }
        None
    }
}

impl Changes {
    /// One name, if there is room for it.
    pub(super) fn add(&self, parent: NonZeroU64, name: String) {
        let mut state = lock(&self.state);
        if state.due.len() < MOST {
            state.due.push_back((parent, name));
            self.is_due.notify_one();
        }
    }

    /// All names, and none of those before.
    pub(super) fn replace(&self, names: Vec<(NonZeroU64, String)>) {
        let mut state = lock(&self.state);
        state.waiting.clear();
        state.due = names.into();
        self.is_due.notify_one();
    }

    /// From now on, no name is told.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
    }

    /// Waits for a name to tell of, with the inode number of its directory.
    pub fn next(&self) -> (NonZeroU64, String) {
        let mut state = lock(&self.state);
        loop {
            if let Some(next) = state.next() {
                return next;
            }
            let woken = self.is_due.wait(state);
            state = woken.unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Notes that something goes on in the directory `inode`, until the answer is dropped.
    pub(super) fn under_way(self: &Arc<Self>, inode: u64) -> UnderWay {
        *lock(&self.state).under_way.entry(inode).or_default() += 1;
        UnderWay {
            changes: Arc::clone(self),
            inode,
        }
    }

    fn ended(&self, inode: u64) {
        let mut state = lock(&self.state);
        if let Some(count) = state.under_way.get_mut(&inode) {
            *count -= 1;
            if *count > 0 {
                return;
            }
        }
        state.under_way.remove(&inode);
        let names = state.waiting.remove(&inode).unwrap_or_default();
        if let Some(parent) = NonZeroU64::new(inode)
            && !names.is_empty()
        {
            state
                .due
                .extend(names.into_iter().map(|name| (parent, name)));
            self.is_due.notify_one();
        }
    }
}

/// A lookup or a listing that the kernel waits for.
#[derive(Debug)]
pub struct UnderWay {
    changes: Arc<Changes>,
    inode: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.changes.ended(self.inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_told_when_nothing_is_under_way_in_their_directory() {
        let changes = Arc::new(Changes::default());
        let [busy, idle] = [7, 8].map(|inode| NonZeroU64::new(inode).expect("not zero"));
        let lookups = [7, 7].map(|inode| changes.under_way(inode));
        for _ in 0..2 {
            changes.add(busy, "a".to_owned());
        }
        changes.add(idle, "b".to_owned());
        assert_eq!(changes.next(), (idle, "b".to_owned()));
        let [first, last] = lookups;
        drop(first);
        assert_eq!(lock(&changes.state).next(), None);
        drop(last);
        assert_eq!(changes.next(), (busy, "a".to_owned()));
        let state = lock(&changes.state);
        assert!(state.due.is_empty() && state.under_way.is_empty() && state.waiting.is_empty());
    }
}
