//! The client of one bucket, and the connections it may use.

use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_s3::types::StorageClass;
use reqwest::Url;

use super::error::{Error, Failure};
use super::get::Getter;
use super::hedge::Hedges;
use super::http;
use super::types::{ETag, ObjectMeta, Storage};
use crate::credentials::Manager;
use crate::network::Network;
use crate::request::{Class, Request};
use crate::sync::{Arc, AtomicBool, Ordering, OwnedSemaphorePermit, Semaphore};

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
}

/// The client of one bucket.
#[derive(Debug)]
pub struct S3 {
    pub(super) client: aws_sdk_s3::Client,
    pub(super) getter: Getter,
    pub(super) hedges: Hedges,
    pub(super) bucket: String,
    pub(super) credentials: Option<Manager>,
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
        let connector = http::connector(network, is_direct, settings.max_connections);
        let path_style = settings.force_path_style
            || settings
                .endpoint_url
                .as_ref()
                .is_some_and(names_no_bucket_host);
        let getter = Getter::new(&settings, path_style, connector.clone());
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http::client(&connector))
            .interceptor(http::UserAgent)
            .region(Region::new(settings.region))
            .force_path_style(path_style)
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            // `body` watches for stalls itself: it knows whether somebody waits.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // The default asks for checksums on ranged GETs, which S3 cannot give.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(settings.endpoint_url.map(String::from));
        config = match &credentials {
            Some(manager) => {
                config.credentials_provider(SharedCredentialsProvider::new(manager.clone()))
            }
            None => config.allow_no_auth(),
        };
        Self {
            client: aws_sdk_s3::Client::from_conf(config.build()),
            getter,
            hedges: Hedges::default(),
            bucket: settings.bucket,
            credentials,
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
        let head = |_| async {
            let head = self.client.head_object().bucket(&self.bucket).key(key);
            let head = head.send().await;
            let head = head.map_err(|e| Failure::from_sdk(&e, true))?;
            let size = head.content_length().and_then(|n| u64::try_from(n).ok());
            let (Some(size), Some(etag)) = (size, head.e_tag()) else {
                return Err(Failure::Transient("a HEAD without size or ETag".to_owned()));
            };
            Ok(ObjectMeta {
                size,
                etag: ETag::from(etag),
                last_modified: system_time(head.last_modified()),
                storage: Storage::new(
                    head.storage_class().map(StorageClass::as_str),
                    head.restore()
                        .is_some_and(|restore| restore.contains("\"false\"")),
                ),
            })
        };
        Ok(self.retried(request, head).await?.0)
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Whether some request has succeeded.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// A connection for demand, if one is free now.
    pub(super) fn free_connection(&self) -> Option<Connection> {
        let any = Arc::clone(&self.connections.any).try_acquire_owned();
        Some(Connection {
            _any: any.ok()?,
            _prefetch: None,
        })
    }

    pub(super) async fn connection(&self, request: &Request) -> Result<Connection, Error> {
        let connection = self.connections.get(request.class);
        tokio::time::timeout_at(request.deadline, connection)
            .await
            .map_err(|_| Error::TimedOut)
    }
}

/// S3's times are whole seconds; before 1970 there was none.
pub(super) fn system_time(time: Option<&aws_smithy_types::DateTime>) -> std::time::SystemTime {
    let seconds = time.map_or(0, aws_smithy_types::DateTime::secs);
    std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// An address, or localhost: `BUCKET.HOST` would name nothing.
fn names_no_bucket_host(endpoint_url: &Url) -> bool {
    let host = endpoint_url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

/// The right to use a connection, given back on drop.
#[derive(Debug)]
pub(super) struct Connection {
    _any: OwnedSemaphorePermit,
    _prefetch: Option<OwnedSemaphorePermit>,
}

/// First come, first served; a quarter is kept for demand.
#[derive(Debug)]
struct Connections {
    any: Arc<Semaphore>,
    prefetch: Arc<Semaphore>,
}

impl Connections {
    fn new(most: usize) -> Self {
        Self {
            any: Arc::new(Semaphore::new(most)),
            prefetch: Arc::new(Semaphore::new(most - most / 4)),
        }
    }

    async fn get(&self, class: Class) -> Connection {
        const NEVER_CLOSED: &str = "the semaphore is never closed";
        let prefetch = match class {
            Class::Demand => None,
            Class::Prefetch => {
                let permit = Arc::clone(&self.prefetch).acquire_owned().await;
                Some(permit.expect(NEVER_CLOSED))
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
    use super::*;

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
