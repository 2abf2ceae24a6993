//! Locks, atomics, timeouts and task spawning of the concurrent core (cache, reader, credentials,
//! namespace).
//!
//! They come through this one alias, so that a model checker can stand in for them.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, Weak};
pub(crate) use tokio::spawn;
pub(crate) use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore, oneshot, watch};
pub(crate) use tokio::task::{AbortHandle, JoinSet};
pub(crate) use tokio::time::timeout_at;

/// Locks `mutex`, also after a panic of another holder: our critical sections leave their data whole
/// at every point where they could panic, and a mount must outlive one bad operation.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
