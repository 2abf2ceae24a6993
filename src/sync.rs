//! Locks, atomics, timeouts and task spawning of the concurrent core (cache, reader, credentials,
//! namespace).
//!
//! They come through this one alias, so that a model checker can stand in for them: with
//! `--cfg shuttle` (`scripts/model`) tests run under `shuttle`, which decides at each of these
//! operations who goes on. There no timeout expires by itself, so that a wake-up that is lost is a
//! deadlock, and found.

#[cfg(all(test, shuttle))]
use {shuttle::sync as blocking, shuttle_tokio as tasks};
#[cfg(not(all(test, shuttle)))]
use {std::sync as blocking, tokio as tasks};

pub(crate) use blocking::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use blocking::{Arc, Condvar, Mutex, MutexGuard, Weak};
pub(crate) use tasks::spawn;
pub(crate) use tasks::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore, oneshot, watch};
pub(crate) use tasks::task::{AbortHandle, JoinSet};
pub(crate) use tasks::time::{timeout, timeout_at};

/// Locks `mutex`, also after a panic of another holder: our critical sections leave their data whole
/// at every point where they could panic, and a mount must outlive one bad operation.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs `model` under many schedules, half of them at random, half by PCT, which finds what needs few
/// switches at the right places. `MODEL_SCHEDULES` says how many of each; a failing one is printed, and
/// `MODEL_REPLAY` names a file with one to run again.
#[cfg(all(test, shuttle))]
pub(crate) fn explore<F: Future<Output = ()> + 'static>(model: fn() -> F) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};

    /// Switches that PCT places: few bugs need more.
    const DEPTH: usize = 4;
    let mut config = shuttle::Config::new();
    // The default is too small for futures in a debug build.
    config.stack_size = 1 << 20;
    let run = move || shuttle::future::block_on(model());
    if let Some(file) = std::env::var_os("MODEL_REPLAY") {
        let replay = ReplayScheduler::new_from_file(file).expect("a schedule");
        shuttle::Runner::new(replay, config).run(run);
        return;
    }
    let schedules = std::env::var("MODEL_SCHEDULES").map(|n| n.parse().expect("a number"));
    let schedules = schedules.unwrap_or(1000);
    shuttle::Runner::new(RandomScheduler::new(schedules), config.clone()).run(run);
    shuttle::Runner::new(PctScheduler::new(DEPTH, schedules), config).run(run);
}
