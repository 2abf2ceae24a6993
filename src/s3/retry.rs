//! The one loop that asks again; a body that breaks off goes on in `body`.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::client::{Connection, S3};
use super::error::{Error, Failure, plain};
use crate::credentials::Credentials;
use crate::request::{Class, Request};
use crate::sync::Arc;

/// How long a failing S3 is worth trying, if the operation's own deadline allows it.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// Guesses are given up sooner: whoever needs the bytes asks for them, and a server in trouble must not
/// be kept busy by guesses.
const PREFETCH_RETRIES: usize = 2;
/// How long the first attempt waits for the beginning of an answer: S3 begins within 100 to 200 ms, a
/// full page of a listing takes some more. Each further attempt waits twice as long, so that a server that
/// is slow by nature can be read, too.
const FIRST_PATIENCE: Duration = Duration::from_secs(4);
/// What waits twice as long each time, for an answer to begin or for a body to come on, waits no longer than this.
pub(super) const MOST_PATIENCE: Duration = Duration::from_secs(32);
/// From then on a failing S3 is worth a line in the log: the program that waits may not live to see its
/// error.
const TOLD_AFTER: Duration = Duration::from_secs(3);
/// One replay is what expired credentials need; another if those that came with it were old, too.
const MAX_REPLAYS: u32 = 2;

/// Failures in a row, and whether it is worth to go on.
#[derive(Debug)]
pub(super) struct Failing {
    since: Instant,
    /// With jitter: about 0.1, 0.2, 0.4 ... 5 to 10 s.
    pauses: std::iter::Take<ExponentialBackoff>,
}

impl Failing {
    /// From now on, in what a request of this class is for.
    pub(super) fn new(class: Class) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times()
            .build();
        let retries = match class {
            Class::Demand => usize::MAX,
            Class::Prefetch => PREFETCH_RETRIES,
        };
        Self {
            since: Instant::now(),
            pauses: pauses.take(retries),
        }
    }

    /// Waits until it is to be tried again; whether it is.
    pub(super) async fn pause(&mut self, why: &str, request: &Request) -> bool {
        let give_up = request.deadline.min(self.since + RETRY_FOR);
        let pause = self.pauses.next();
        let Some(pause) = pause.filter(|pause| Instant::now() + *pause < give_up) else {
            return false;
        };
        tracing::debug!(?pause, "trying again: {why}");
        if self.since.elapsed() >= TOLD_AFTER && request.class == Class::Demand {
            tracing::warn!(why, "S3 fails, and is asked again");
        }
        tokio::time::sleep(pause).await;
        true
    }
}

/// What one sending of a request has.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// To sign with; `None` to send unsigned.
    pub(super) credentials: Option<Arc<Credentials>>,
    /// How long to wait for the answer, and for each next piece of it.
    pub(super) patience: Duration,
}

impl S3 {
    /// Sends with `send` until it succeeds, fails for good or time is over. The connection is still in
    /// use if what was sent has a body to come.
    pub(super) async fn retried<T, F>(
        &self,
        request: &Request,
        send: impl Fn(Attempt) -> F + Send,
    ) -> Result<(T, Connection), Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut failing = Failing::new(request.class);
        let mut replays = 0;
        let mut patience = FIRST_PATIENCE;
        let mut last_failure = None;
        // What S3 said of credentials that had come in the place of others.
        let mut rejected = None;
        loop {
            let signed_with = match &self.credentials {
                None => None,
                Some(manager) => match manager.current_by(request.deadline).await {
                    Ok(current) => Some((manager, current)),
                    Err(error) => {
                        return Err(rejected.map_or(error.into(), Error::CredentialsRejected));
                    }
                },
            };
            let connection = self.connection(request).await?;
            let sent = send(Attempt {
                credentials: signed_with.as_ref().map(|(_, current)| Arc::clone(current)),
                patience,
            });
            let failure = match tokio::time::timeout_at(request.deadline, sent).await {
                Err(_) => return Err(last_failure.map_or(Error::TimedOut, Error::Late)),
                Ok(Ok(answer)) => {
                    self.prove();
                    return Ok((answer, connection));
                }
                Ok(Err(failure)) => failure,
            };
            drop(connection);
            if let Failure::TooSlow(_) = failure {
                self.sender.renew_connections();
                patience = (2 * patience).min(MOST_PATIENCE);
            }
            match failure {
                Failure::Final(error) => return Err(error),
                Failure::Expired(text) => match signed_with {
                    Some((manager, credentials)) if replays < MAX_REPLAYS => {
                        last_failure = Some(plain(&text));
                        rejected = (replays > 0).then_some(text);
                        replays += 1;
                        manager.invalidate(&credentials);
                    }
                    _ => return Err(Error::CredentialsRejected(text)),
                },
                Failure::Transient(text) | Failure::TooSlow(text) => {
                    // It may quote what a server said.
                    let text = plain(&text);
                    if !failing.pause(&text, request).await {
                        return Err(Error::Unavailable(text));
                    }
                    last_failure = Some(text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_for_a_minute_and_a_guess_twice() {
        let tries = async |class, seconds| {
            let mut request = Request::demand(Duration::from_secs(seconds));
            request.class = class;
            let (mut failing, begin) = (Failing::new(class), Instant::now());
            let mut tries = 0;
            while failing.pause("it fails", &request).await {
                tries += 1;
            }
            (tries, begin.elapsed())
        };
        let (often, for_long) = tries(Class::Demand, 600).await;
        assert!(often > 8, "{often}");
        assert!(for_long > RETRY_FOR / 2 && for_long <= RETRY_FOR);
        assert!(tries(Class::Demand, 5).await.1 < Duration::from_secs(5));
        assert_eq!(tries(Class::Prefetch, 600).await.0, PREFETCH_RETRIES);
    }
}
