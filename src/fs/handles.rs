//! Numbers for what is open.

use std::collections::HashMap;

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// What is open, by handle. A handle is never used twice.
#[derive(Debug)]
pub(super) struct Handles<T> {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            open: Mutex::new(HashMap::new()),
        }
    }
}

impl<T> Handles<T> {
    pub(super) fn insert(&self, value: T) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(handle, Arc::new(value));
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Option<Arc<T>> {
        lock(&self.open).get(&handle).cloned()
    }

    pub(super) fn remove(&self, handle: u64) -> Option<Arc<T>> {
        lock(&self.open).remove(&handle)
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.open).len()
    }
}
