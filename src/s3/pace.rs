//! How long answers are waited for: a body that does not come on is given up, and the rest of it asked
//! for again.

use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use tokio::time::Instant;

use super::error::Failure;

/// How long a body may come slower than this before it is given up, the first time: a reader that waits
/// for it hardly notices.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that make a body worth waiting for, in that time. A slow network that many connections share
/// brings more; and each time that a body is given up, there is twice the time for them.
const LEAST: u64 = 32 << 10;

/// The pace of one body.
#[derive(Debug)]
pub(super) struct Pace {
    patience: Duration,
    since: Instant,
    came: u64,
}

impl Pace {
    /// From now on.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: Instant::now(),
            came: 0,
        }
    }

    /// Until when more is waited for.
    pub(super) fn until(&self) -> Instant {
        self.since + self.patience
    }

    /// Notes that bytes came. Whether they are enough by now to be waited for anew.
    pub(super) fn came(&mut self, bytes: usize) -> bool {
        self.came += bytes as u64;
        let are_enough = self.came >= LEAST;
        if are_enough {
            *self = Self::new(self.patience);
        }
        are_enough
    }

    /// Why it is given up.
    pub(super) fn too_slow(&self) -> String {
        let seconds = self.patience.as_secs();
        format!("no more than {} bytes came in {seconds} s", self.came)
    }
}

/// All of a body of at most `most` bytes.
pub(super) async fn whole(
    body: SdkBody,
    most: usize,
    patience: Duration,
) -> Result<Vec<u8>, Failure> {
    let mut stream = ByteStream::new(body);
    let mut pace = Pace::new(patience);
    let mut whole = Vec::new();
    loop {
        match tokio::time::timeout_at(pace.until(), stream.next()).await {
            Err(_) => return Err(Failure::TooSlow(pace.too_slow())),
            Ok(None) => return Ok(whole),
            Ok(Some(Err(e))) => return Err(Failure::Transient(format!("a body broke off: {e}"))),
            Ok(Some(Ok(bytes))) if whole.len() + bytes.len() > most => {
                return Err(Failure::Transient(format!(
                    "an answer of more than {most} bytes"
                )));
            }
            Ok(Some(Ok(bytes))) => {
                pace.came(bytes.len());
                whole.extend_from_slice(&bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_on_is_waited_for_and_a_trickle_is_not() {
        let mut steady = Pace::new(PATIENCE);
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(900)).await;
            assert!(Instant::now() < steady.until());
            steady.came(20 << 10);
        }
        let mut trickle = Pace::new(PATIENCE);
        let mut waited = 0;
        while Instant::now() < trickle.until() {
            tokio::time::advance(Duration::from_millis(100)).await;
            trickle.came(100);
            waited += 1;
        }
        assert_eq!(waited, 20);
        assert_eq!(trickle.too_slow(), "no more than 2000 bytes came in 2 s");
    }
}
