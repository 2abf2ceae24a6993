//! A listing ahead that is under way: whoever it probably tells what he needs waits for it, but no longer than a page
//! takes. It gives way to demand, and may be queued for as long as others keep the link busy.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{timeout_at, watch};

/// A page takes some 100 ms; who has not got it so long after it was asked for asks for himself.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    until: Instant,
    /// Closed when it is over.
    done: watch::Receiver<()>,
}

impl UnderWay {
    /// One that begins now, and is over when what comes with it is dropped.
    pub(super) fn begin() -> (watch::Sender<()>, Self) {
        let (sender, done) = watch::channel(());
        let until = Instant::now() + PATIENCE;
        (sender, Self { until, done })
    }

    pub(super) fn is_over(&self) -> bool {
        self.done.has_changed().is_err()
    }

    /// Waits until it is over, or has taken too long.
    pub(super) async fn wait(mut self) {
        // Nothing is ever sent: it ends by being closed.
        let _ = timeout_at(self.until, self.done.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_for_to_its_end_but_not_for_long() {
        let begin = Instant::now();
        let (sender, soon) = UnderWay::begin();
        let (_never, late) = UnderWay::begin();
        let page = Duration::from_millis(100);
        let ends = async {
            tokio::time::sleep(page).await;
            drop(sender);
        };
        tokio::join!(ends, soon.clone().wait());
        assert_eq!(begin.elapsed(), page);
        assert!(soon.is_over() && !late.is_over());
        for _ in 0..3 {
            late.clone().wait().await;
        }
        assert_eq!(begin.elapsed(), PATIENCE, "by all who ask together");
    }
}
