//! The HTTP protocol of Earthdata: `/s3credentials`, Earthdata Login, netrc, and the bucket table
//! with the sweep of CMR that renews it.
//!
//! One [`Endpoint`] stands for one `/s3credentials` URL. [`Endpoint::fetch_as`] goes through the login
//! as often as it must and answers with a [`Grant`], or with an [`Error`] whose text tells a user
//! what to do. It keeps, in memory, the login that was found last, the token or the cookies that it led
//! to, and the mark of a rejected password; to keep credentials fresh is the business of
//! [`crate::credentials`].
//!
//! Sources of the protocol facts: asfadmin/thin-egress-app (TEA), nasa/cumulus and
//! nasa/cumulus-distribution-api (Cumulus).

mod answer;
mod cmr;
mod dance;
mod endpoint;
mod error;
mod login;
mod netrc;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
mod refusal;
mod registry;
mod sweep;
mod table_file;
mod web;

pub(crate) use answer::is_printable;
pub use answer::{Grant, LONGEST_LIFE};
pub use cmr::{CMR, CmrError, Sweep, sweep};
pub use endpoint::{Endpoint, Settings};
pub use error::Error;
pub use login::{Login, LoginSettings, bare_token};
pub use netrc::{Netrc, NetrcError};
pub use refusal::Refusal;
pub use registry::{BucketRow, Table, login_host_for};
