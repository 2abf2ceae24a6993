//! Files that may lie on a file system that does not answer: whoever asks for them there hears so, and goes on.

use std::path::Path;

use super::store::{self, StoreError};
use crate::process::{self, FILE_PATIENCE};
use crate::sync::{Arc, Semaphore};

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
        tokio::time::timeout(FILE_PATIENCE, done).await.ok()?.ok()
    }
}

/// Makes a directory to share credentials in, and looks whether it is this user's alone. Needs no runtime, and leaves no
/// thread behind unless the file system does not answer.
///
/// # Errors
/// [`StoreError`]: it cannot be used.
pub fn check_directory(directory: &Path) -> Result<(), StoreError> {
    let path = directory.to_owned();
    let checked = process::within(FILE_PATIENCE, move || store::check_directory(&path));
    checked.unwrap_or_else(|| Err(StoreError::Silent(directory.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

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
        assert!(begin.elapsed() < FILE_PATIENCE);
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
}
