//! Files that may lie on a file system that does not answer: whoever asks for them there hears so, and goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::store::{self, StoreError};
use crate::sync::{Arc, Semaphore};

/// A local disk answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does one thing at a time.
#[derive(Debug)]
pub(super) struct Disk {
    /// Kept by what is under way, also when nobody waits for it any more: its thread is one of those that all share,
    /// and there would be none left some day.
    turn: Arc<Semaphore>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Disk {
    /// Does `work` apart from the runtime's threads; `None` if it takes too long, or what was to be done before has
    /// not ended yet.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.turn).try_acquire_owned().ok()?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        tokio::time::timeout(PATIENCE, done).await.ok()?.ok()
    }
}

/// Makes a directory to share credentials in, and looks whether it is this user's alone. Needs no runtime, and leaves no
/// thread behind unless the file system does not answer.
///
/// # Errors
/// [`StoreError`]: it cannot be used.
pub fn check_directory(directory: &Path) -> Result<(), StoreError> {
    within(PATIENCE, directory, store::check_directory)
}

fn within(
    patience: Duration,
    directory: &Path,
    check: fn(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (sender, receiver) = mpsc::channel();
    let path: PathBuf = directory.to_owned();
    let look = move || {
        // Nobody hears it any more where it comes too late.
        let _ = sender.send(check(&path));
    };
    let Ok(thread) = std::thread::Builder::new().spawn(look) else {
        return check(directory);
    };
    let checked = receiver.recv_timeout(patience);
    let checked = checked.map_err(|_| StoreError::Silent(directory.to_owned()))?;
    // Later the process forks, and must have no other thread then.
    let _ = thread.join();
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_end_is_waited_for_once_and_takes_one_thread() {
        let disk = Disk::default();
        let (release, hung) = mpsc::channel::<()>();
        let hangs = disk.run(move || hung.recv().is_err()).await;
        assert_eq!(hangs, None);
        let begin = std::time::Instant::now();
        for _ in 0..1000 {
            assert_eq!(disk.run(|| ()).await, None);
        }
        assert!(begin.elapsed() < PATIENCE);
        drop(release);
        while disk.run(|| ()).await.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for nth in 0..1000 {
            assert_eq!(
                disk.run(move || nth).await,
                Some(nth),
                "one after the other"
            );
        }
    }

    #[test]
    fn a_directory_on_a_file_system_that_does_not_answer_is_given_up() {
        let hangs = |_: &Path| loop {
            std::thread::park();
        };
        let silent = within(Duration::from_millis(20), Path::new("/there"), hangs);
        let said = silent.expect_err("it hangs").to_string();
        assert_eq!(said, "/there: the file system does not answer");
    }
}
