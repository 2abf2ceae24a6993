//! The manager: one task that renews, any number of callers that ask.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use super::clock::{BootClock, Clock};
use super::schedule;
use super::shared::SharedEndpoint;
use crate::earthdata::{self, Endpoint, Grant};
use crate::network::Network;
use crate::sync::{
    AbortHandle, Arc, AtomicU64, Notify, Ordering, spawn, timeout, timeout_at, watch,
};

/// New credentials on their way.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Result<Grant, earthdata::Error>> + Send + 'a>>;

/// Where new credentials come from.
pub trait Source: Send + Sync + 'static {
    /// Gets new credentials in the place of those of generation `replaces`, or tells why there are
    /// none.
    fn fetch<'a>(&'a self, replaces: Option<&'a str>) -> Fetch<'a>;
    /// The source's URL, for messages.
    fn name(&self) -> &str;
}

impl Source for Endpoint {
    fn fetch<'a>(&'a self, _replaces: Option<&'a str>) -> Fetch<'a> {
        Box::pin(Endpoint::fetch(self))
    }

    fn name(&self) -> &str {
        self.url()
    }
}

/// Temporary credentials of S3, with their end.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The id; also the generation, see [`Manager::invalidate`].
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: SecretString,
    /// The session token.
    pub session_token: SecretString,
    /// When they end, on the manager's clock.
    expires: Duration,
    /// How long before that they are no longer used.
    margin: Duration,
    /// See [`Grant::clock_ahead`].
    clock_ahead: i64,
}

/// Clocks that differ by less are no trouble.
const TOLERABLE_SKEW: u64 = 60;

impl Credentials {
    /// What to tell the user of the local clock, if it differs by more than a minute from that of
    /// the server that granted these.
    pub fn clock_warning(&self) -> Option<String> {
        let seconds = self.clock_ahead.unsigned_abs();
        let how = if self.clock_ahead > 0 {
            "ahead of"
        } else {
            "behind"
        };
        (seconds > TOLERABLE_SKEW).then(|| {
            format!(
                "the clock of this machine is {seconds} s {how} that of the credentials endpoint: \
                 set it (timedatectl set-ntp true). This program allows for the difference, but S3 \
                 refuses others from 15 minutes on"
            )
        })
    }
}

/// What a manager is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where credentials come from, and how to log in there.
    pub endpoint: earthdata::Settings,
    /// What is shared with other processes.
    pub sharing: Sharing,
    /// How patient it is.
    pub policy: Policy,
}

/// What the processes of a user on one host share. By default, nothing.
#[derive(Clone, Debug, Default)]
pub struct Sharing {
    /// Directories for files to share by: the first one that can be used is.
    pub directories: Vec<PathBuf>,
    /// Fetch even if another process has credentials, to see whether that works. A password that was
    /// refused is not sent again all the same.
    pub always_fetch: bool,
}

/// How patient a manager is.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long a caller waits for valid credentials (`--credential-wait`).
    pub wait: Duration,
    /// The least time between two refreshes that [`Manager::invalidate`] forces: a server that lies
    /// about expiry must not loop us.
    pub forced_refresh_pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(45),
            forced_refresh_pause: Duration::from_secs(30),
        }
    }
}

/// Why there are no valid credentials.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no valid credentials within {} s: {cause}", waited.as_secs())]
pub struct Error {
    /// How long was waited.
    pub waited: Duration,
    /// The last failure, if there was one.
    pub cause: Cause,
}

/// The last thing that was heard of the source.
#[derive(Clone, Debug)]
pub enum Cause {
    /// It answers, with an error.
    Failed(earthdata::Error),
    /// It has not answered yet.
    Silent(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Silent(name) => write!(
                f,
                "{name} has not answered yet: check the network, the proxy settings and the URL"
            ),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    credentials: Option<Arc<Credentials>>,
    /// The failure since the last success.
    failure: Option<earthdata::Error>,
    /// A generation that S3 does not accept any more.
    rejected: Option<String>,
}

struct Shared {
    source: Box<dyn Source>,
    clock: Box<dyn Clock>,
    policy: Policy,
    state: watch::Sender<State>,
    /// How many callers wait for valid credentials.
    waiting: AtomicU64,
    /// Wakes the task: somebody began to wait, or a generation was invalidated.
    wake: Notify,
}

/// Holds credentials and keeps them fresh; the task that does so ends with the last clone.
#[derive(Clone)]
pub struct Manager {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("source", &self.shared.source.name())
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// The manager of an endpoint, which begins to fetch at once. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`earthdata::Error::BadUrl`] where the endpoint or the login host cannot be used.
    pub fn open(settings: &Settings, network: &Network) -> Result<Self, earthdata::Error> {
        let endpoint = Endpoint::new(settings.endpoint.clone(), network)?;
        let source = SharedEndpoint::new(endpoint, settings.sharing.clone(), BootClock);
        Ok(Self::start(source, BootClock, settings.policy))
    }

