//! One question at a time for each key, however many ask.
//!
//! Lock: `under_way`, for moments only, never while anything is waited for. An asker holds its question
//! until it leaves, answered or given up, and lets go of it under the lock: so the last one sees that it
//! is the last, and what is given up leaves nothing behind.

use std::collections::HashMap;

use crate::sync::{Arc, Mutex, OnceCell, lock};

/// The questions under way, by key. A question leaves with its answer, or with the last who asks it.
#[derive(Debug)]
pub(super) struct Questions<T> {
    under_way: Mutex<HashMap<String, Question<T>>>,
}

/// Empty until the answer is there.
type Question<T> = Arc<OnceCell<T>>;

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
        }
    }
}

impl<T: Clone> Questions<T> {
    /// The answer of `ask`, or of somebody who has asked for `key` and not heard yet. If that one is
    /// given up, the next one asks.
    pub(super) async fn ask(&self, key: String, ask: impl Future<Output = T>) -> T {
        let asker = Asker::new(self, key);
        asker.question().get_or_init(|| ask).await.clone()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.under_way).len()
    }
}

/// Somebody who waits for an answer.
struct Asker<'a, T> {
    all: &'a Questions<T>,
    key: String,
    /// `None` while it leaves.
    question: Option<Question<T>>,
}

impl<'a, T> Asker<'a, T> {
    fn new(all: &'a Questions<T>, key: String) -> Self {
        let question = Arc::clone(lock(&all.under_way).entry(key.clone()).or_default());
        Self {
            all,
            key,
            question: Some(question),
        }
    }

    fn question(&self) -> &OnceCell<T> {
        self.question.as_ref().expect("it has not left")
    }
}

impl<T> Drop for Asker<'_, T> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.all.under_way);
        let Some(mine) = self.question.take() else {
            return;
        };
        // Another round may have begun meanwhile.
        let is_under_way = under_way
            .get(&self.key)
            .is_some_and(|now| Arc::ptr_eq(now, &mine));
        // Two: the entry, and this.
        let is_last = Arc::strong_count(&mine) == 2;
        if is_under_way && (mine.initialized() || is_last) {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[path = "single_tests.rs"]
mod tests;

#[cfg(all(test, shuttle))]
#[path = "single_model.rs"]
mod model;
