//! Hedging: a request that somebody waits for, and that S3 has not answered when nearly all others lately
//! were answered, is sent once more, over another connection; the first answer counts.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::request::Class;
use crate::sync::{Mutex, lock};

/// Answers that are remembered: the slowest but one of them is about the 99th percentile.
const REMEMBERED: usize = 128;
/// Too few answers say nothing.
const LEAST_ANSWERS: usize = 64;
/// Hedges may be so small a part of all requests: a slow server must not get twice the load.
const ONE_IN: u32 = 32;
/// Saved up for a bad moment.
const MOST_CREDIT: u32 = 8 * ONE_IN;
/// Where a few requests may be sent once more before any was answered.
const FIRST_CREDIT: u32 = 4 * ONE_IN;
/// Below it, jitter of this machine looks like a slow server.
const LEAST_PATIENCE: Duration = Duration::from_millis(20);
/// Listings are counted, and paid for, by the request; of these there are few.
const LEAST_PATIENCE_WITH_NAMES: Duration = Duration::from_millis(250);
/// Nobody waits longer for an answer that may be lost.
const MOST_PATIENCE: Duration = Duration::from_secs(2);

/// Requests that take about as long as one another.
#[derive(Debug)]
pub(super) struct Kinds {
    /// Ranges of objects.
    pub(super) gets: Hedges,
    /// Single names.
    pub(super) names: Hedges,
    /// Pages of listings.
    pub(super) pages: Hedges,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            gets: Hedges::new(LEAST_PATIENCE),
            names: Hedges::new(LEAST_PATIENCE_WITH_NAMES),
            pages: Hedges::new(LEAST_PATIENCE_WITH_NAMES),
        }
    }
}

#[derive(Debug)]
pub(super) struct Hedges {
    least: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answers: VecDeque<Duration>,
    credit: u32,
}

impl Hedges {
    fn new(least: Duration) -> Self {
        Self {
            least,
            state: Mutex::new(State {
                answers: VecDeque::new(),
                credit: FIRST_CREDIT,
            }),
        }
    }

    /// Sends with `send`, and once more if that takes too long and `may_send` allows it. What
    /// `may_send` gives is held until there is an answer.
    pub(super) async fn first_of<T, E, F, P>(
        &self,
        class: Class,
        send: impl Fn() -> F,
        may_send: impl FnOnce() -> Option<P>,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let begin = Instant::now();
        let mut first = std::pin::pin!(send());
        let answer = match tokio::time::timeout(self.patience(class), &mut first).await {
            Ok(answer) => answer,
            Err(_) => match may_send().filter(|_| self.take_credit()) {
                None => first.await,
                Some(_permit) => {
                    tracing::debug!("asking once more for a slow answer");
                    let mut second = std::pin::pin!(send());
                    // A failure of one is no answer while the other may have one.
                    tokio::select! {
                        answer = &mut first => match answer {
                            Ok(answer) => Ok(answer),
                            Err(_) => second.await,
                        },
                        answer = &mut second => match answer {
                            Ok(answer) => Ok(answer),
                            Err(_) => first.await,
                        },
                    }
                }
            },
        };
        if answer.is_ok() {
            self.answered(begin.elapsed());
        }
        answer
    }

    /// How long nearly all answers took, at most, and half as long again; for guesses, on which somebody
    /// may have come to wait, the longest that anyone is to wait.
    fn patience(&self, class: Class) -> Duration {
        let state = lock(&self.state);
        if class == Class::Prefetch || state.answers.len() < LEAST_ANSWERS {
            return MOST_PATIENCE;
        }
        let mut slowest = [Duration::ZERO; 2];
        for answer in &state.answers {
            if *answer > slowest[0] {
                slowest = [*answer, slowest[0]];
            } else if *answer > slowest[1] {
                slowest[1] = *answer;
            }
        }
        (slowest[1] * 3 / 2).clamp(self.least, MOST_PATIENCE)
    }

    fn take_credit(&self) -> bool {
        let mut state = lock(&self.state);
        let enough = state.credit >= ONE_IN;
        if enough {
            state.credit -= ONE_IN;
        }
        enough
    }

    fn answered(&self, after: Duration) {
        let mut state = lock(&self.state);
        if state.answers.len() == REMEMBERED {
            state.answers.pop_front();
        }
        state.answers.push_back(after);
        state.credit = (state.credit + 1).min(MOST_CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{AtomicU64, Ordering};

    /// Sends that take `millis`, one after the other; how many were sent in all, and how long the
    /// last answer took.
    async fn sent(hedges: &Hedges, millis: &[u64]) -> (u64, Duration) {
        let sent = AtomicU64::new(0);
        let send = || async {
            let at = usize::try_from(sent.fetch_add(1, Ordering::Relaxed)).expect("small");
            tokio::time::sleep(Duration::from_millis(millis[at])).await;
            Ok::<_, ()>(())
        };
        let begin = Instant::now();
        hedges
            .first_of(Class::Demand, send, || Some(()))
            .await
            .expect("an answer");
        (sent.load(Ordering::Relaxed), begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_asked_for_again_once_it_is_known_to_be_slow() {
        let hedges = Hedges::new(LEAST_PATIENCE);
        assert_eq!(sent(&hedges, &[1900]).await.0, 1, "nothing to compare with");
        let (count, took) = sent(&hedges, &[5000, 30]).await;
        assert_eq!((count, took.as_millis()), (2, 2030), "nobody waits so long");
        for _ in 0..200 {
            assert_eq!(sent(&hedges, &[30, 30]).await.0, 1);
        }
        let (count, took) = sent(&hedges, &[5000, 30]).await;
        assert_eq!((count, took.as_millis()), (2, 75));
        let (count, took) = sent(&hedges, &[90, 5000]).await;
        assert_eq!((count, took.as_millis()), (2, 90), "the first may be first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_become_slow_gets_little_more_to_do() {
        let hedges = Hedges::new(LEAST_PATIENCE);
        for _ in 0..200 {
            sent(&hedges, &[30, 30]).await;
        }
        let mut count = 0;
        for _ in 0..100 {
            count += sent(&hedges, &[500, 500]).await.0;
        }
        assert!(count <= 112, "{count}");
    }
}
