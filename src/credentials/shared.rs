//! The endpoint as a source for all processes of a user on one host: one of them fetches, the others
//! take what it got from a file.
//!
//! Who wants new credentials names the generation that they are to replace. A file that holds others,
//! not yet due for renewal, is the answer. If it does not, the lock decides who fetches; the others
//! look at the file until it has what they want. The lock is free when its holder dies; one that was
//! stopped, or a file system that does not answer, is waited for a bounded time, and then each is on
//! its own. Nothing here holds up a thread of the runtime.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::clock::Clock;
use super::disk::Disk;
use super::manager::{Fetch, Sharing, Source};
use super::store::{Entry, Lock, Mark, Record, SharedGrant};
use crate::earthdata::{Endpoint, Error, Grant, Login, Refusal};
use crate::sync::{Arc, AtomicBool, Ordering};

/// How long to wait for another process that fetches. A login with all its redirects takes a few
/// seconds, and a mount gives up after 17.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at the file, at first and in the end.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// An endpoint whose credentials are shared by way of a file.
pub(super) struct SharedEndpoint {
    endpoint: Endpoint,
    sharing: Sharing,
    clock: Arc<dyn Clock>,
    disk: Disk,
    /// There was a mark of a refused login: once it is gone, the user wants it sent again.
    was_marked: AtomicBool,
}

/// The files for one login: an endpoint's, and the login's own, since a wrong password is wrong for every endpoint.
#[derive(Clone)]
struct Entries {
    grants: Entry,
    marks: Entry,
}

/// What a look at the file found.
enum Look {
    /// What is wanted.
    Found(SharedGrant),
    /// It is on us to fetch; what there is, is not what is wanted.
    Ours(Lock, Option<SharedGrant>),
    /// Another process fetches.
    Busy(Option<SharedGrant>),
    /// The lock does not work here.
    Broken(String),
}

impl SharedEndpoint {
    pub(super) fn new(endpoint: Endpoint, sharing: Sharing, clock: impl Clock) -> Self {
        Self {
            endpoint,
            sharing,
            clock: Arc::new(clock),
            disk: Disk::default(),
            was_marked: AtomicBool::new(false),
        }
    }

    /// Its `remaining` counts from the moment that it returns on: files take time, too.
    async fn fetch_shared(&self, replaces: Option<&str>) -> Result<Grant, Error> {
        let login = self.endpoint.find_login().await?;
        let login = login.as_ref();
        let Some(entries) = self.entries(login).await else {
            return self.endpoint.fetch_as(login).await;
        };
        let (lock, others) = match self.wait_for(&entries.grants, replaces).await {
            Look::Found(shared) => {
                tracing::info!("another process of this host has fetched credentials");
                return Ok(shared.grant(self.clock.now()));
            }
            Look::Ours(lock, others) => (Some(lock), others),
            Look::Busy(others) => {
                tracing::warn!("another process has been fetching credentials for too long");
                (None, others)
            }
            Look::Broken(why) => {
                tracing::warn!("credentials are not shared: {why}");
                (None, None)
            }
        };
        let result = self.fetch_as(&entries, others, login, replaces).await;
        drop(lock);
        Ok(result?.grant(self.clock.now()))
    }

    /// The files for `login` in the first directory that can be used.
    async fn entries(&self, login: Option<&Login>) -> Option<Entries> {
        let identity = self.endpoint.identity(login);
        // A netrc that is saved again may be tried again.
        let changed = login.and_then(Login::changed);
        let login = self.endpoint.login_identity(login);
        let login = format!("{changed:?}\n{}", login.expose_secret()).into();
        let directories = self.sharing.directories.clone();
        let open = move || {
            let mut why = Vec::new();
            for directory in directories {
                let grants = Entry::open(&directory, &identity);
                let both = grants.and_then(|grants| {
                    let marks = Entry::open(&directory, &login)?;
                    Ok(Entries { grants, marks })
                });
                match both {
                    Ok(both) => return Some(both),
                    Err(error) => why.push(error.to_string()),
                }
            }
            if !why.is_empty() {
                tracing::warn!("credentials are not shared: {}", why.join(", "));
            }
            None
        };
        self.disk.run(open).await.flatten()
    }

