//! The one loop that asks again; a body that breaks off goes on in `body`.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
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

/// Pauses between attempts, with jitter: about 0.1, 0.2, 0.4 ... 5 s, without end.
pub(super) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
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
        let begin = Instant::now();
        let give_up = request.deadline.min(begin + RETRY_FOR);
        let retries = match request.class {
            Class::Demand => usize::MAX,
            Class::Prefetch => PREFETCH_RETRIES,
        };
        let mut pauses = pauses().take(retries);
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
                    let pause = pauses.next().unwrap_or(RETRY_FOR);
                    tracing::debug!(?pause, "trying again: {text}");
                    if Instant::now() + pause >= give_up {
                        return Err(Error::Unavailable(text));
                    }
                    if begin.elapsed() >= TOLD_AFTER && request.class == Class::Demand {
                        tracing::warn!(why = text, "S3 fails, and is asked again");
                    }
                    last_failure = Some(text);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