    /// Starts the task, which begins to fetch at once. Must be called within a tokio runtime.
    pub fn start(source: impl Source, clock: impl Clock, policy: Policy) -> Self {
        let shared = Arc::new(Shared {
            source: Box::new(source),
            clock: Box::new(clock),
            policy,
            state: watch::channel(State::default()).0,
            waiting: AtomicU64::new(0),
            wake: Notify::new(),
        });
        let task = Task(spawn(renew(Arc::clone(&shared))).abort_handle());
        Self {
            shared,
            _task: Arc::new(task),
        }
    }

    /// Valid credentials, waited for up to `Policy::wait` if there are none. Dropping the future
    /// leaves nothing behind.
    ///
    /// # Errors
    /// [`Error`] when there were none in time. The task keeps trying.
    pub async fn current(&self) -> Result<Arc<Credentials>, Error> {
        if let Some(valid) = self.valid() {
            return Ok(valid);
        }
        let wait = self.shared.policy.wait;
        let _waiting = Waiting::begin(&self.shared);
        let arrival = async {
            let mut states = self.shared.state.subscribe();
            loop {
                if let Some(valid) = self.valid() {
                    return valid;
                }
                if states.changed().await.is_err() {
                    // The sender lives in `self.shared`, which this borrows.
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(wait, arrival).await.map_err(|_| Error {
            waited: wait,
            cause: match &self.shared.state.borrow().failure {
                Some(failure) => Cause::Failed(failure.clone()),
                None => Cause::Silent(self.shared.source.name().to_owned()),
            },
        })
    }

    /// The credentials held, if they can be used for a request now. Never waits.
    pub fn valid(&self) -> Option<Arc<Credentials>> {
        let state = self.shared.state.borrow();
        let held = state.credentials.as_ref()?;
        let now = self.shared.clock.now();
        let usable = now + held.margin < held.expires
            && state.rejected.as_deref() != Some(held.access_key_id.as_str());
        usable.then(|| Arc::clone(held))
    }

    /// How long the credentials held still live.
    pub fn remaining(&self) -> Option<Duration> {
        let state = self.shared.state.borrow();
        let held = state.credentials.as_ref()?;
        held.expires.checked_sub(self.shared.clock.now())
    }

    /// Says that S3 does not accept credentials of this generation (an access key id) any more. If
    /// they are the ones held, they are not handed out again and new ones are fetched, once for all
    /// who say so.
    pub fn invalidate(&self, generation: &str) {
        let is_news = self.shared.state.send_if_modified(|state| {
            let held = state.credentials.as_ref();
            let is_held = held.is_some_and(|held| held.access_key_id == generation);
            let is_news = is_held && state.rejected.as_deref() != Some(generation);
            if is_news {
                state.rejected = Some(generation.to_owned());
            }
            is_news
        });
        if is_news {
            tracing::info!("S3 does not accept the credentials any more: fetching new ones");
            self.shared.wake.notify_one();
        }
    }

    /// The URL of the endpoint.
    pub(super) fn endpoint(&self) -> &str {
        self.shared.source.name()
    }

    /// Waits for the first credentials as a mount does: a permanent failure ends the wait at once, a
    /// transient one is tried again until `patience` is over.
    ///
    /// # Errors
    /// The failure.
    pub async fn first(&self, patience: Duration) -> Result<Arc<Credentials>, Error> {
        let begin = Instant::now();
        let _waiting = Waiting::begin(&self.shared);
        let mut states = self.shared.state.subscribe();
        let arrival = async {
            loop {
                if let Some(valid) = self.valid() {
                    return Ok(valid);
                }
                let failure = states.borrow_and_update().failure.clone();
                match failure {
                    Some(failure) if !failure.is_transient() => return Err(failure),
                    _ => {}
                }
                if states.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let cause = match timeout(patience, arrival).await {
            Ok(Ok(credentials)) => return Ok(credentials),
            Ok(Err(failure)) => Cause::Failed(failure),
            Err(_) => match &self.shared.state.borrow().failure {
                Some(failure) => Cause::Failed(failure.clone()),
                None => Cause::Silent(self.shared.source.name().to_owned()),
            },
        };
        Err(Error {
            waited: begin.elapsed(),
            cause,
        })
    }
}

/// Counts a caller as waiting while it lives.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        if shared.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            shared.wake.notify_one();
        }
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The task that owns refreshing.
async fn renew(shared: Arc<Shared>) {
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
        if state.rejected.as_deref() == Some(&credentials.access_key_id) {
            // Both may be wrong, but only with them can it be tried.
            tracing::warn!("S3 rejected the credentials, and the endpoint gives the same again");
            state.rejected = None;
        }
        state.credentials = Some(Arc::new(credentials));
        state.failure = None;
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
        if is_rejected(&shared.state.borrow()) {
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

fn is_rejected(state: &State) -> bool {
    let held = state.credentials.as_ref();
    held.is_some_and(|held| state.rejected.as_deref() == Some(held.access_key_id.as_str()))
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

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;

#[cfg(all(test, shuttle))]
#[path = "manager_model.rs"]
mod model;
