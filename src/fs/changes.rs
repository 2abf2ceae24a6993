//! What the kernel is to forget, and when: names, and pages that it keeps of open directories.
//!
//! It forgets a name under the lock of its directory: it waits for the lookups and listings there, which
//! may be slow, and whoever comes later waits as well. So a name is told only while nothing is under way
//! in its directory. Pages it drops without that lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::{Arc, Condvar, Mutex, lock};

/// What does not fit is found out when the kernel's entry times out.
const MOST: usize = 1024;
/// Longer than any mount lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Something to forget.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// A name in the directory with this inode number.
    Name(NonZeroU64, String),
    /// The pages of the directory with this inode number.
    Pages(u64),
}

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
    /// Of directories that are open: when what their pages hold is true no more.
    pages: HashMap<u64, Instant>,
    /// When whoever waits looks again.
    looks_again: Option<Instant>,
    is_closed: bool,
}

impl State {
    fn next(&mut self) -> Option<Change> {
        if self.is_closed {
            return None;
        }
        let first = self.pages.iter().min_by_key(|(_, at)| **at);
        if let Some((&inode, at)) = first
            && *at <= Instant::now()
        {
            self.pages.remove(&inode);
            return Some(Change::Pages(inode));
        }
        while let Some((parent, name)) = self.due.pop_front() {
            if !self.under_way.contains_key(&parent.get()) {
                return Some(Change::Name(parent, name));
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

    /// All names, and none of those before; and all pages.
    pub(super) fn replace(&self, names: Vec<(NonZeroU64, String)>) {
        let mut state = lock(&self.state);
        state.waiting.clear();
        state.due = names.into();
        let now = Instant::now();
        state.pages.values_mut().for_each(|at| *at = now);
        self.is_due.notify_one();
    }

    /// The pages of the open directory `inode`, so much later, or before.
    pub(super) fn drop_pages(&self, inode: u64, later: Duration) {
        let at = Instant::now() + later.min(NEVER);
        let mut state = lock(&self.state);
        let due = state.pages.entry(inode).or_insert(at);
        *due = at.min(*due);
        if state.looks_again.is_none_or(|looks_again| at < looks_again) {
            self.is_due.notify_one();
        }
    }

    /// No pages of `inode`, which is not open any more: who opens it next looks whether they are true.
    pub(super) fn leave_pages(&self, inode: u64) {
        lock(&self.state).pages.remove(&inode);
    }

    /// From now on, nothing is told.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
    }

    /// Waits for something to tell of.
    pub fn next(&self) -> Change {
        let mut state = lock(&self.state);
        loop {
            if let Some(next) = state.next() {
                return next;
            }
            let first = state.pages.values().min().copied();
            state.looks_again = first.filter(|_| !state.is_closed);
            state = match state.looks_again {
                None => self
                    .is_due
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    let woken = self.is_due.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
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
impl Changes {
    /// The directories of which pages are to be dropped some time.
    pub(super) fn pages_to_drop(&self) -> Vec<u64> {
        let mut inodes: Vec<_> = lock(&self.state).pages.keys().copied().collect();
        inodes.sort_unstable();
        inodes
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
        assert_eq!(changes.next(), Change::Name(idle, "b".to_owned()));
        let [first, last] = lookups;
        drop(first);
        assert_eq!(lock(&changes.state).next(), None);
        drop(last);
        assert_eq!(changes.next(), Change::Name(busy, "a".to_owned()));
        let state = lock(&changes.state);
        assert!(state.due.is_empty() && state.under_way.is_empty() && state.waiting.is_empty());
    }
}
