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
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        Duration::from(now.expect("CLOCK_BOOTTIME exists since Linux 2.6.39"))
    }
}
