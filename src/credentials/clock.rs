//! The clock that expiry is counted on.

use std::time::Duration;

/// A clock that only goes forward. Handed in, so that tests need not sleep.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// `CLOCK_BOOTTIME`: goes on while the machine is suspended, and no one can set it.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a valid timespec, and the call writes nothing else.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) } != 0;
        debug_assert!(!failed, "CLOCK_BOOTTIME exists since Linux 2.6.39");
        Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}
