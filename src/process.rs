//! What concerns the process as a whole: its secrets, its memory, and the signals that end it.

use std::io;
use std::sync::{RwLock, mpsc};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Keeps memory, which holds secrets, out of core dumps and from other processes of the user.
pub fn protect_secrets() {
    let set = nix::sys::prctl::set_dumpable(false);
    debug_assert_eq!(set, Ok(()), "PR_SET_DUMPABLE takes 0");
}

/// Keeps large allocations apart from small ones: otherwise blocks of the cache, long-lived and short,
/// leave holes in the heaps of many threads, and the process grows past its limit.
pub fn tame_the_allocator() {
    #[cfg(target_env = "gnu")]
    keep_large_allocations_apart();
}

#[cfg(target_env = "gnu")]
fn keep_large_allocations_apart() {
    /// Half a block: larger than anything but blocks.
    const OWN_MAPPING_FROM: libc::c_int = 512 << 10;
    // SAFETY: sets a parameter of malloc; takes no pointers.
    let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_FROM) };
    debug_assert_eq!(set, 1, "glibc takes this threshold");
}

/// Gives memory that was freed back to the system, which the allocator does for large pieces only. Takes
/// some milliseconds for each 100 MiB.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions, and locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Files and directories that this process makes have the modes that they are made with, whatever umask was set, and are
/// for this user alone.
pub fn keep_files_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Ignores what would end the process for nothing, and so do the programs that it starts: batch systems
/// announce the end of a job to all that runs in it, and a file larger than `ulimit -f` allows costs lines of
/// the log.
pub fn ignore_announcements() {
    use Number::{SIGALRM, SIGUSR1, SIGUSR2, SIGXFSZ};
    for number in [SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ] {
        // SAFETY: no handler of this program runs.
        let set = unsafe { nix::sys::signal::signal(number, SigHandler::SigIgn) };
        debug_assert!(set.is_ok(), "{number} can be ignored");
    }
}

/// How long to wait for a file that may lie on a file system that does not answer; a local disk does in milliseconds.
pub const FILE_PATIENCE: Duration = Duration::from_secs(2);

/// What `look` finds within `patience`. Needs no runtime, and leaves no thread behind unless it comes too late.
pub fn within<T: Send + 'static>(
    patience: Duration,
    look: impl FnOnce() -> T + Clone + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let on_thread = look.clone();
    let send = move || {
        // Nobody hears it any more where it comes too late.
        let _ = sender.send(on_thread());
    };
    let Ok(thread) = std::thread::Builder::new().spawn(send) else {
        return Some(look());
    };
    let found = receiver.recv_timeout(patience).ok()?;
    // Later the process forks, and must have no other thread then.
    let _ = thread.join();
    Some(found)
}

/// Finds out whether `count` threads can be started beside each other: libraries panic where one of theirs cannot.
///
/// # Errors
/// A message for the user.
pub fn check_threads(count: usize) -> Result<(), String> {
    let gate = RwLock::new(());
    let closed = gate.write();
    let started = std::thread::scope(|scope| {
        let started = (0..count).try_for_each(|_| {
            let wait = || drop(gate.read());
            let thread = std::thread::Builder::new().spawn_scoped(scope, wait);
            thread.map(drop)
        });
        drop(closed);
        started
    });
    started.map_err(|error| {
        format!(
            "cannot start a thread ({error}): this user, or this container, has as many as it may have. End some \
             processes, or raise the limit (ulimit -u; pids.max)"
        )
    })
}

/// What `kill` sends, Ctrl-C, Ctrl-\, the end of `ulimit -t`, and SIGHUP: the end where a terminal is
/// closed, and for a mount, which outlives its terminal, the wish to forget what it knows.
pub struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    xcpu: Signal,
    hup: Signal,
}

impl Signals {
    /// Listens from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            xcpu: signal(SignalKind::from_raw(libc::SIGXCPU))?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them; its name.
    pub async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
            _ = self.xcpu.recv() => "SIGXCPU",
            _ = self.hup.recv() => "SIGHUP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_given_up() {
        let hangs = || loop {
            std::thread::park();
        };
        assert_eq!(within::<()>(Duration::from_millis(20), hangs), None);
        assert_eq!(within(FILE_PATIENCE, || 7), Some(7));
    }
}
