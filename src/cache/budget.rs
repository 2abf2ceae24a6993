//! The byte-exact budget: demand queues first come, first served; prefetch lives on what is left.

use std::collections::VecDeque;

use super::memory::Memories;
use crate::sync::{Arc, Mutex, lock, oneshot};

#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    state: Mutex<State>,
    /// Where the memory for it comes from.
    memories: Memories,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    granted: oneshot::Sender<Reservation>,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            state: Mutex::new(State::default()),
            memories: Memories::new(limit, crate::memory::addresses(limit)),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn memories(&self) -> &Memories {
        &self.memories
    }

    pub(super) fn used(&self) -> u64 {
        lock(&self.state).used
    }

    pub(super) fn free(&self) -> u64 {
        self.limit - self.used()
    }

    /// What the queue waits for, at most the limit.
    pub(super) fn wanted(&self) -> u64 {
        let state = lock(&self.state);
        let all: u64 = state.queue.iter().map(|waiter| waiter.bytes).sum();
        all.min(self.limit)
    }

    /// `bytes` now, unless that leaves less than `spare` or somebody waits.
    pub(super) fn try_reserve(self: &Arc<Self>, bytes: u64, spare: u64) -> Option<Reservation> {
        let mut state = lock(&self.state);
        if !state.queue.is_empty() || state.used + bytes + spare > self.limit {
            return None;
        }
        state.used += bytes;
        Some(Reservation {
            budget: Arc::clone(self),
            bytes,
        })
    }

    /// A place in the queue for `bytes`, which must not exceed the limit.
    pub(super) fn queue(self: &Arc<Self>, bytes: u64) -> Turn {
        debug_assert!(bytes <= self.limit);
        let (granted, arrival) = oneshot::channel();
        lock(&self.state).queue.push_back(Waiter { bytes, granted });
        self.serve();
        Turn {
            budget: Arc::clone(self),
            arrival: Some(arrival),
        }
    }

    /// Serves the queue in order, as far as the free bytes go.
    fn serve(self: &Arc<Self>) {
        loop {
            let (waiter, reservation) = {
                let mut state = lock(&self.state);
                let free = self.limit - state.used;
                let is_next = |first: &mut Waiter| first.granted.is_closed() || first.bytes <= free;
                let Some(waiter) = state.queue.pop_front_if(is_next) else {
                    return;
                };
                if waiter.granted.is_closed() {
                    continue;
                }
                state.used += waiter.bytes;
                let reservation = Reservation {
                    budget: Arc::clone(self),
                    bytes: waiter.bytes,
                };
                (waiter, reservation)
            };
            // If the waiter has just gone, the reservation comes back and is given on.
            let _ = waiter.granted.send(reservation);
        }
    }
}

/// A place in the queue. Dropping it leaves the queue, and lets those behind go on.
pub(super) struct Turn {
    budget: Arc<Budget>,
    /// `None` while it leaves.
    arrival: Option<oneshot::Receiver<Reservation>>,
}

impl Turn {
    /// Waits for the memory.
    pub(super) async fn granted(&mut self) -> Option<Reservation> {
        self.arrival.as_mut()?.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // First, so that the place is seen to be empty.
        self.arrival = None;
        self.budget.serve();
    }
}

/// Bytes taken from the budget, given back on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn memories(&self) -> &Memories {
        &self.budget.memories
    }

    /// Takes the bytes of `other`, of the same budget.
    pub(super) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Parts `bytes` from this one.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        assert!(bytes <= self.bytes, "split {bytes} of {}", self.bytes);
        self.bytes -= bytes;
        Self {
            budget: Arc::clone(&self.budget),
            bytes,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            lock(&self.budget.state).used -= self.bytes;
            self.budget.serve();
        }
    }
}
