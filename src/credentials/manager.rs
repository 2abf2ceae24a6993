//! The manager: one task that renews, any number of callers that ask.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use tokio::time::Instant;

use super::clock::{BootClock, Clock};
use super::renewal::renew;
use super::shared::SharedEndpoint;
use crate::earthdata::{self, Endpoint, Grant};
use crate::network::Network;
use crate::sync::{AbortHandle, Arc, AtomicU64, Notify, Ordering, spawn, timeout, watch};

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
    pub(super) expires: Duration,
    /// How long before that they are no longer used.
    pub(super) margin: Duration,
    /// See [`Grant::clock_ahead`].
    pub(super) clock_ahead: i64,
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
pub(super) struct State {
    pub(super) credentials: Option<Arc<Credentials>>,
    /// The failure since the last success.
    pub(super) failure: Option<earthdata::Error>,
    /// S3 does not accept them any more.
    pub(super) is_rejected: bool,
}

/// What the manager has in common with the task that renews.
pub(super) struct Shared {
    pub(super) source: Box<dyn Source>,
    pub(super) clock: Box<dyn Clock>,
    pub(super) policy: Policy,
    pub(super) state: watch::Sender<State>,
    /// How many callers wait for valid credentials.
    pub(super) waiting: AtomicU64,
    /// Wakes the task: somebody began to wait, or a generation was invalidated.
    pub(super) wake: Notify,
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
        self.current_by(Instant::now() + self.shared.policy.wait)
            .await
    }

    /// The same, waited for no longer than until `deadline`.
    ///
    /// # Errors
    /// As of [`Manager::current`].
    pub async fn current_by(&self, deadline: Instant) -> Result<Arc<Credentials>, Error> {
        if let Some(valid) = self.valid() {
            return Ok(valid);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.wait(left.min(self.shared.policy.wait), |_| false)
            .await
    }

    /// Valid credentials, waited for up to `patience`, or until a failure `ends` the wait.
    async fn wait(
        &self,
        patience: Duration,
        ends: impl Fn(&earthdata::Error) -> bool,
    ) -> Result<Arc<Credentials>, Error> {
        let begin = Instant::now();
        let _waiting = Waiting::begin(&self.shared);
        let mut states = self.shared.state.subscribe();
        let arrival = async {
            loop {
                // First: what comes from here on is a change that is waited for.
                let failure = states.borrow_and_update().failure.clone();
                if let Some(valid) = self.valid() {
                    return Ok(valid);
                }
                if let Some(failure) = failure.filter(&ends) {
                    return Err(failure);
                }
                if states.changed().await.is_err() {
                    // The sender lives in `self.shared`, which this borrows.
                    std::future::pending::<()>().await;
                }
            }
        };
        let cause = match timeout(patience, arrival).await {
            Ok(Ok(valid)) => return Ok(valid),
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

    /// The credentials held, if they can be used for a request now. Never waits.
    pub fn valid(&self) -> Option<Arc<Credentials>> {
        let state = self.shared.state.borrow();
        let held = state.credentials.as_ref()?;
        let now = self.shared.clock.now();
        let usable = now + held.margin < held.expires && !state.is_rejected;
        usable.then(|| Arc::clone(held))
    }

    /// How long `credentials`, which this handed out, still live.
    pub fn remaining(&self, credentials: &Credentials) -> Duration {
        credentials.expires.saturating_sub(self.shared.clock.now())
    }

    /// When `credentials`, which this handed out, end, by the clock of the system.
    pub fn end(&self, credentials: &Credentials) -> SystemTime {
        SystemTime::now() + self.remaining(credentials)
    }

    /// Says that S3 does not accept `credentials`, which this handed out, any more. If they are the ones held
    /// (the same ones may have been granted again meanwhile), they are not handed out again and new ones are
    /// fetched, once for all who say so.
    pub fn invalidate(&self, credentials: &Arc<Credentials>) {
        let is_news = self.shared.state.send_if_modified(|state| {
            let held = state.credentials.as_ref();
            let is_held = held.is_some_and(|held| Arc::ptr_eq(held, credentials));
            let is_news = is_held && !state.is_rejected;
            state.is_rejected |= is_news;
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
        self.wait(patience, |failure| !failure.is_transient()).await
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

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;

#[cfg(all(test, shuttle))]
#[path = "manager_model.rs"]
mod model;
