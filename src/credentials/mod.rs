//! Credentials that stay fresh for as long as somebody holds the [`Manager`].
//!
//! State: none -> valid(generation, credentials, expires) -> expired. A generation is an access key
//! id. One background task owns refreshing: it sleeps until three quarters of the life are over
//! (jittered, so that a thousand nodes do not arrive together), fetches, and publishes what it got.
//! A failure backs off with full jitter, up to 60 s while nobody waits and up to 3 s while somebody
//! does; the old credentials go on serving until they really expire.
//!
//! The processes of a user on one host share what one of them fetched ([`Sharing`]).
//!
//! Invariants: [`Manager::current`] never hands out credentials that are known to be expired; there is
//! one fetch at a time, however many ask; time is counted on a clock that goes on in suspend.
//!
//! # As a library
//!
//! A [`Manager`] is a credentials provider of the AWS SDK: requests of weeks, with one login. The SDK's
//! own identity cache must be off, because it throws credentials away before it has new ones.
//!
//! ```no_run
//! use aws_sdk_s3::config::{BehaviorVersion, IdentityCache, Region};
//! use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
//! use s3credmount::credentials::{Manager, Policy, Settings, Sharing};
//! use s3credmount::earthdata::{self, LoginSettings, Table};
//! use s3credmount::network::Network;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let table = Table::built_in();
//! let bucket = table.find("podaac-ops-cumulus-protected").ok_or("not in the table")?;
//! let settings = Settings {
//!     endpoint: earthdata::Settings {
//!         endpoint: bucket.endpoint().to_owned(),
//!         login_host: earthdata::login_host_for(bucket.endpoint()).to_owned(),
//!         login: LoginSettings {
//!             token: Some(std::env::var("EARTHDATA_TOKEN")?.into()),
//!             ..LoginSettings::default()
//!         },
//!     },
//!     sharing: Sharing::default(),
//!     policy: Policy::default(),
//! };
//! let manager = Manager::open(&settings, &Network::from_environment()?)?;
//!
//! let tls = Provider::Rustls(CryptoMode::Ring);
//! let http = aws_smithy_http_client::Builder::new().tls_provider(tls);
//! let config = aws_sdk_s3::Config::builder()
//!     .behavior_version(BehaviorVersion::latest())
//!     .http_client(http.build_https())
//!     .region(Region::new(bucket.region().to_owned()))
//!     .credentials_provider(manager)
//!     .identity_cache(IdentityCache::no_cache())
//!     .build();
//! let s3 = aws_sdk_s3::Client::from_conf(config);
//! let page = s3.list_objects_v2().bucket(bucket.bucket()).send().await?;
//! # Ok(())
//! # }
//! ```

mod clock;
mod disk;
mod first;
mod manager;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
mod provider;
mod renewal;
mod schedule;
mod shared;
mod store;

pub use clock::{BootClock, Clock};
pub use disk::check_directory;
pub use first::{FIRST_CREDENTIALS, first_or_say};
pub use manager::{Cause, Credentials, Error, Fetch, Manager, Policy, Settings, Sharing, Source};
pub use store::{StoreError, random_key};
