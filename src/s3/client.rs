//! The client of one bucket, and the connections it may use.

use std::net::IpAddr;
use std::time::SystemTime;

use reqwest::Url;

use super::checksum::Checksum;
use super::error::{Error, Failure};
use super::hedge::{Hedges, Kinds};
use super::http::Pool;
use super::retry::Attempt;
use super::send::{Method, Sender, path};
use super::types::{ETag, ObjectMeta, Storage};
use crate::credentials::Manager;
use crate::network::Network;
use crate::request::{Class, Request};
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering, OwnedSemaphorePermit, Semaphore};

/// Where a bucket is and how to talk to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bucket.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// Another server than AWS's.
    pub endpoint_url: Option<Url>,
    /// `https://HOST/BUCKET/KEY` instead of `https://BUCKET.HOST/KEY`.
    pub force_path_style: bool,
    /// How many requests may be under way at once; at least 1.
    pub max_connections: usize,
    /// Whether to ask for checksums of small objects, and compare them.
    pub checksums: bool,
}

/// The client of one bucket.
#[derive(Debug)]
pub struct S3 {
    pub(super) sender: Sender,
    pub(super) hedges: Kinds,
    pub(super) bucket: String,
    pub(super) credentials: Option<Manager>,
    pub(super) compares: bool,
    pub(super) compared: Compared,
    connections: Connections,
    /// A request has succeeded: from then on a 403 says something about the key, not about us.
    proven: AtomicBool,
}

impl S3 {
    /// Sets up the client; sends nothing yet. Without credentials, requests are not signed.
    pub fn new(settings: Settings, credentials: Option<Manager>, network: &Network) -> Self {
        // A proxy must not see plain http, and could not reach what is on this machine.
        let endpoint = settings.endpoint_url.as_ref();
        let is_direct = endpoint.is_some_and(|url| url.scheme() != "https");
        let pool = Pool::new(network, is_direct, settings.max_connections);
        Self::over(pool, settings, credentials)
    }

    /// The client that sends by `pool`.
    pub(super) fn over(pool: Pool, settings: Settings, credentials: Option<Manager>) -> Self {
        let path_style = settings.force_path_style
            || settings
                .endpoint_url
                .as_ref()
                .is_some_and(names_no_bucket_host);
        Self {
            sender: Sender::new(&settings, path_style, pool),
            hedges: Kinds::default(),
            bucket: settings.bucket,
            credentials,
            compares: settings.checksums,
            compared: Compared::default(),
            connections: Connections::new(settings.max_connections),
            proven: AtomicBool::new(false),
        }
    }

    /// Size, ETag and time of an object.
    ///
    /// # Errors
    /// [`Error::AccessDenied`] also for keys that do not exist, where listing is denied.
    pub async fn head(&self, key: &str, request: &Request) -> Result<ObjectMeta, Error> {
        tracing::trace!(key, "HEAD");
        let target = path(key);
        let head = async |attempt: Attempt| {
            let send = || self.sender.send(Method::Head, &target, &[], &attempt);
            let head = self.hedged(&self.hedges.names, request, send).await?;
            let header = |name| head.headers().get(name);
            let size = header("content-length").and_then(|size| size.parse().ok());
            let (Some(size), Some(etag)) = (size, header("etag")) else {
                return Err(Failure::Transient("a HEAD without size or ETag".to_owned()));
            };
            let time =
                header("last-modified").and_then(|date| httpdate::parse_http_date(date).ok());
            Ok(ObjectMeta {
                size,
                etag: ETag::from(etag),
                last_modified: time.unwrap_or(SystemTime::UNIX_EPOCH),
                storage: Storage::new(
                    header("x-amz-storage-class"),
                    header("x-amz-restore").is_some_and(|restore| restore.contains("\"false\"")),
                ),
            })
        };
        Ok(self.retried(request, head).await?.0)
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// How many bodies were compared with the checksum of their object.
    pub fn compared(&self) -> &Compared {
        &self.compared
    }

    /// Whether some request has succeeded.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Sends with `send`, and once more where that takes longer than `hedges` expect, if a connection is free then.
    pub(super) async fn hedged<T, F>(
        &self,
        hedges: &Hedges,
        request: &Request,
        send: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let may_send = || self.free_connection();
        hedges.first_of(request.class, send, may_send).await
    }

    /// A connection for demand, if one is free now.
    fn free_connection(&self) -> Option<Connection> {
        let any = Arc::clone(&self.connections.any).try_acquire_owned();
        Some(Connection {
            _any: any.ok()?,
            _prefetch: None,
        })
    }

    /// How many requests may be under way at once that nobody waits for.
    pub fn most_ahead(&self) -> usize {
        self.connections.most_ahead
    }

    pub(super) async fn connection(&self, request: &Request) -> Result<Connection, Error> {
        let connection = self.connections.get(request);
        tokio::time::timeout_at(request.deadline, connection)
            .await
            .map_err(|_| Error::TimedOut)
    }
}

/// An address, or localhost: `BUCKET.HOST` would name nothing.
fn names_no_bucket_host(endpoint_url: &Url) -> bool {
    let host = endpoint_url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

/// Bodies that were compared with the checksum of their object.
#[derive(Debug, Default)]
pub struct Compared {
    right: AtomicU64,
    wrong: AtomicU64,
}

impl Compared {
    /// Those that were right, and those that were not.
    pub fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.right), count(&self.wrong))
    }

    /// Compares, when all bytes have come, and counts; bytes that are wrong are told, too, and what their
    /// checksum is called.
    pub(super) fn compare(&self, checksum: Checksum, key: &str) -> Result<(), &'static str> {
        let compared = checksum.compare();
        match compared {
            Ok(()) => {
                self.right.fetch_add(1, Ordering::Relaxed);
            }
            Err(algorithm) => {
                let wrong = self.wrong.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(
                    key,
                    algorithm,
                    wrong,
                    "an object came with wrong bytes: asking for it again"
                );
            }
        }
        compared
    }
}

