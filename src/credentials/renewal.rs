//! The task of the manager, which renews: before the credentials end, when S3 rejects them, and after failures.

use std::time::Duration;

use tokio::time::Instant;

use super::manager::{Credentials, Shared, State};
use super::schedule;
use crate::earthdata::Grant;
use crate::sync::{Arc, Ordering, timeout, timeout_at};

/// The task that owns refreshing.
pub(super) async fn renew(shared: Arc<Shared>) {
    let mut failures = 0;
    let mut last_forced: Option<Duration> = None;
    loop {
        let held = shared.state.borrow().credentials.clone();
        let replaces = held.as_ref().map(|held| held.access_key_id.as_str());
        let fetched = shared.source.fetch(replaces).await;
        let now = shared.clock.now();
        match fetched {
            Ok(grant) => {
                failures = 0;
                let refresh_at = now + schedule::refresh_after(grant.remaining, fastrand::f64());
                publish(&shared, grant, now);
                sleep_until_due(&shared, refresh_at, &mut last_forced).await;
            }
            Err(error) => {
                failures += 1;
                match shared.state.borrow().credentials {
                    Some(_) => tracing::warn!(failures, "cannot renew the credentials: {error}"),
                    // Whoever starts the manager is told by `first` or `current`.
                    None => tracing::debug!(failures, "no credentials: {error}"),
                }
                shared
                    .state
                    .send_modify(|state| state.failure = Some(error));
                pause(&shared, failures).await;
            }
        }
    }
}

fn publish(shared: &Shared, grant: Grant, now: Duration) {
    let held = shared.state.borrow().credentials.clone();
    let seconds_left = held.map(|held| held.expires.saturating_sub(now).as_secs());
    tracing::info!(
        access_key_id = grant.access_key_id,
        valid_for_seconds = grant.remaining.as_secs(),
        seconds_left,
        "{}",
        match seconds_left {
            Some(_) => "credentials renewed",
            None => "credentials obtained",
        }
    );
    let credentials = Credentials {
        access_key_id: grant.access_key_id,
        secret_access_key: grant.secret_access_key,
        session_token: grant.session_token,
        expires: now + grant.remaining,
        margin: schedule::margin(grant.remaining),
        clock_ahead: grant.clock_ahead,
    };
    if let Some(warning) = credentials.clock_warning() {
        tracing::warn!("{warning}");
    }
    shared.state.send_modify(|state| {
        let held = state.credentials.as_ref();
        let is_held = held.is_some_and(|held| held.access_key_id == credentials.access_key_id);
        if state.is_rejected && is_held {
            // Both may be wrong, but only with them can it be tried.
            tracing::warn!("S3 rejected the credentials, and the endpoint gives the same again");
        }
        *state = State {
            credentials: Some(Arc::new(credentials)),
            ..State::default()
        };
    });
}

/// A sleep counts time that the machine was awake, the credentials' clock all time: look at it
/// this often, so that a resumed machine renews at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(20);

/// Sleeps until `at`, or until the credentials held are rejected and a forced refresh is allowed.
async fn sleep_until_due(shared: &Shared, at: Duration, last_forced: &mut Option<Duration>) {
    loop {
        let now = shared.clock.now();
        if now >= at {
            return;
        }
        let mut sleep = (at - now).min(LONGEST_SLEEP);
        if shared.state.borrow().is_rejected {
            let pause = shared.policy.forced_refresh_pause;
            let allowed = last_forced.map_or(now, |last| last + pause);
            if now >= allowed {
                *last_forced = Some(now);
                return;
            }
            sleep = sleep.min(allowed - now);
        }
        // Woken or not: look again.
        let _ = timeout(sleep, shared.wake.notified()).await;
    }
}

/// The pause after a failure; one that began with nobody waiting becomes short when somebody does.
async fn pause(shared: &Shared, failures: u32) {
    let random = fastrand::f64();
    let begin = Instant::now();
    loop {
        let is_waited_for = shared.waiting.load(Ordering::Relaxed) > 0;
        let waited_for = is_waited_for.then_some(shared.policy.wait);
        let until = begin + schedule::pause(failures, waited_for, random);
        if timeout_at(until, shared.wake.notified()).await.is_err() {
            return;
        }
    }
}
