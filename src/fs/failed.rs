//! Lookups that ended for want of an answer.
//!
//! Where an entry of the kernel has run out and asking for it fails, the kernel asks once more at once.
//! That is not to cost the time of an operation twice.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::Error;
use crate::s3;
use crate::sync::{Mutex, lock};

/// As blocks that failed.
const LASTS: Duration = Duration::from_secs(2);
const REMEMBERED: usize = 1024;

#[derive(Debug)]
pub(super) struct FailedLookups(Mutex<LruCache<(u64, String), (Error, Instant)>>);

impl Default for FailedLookups {
    fn default() -> Self {
        let remembered = NonZeroUsize::new(REMEMBERED).expect("not zero");
        Self(Mutex::new(LruCache::new(remembered)))
    }
}

impl FailedLookups {
    /// Notes why the lookup of `name` in the directory `parent` failed.
    pub(super) fn note(&self, parent: u64, name: &str, error: &Error) {
        use s3::Error::{CredentialsRejected, Late, NoCredentials, TimedOut, Unavailable};
        if let Error::Storage(
            TimedOut | Late(_) | Unavailable(_) | NoCredentials(_) | CredentialsRejected(_),
        ) = error
        {
            let now = (error.clone(), Instant::now());
            // Who heard it from here renews nothing.
            lock(&self.0).get_or_insert((parent, name.to_owned()), || now);
        }
    }

    /// Why it failed, a moment ago.
    pub(super) fn recent(&self, parent: u64, name: &str) -> Option<Error> {
        let mut failed = lock(&self.0);
        if failed.is_empty() {
            return None;
        }
        let key = (parent, name.to_owned());
        let (error, since) = failed.peek(&key)?;
        if since.elapsed() < LASTS {
            return Some(error.clone());
        }
        failed.pop(&key);
        None
    }

    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn are_remembered_for_a_moment_if_asking_again_takes_time() {
        let failed = FailedLookups::default();
        failed.note(1, "late", &s3::Error::TimedOut.into());
        failed.note(1, "denied", &s3::Error::AccessDenied(String::new()).into());
        failed.note(
            1,
            "rejected",
            &s3::Error::CredentialsRejected(String::new()).into(),
        );
        assert!(failed.recent(1, "rejected").is_some());
        tokio::time::advance(LASTS / 2).await;
        failed.note(1, "late", &s3::Error::TimedOut.into());
        assert!(failed.recent(1, "late").is_some());
        assert!(failed.recent(2, "late").is_none());
        assert!(failed.recent(1, "denied").is_none());
        tokio::time::advance(LASTS / 2).await;
        assert!(failed.recent(1, "late").is_none());
    }
}