/// The right to use a connection, given back on drop.
#[derive(Debug)]
pub(super) struct Connection {
    _any: OwnedSemaphorePermit,
    _prefetch: Option<OwnedSemaphorePermit>,
}

/// First come, first served; a quarter is kept for demand. A guess that somebody has come to wait for may have one of
/// these, long ones no more than half of them: they would leave nothing to lookups and short reads for as long as the
/// link is slow.
#[derive(Debug)]
struct Connections {
    any: Arc<Semaphore>,
    prefetch: Arc<Semaphore>,
    awaited: Arc<Semaphore>,
    most_ahead: usize,
}

impl Connections {
    fn new(most: usize) -> Self {
        let kept = most / 4;
        let most_ahead = most - kept;
        Self {
            any: Arc::new(Semaphore::new(most)),
            prefetch: Arc::new(Semaphore::new(most_ahead)),
            awaited: Arc::new(Semaphore::new(kept.div_ceil(2))),
            most_ahead,
        }
    }

    async fn get(&self, request: &Request) -> Connection {
        const NEVER_CLOSED: &str = "the semaphore is never closed";
        let prefetch = match request.class {
            Class::Demand => None,
            Class::Prefetch => {
                let ahead = Arc::clone(&self.prefetch).acquire_owned();
                let awaited = async {
                    request.is_awaited().await;
                    match request.is_long {
                        true => Some(Arc::clone(&self.awaited).acquire_owned().await),
                        // As demand.
                        false => None,
                    }
                };
                let permit = tokio::select! {
                    permit = ahead => Some(permit),
                    permit = awaited => permit,
                };
                permit.map(|permit| permit.expect(NEVER_CLOSED))
            }
        };
        let any = Arc::clone(&self.any).acquire_owned().await;
        Connection {
            _any: any.expect(NEVER_CLOSED),
            _prefetch: prefetch,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::request::Awaited;

    #[test]
    fn guesses_that_somebody_waits_for_get_what_is_kept_and_long_ones_half_of_it() {
        let connections = Connections::new(16);
        let demand = Request::demand(Duration::from_secs(60));
        let now = |request: &Request| connections.get(request).now_or_never();
        let guess = |is_long, is_awaited: bool| {
            let awaited = Arc::new(Awaited::default());
            if is_awaited {
                awaited.set();
            }
            now(&demand.as_prefetch().until_awaited(&awaited, is_long))
        };
        let mut ahead: Vec<_> = (0..12).filter_map(|_| guess(true, false)).collect();
        assert_eq!(ahead.len(), 12);
        assert!(guess(false, false).is_none());
        let long: Vec<_> = (0..12).filter_map(|_| guess(true, true)).collect();
        assert_eq!(long.len(), 2);
        let short = guess(false, true).expect("as demand");
        let waited_for = now(&demand).expect("the last one");
        assert!(guess(false, true).is_none() && now(&demand).is_none());
        drop((short, waited_for));
        ahead.pop();
        assert!(guess(true, true).is_some(), "of those for guesses");
    }

    #[test]
    fn path_style_follows_for_addresses_and_localhost() {
        for url in [
            "http://127.0.0.4:9000",
            "http://localhost:1",
            "http://[::1]:9000/",
            "https://10.0.0.1",
        ] {
            assert!(names_no_bucket_host(&url.parse().expect(url)), "{url}");
        }
        for url in ["https://s3.example.org", "https://localhost.example.org:1"] {
            assert!(!names_no_bucket_host(&url.parse().expect(url)), "{url}");
        }
    }
}