    /// Looks until there is something to be done.
    async fn wait_for(&self, entry: &Entry, replaces: Option<&str>) -> Look {
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let (entry, clock) = (entry.clone(), Arc::clone(&self.clock));
            let replaces = replaces.map(str::to_owned);
            let always_fetch = self.sharing.always_fetch;
            let wanted = move |shared: &SharedGrant| {
                !always_fetch && shared.is_fresh(replaces.as_deref(), clock.now())
            };
            match self.disk.run(move || look(&entry, wanted)).await {
                Some(Look::Busy(_)) if begin.elapsed() < LONGEST_WAIT => {}
                Some(look) => return look,
                None => return Look::Broken("the file system does not answer".to_owned()),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Fetches, and tells the others.
    async fn fetch_as(
        &self,
        entries: &Entries,
        others: Option<SharedGrant>,
        login: Option<&Login>,
        replaces: Option<&str>,
    ) -> Result<SharedGrant, Error> {
        let held = others.clone();
        // Better than nothing: credentials of another process, though due for renewal.
        let others = others.filter(|_| !self.sharing.always_fetch);
        let others = |error| {
            let living = others.filter(|shared| shared.is_living(replaces, self.clock.now()));
            living.ok_or(error)
        };
        let both = entries.clone();
        let read = move || {
            let wrong = both.marks.read()?.refused;
            let locked = both.grants.read()?.refused;
            Some(wrong.or(locked))
        };
        let told = self.disk.run(read).await.flatten();
        // A mark that cannot be told is not one that somebody removed.
        let was_marked =
            |mark: &Option<Mark>| self.was_marked.swap(mark.is_some(), Ordering::Relaxed);
        let was_marked = told.as_ref().is_some_and(was_marked);
        let mark = told.flatten();
        if let (Some(login), Some(mark)) = (login, &mark)
            && let Some(refusal) = mark.holds(login.changed(), self.clock.now())
        {
            let path = entries.marks.path().display();
            let hint = format!(
                ", and if it is right there by now, remove {path}, which says that it was refused"
            );
            return others(self.endpoint.refused(login, refusal, &hint));
        }
        if was_marked && mark.is_none() {
            self.endpoint.forget_refusal();
        }
        match self.endpoint.fetch_as(login).await {
            Ok(grant) => {
                let shared = SharedGrant::of(&grant, self.clock.now());
                let news = Record {
                    grant: Some(shared.clone()),
                    refused: None,
                };
                self.tell(&entries.grants, news).await;
                Ok(shared)
            }
            Err(error) => {
                if let Some(refusal) = error.refusal() {
                    let changed = login.and_then(Login::changed);
                    let refused = Some(Mark::new(refusal, changed, self.clock.now()));
                    let (entry, grant) = match refusal {
                        Refusal::WrongPassword => (&entries.marks, None),
                        // Perhaps for this endpoint's application only.
                        Refusal::Locked => (&entries.grants, held),
                    };
                    let is_told = self.tell(entry, Record { grant, refused }).await;
                    self.was_marked.fetch_or(is_told, Ordering::Relaxed);
                }
                others(error)
            }
        }
    }

    /// Writes `news` for the other processes; without them, each is on its own. Whether that succeeded.
    async fn tell(&self, entry: &Entry, news: Record) -> bool {
        let entry = entry.clone();
        match self.disk.run(move || entry.write(&news)).await {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!("credentials are not shared: {error}");
                false
            }
            None => false,
        }
    }
}

impl Source for SharedEndpoint {
    fn fetch<'a>(&'a self, replaces: Option<&'a str>) -> Fetch<'a> {
        Box::pin(self.fetch_shared(replaces))
    }

    fn name(&self) -> &str {
        self.endpoint.url()
    }
}

/// Looks for credentials that are `wanted`, and takes the lock if there are none.
fn look(entry: &Entry, wanted: impl Fn(&SharedGrant) -> bool) -> Look {
    let read = || entry.read().and_then(|record| record.grant);
    let grant = read();
    if let Some(shared) = grant.clone().filter(&wanted) {
        return Look::Found(shared);
    }
    match entry.try_lock() {
        Ok(None) => Look::Busy(grant),
        Err(error) => Look::Broken(error.to_string()),
        Ok(Some(lock)) => {
            // Whoever held it before may have just written.
            let grant = read();
            match grant.clone().filter(&wanted) {
                Some(shared) => Look::Found(shared),
                None => Look::Ours(lock, grant),
            }
        }
    }
}
