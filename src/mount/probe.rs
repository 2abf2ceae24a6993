//! The first request to the bucket, which finds out before the mount what would fail in it.

use std::time::Duration;

use super::target::{Target, hint};
use super::{Config, Error, Launcher, warn};
use crate::instance;
use crate::request::Request;
use crate::s3::{self, S3};

/// See [`crate::credentials::FIRST_CREDENTIALS`].
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// What S3 says of a policy that denies, unlike of one that does not allow (AWS, "Troubleshoot access
/// denied error messages"); NASA's deny requests from outside of the region so.
const EXPLICIT: &str = "explicit deny";

/// Lists one key; whether that is allowed. A denied listing is a warning: some buckets cannot be listed,
/// and their files can be read all the same. But where S3 denies explicitly, and this machine is in
/// another region than the bucket, nothing ever can.
pub(super) async fn probe(
    config: &Config,
    s3: &S3,
    launcher: &dyn Launcher,
) -> Result<bool, Error> {
    let target = Target {
        source: &config.source,
        s3: &config.s3,
        credentials: config.credentials.as_ref(),
    };
    let request = Request::demand(FIRST_ANSWER);
    let error = match target.first_keys(s3, 1, &request).await {
        Ok(page) => {
            if page.objects.is_empty() && config.keys.is_empty() {
                let location = target.location();
                let is_file = target.is_file(s3, &request).await;
                if let Some(hint) = target.misnamed(is_file) {
                    return Err(Error::Nothing { location, hint });
                }
                warn(launcher, &format!("{location} is empty"));
            }
            return Ok(true);
        }
        Err(error) => error,
    };
    let location = target.location();
    if let s3::Error::AccessDenied(said) = &error
        && error.is_denial()
    {
        let machine = instance::region().await;
        let reasons = target.reasons_of_listing(machine.as_deref());
        let is_elsewhere = machine.is_some_and(|machine| machine != config.s3.region);
        if is_elsewhere && said.contains(EXPLICIT) {
            return Err(Error::Denied {
                location,
                error: Box::new(error),
                reasons,
            });
        }
        let names = match config.keys.len() {
            0 => "files whose names you know can be read (--keys supplies names)".to_owned(),
            1 => "one name is known from --keys".to_owned(),
            count => format!("{count} names are known from --keys"),
        };
        let text = format!(
            "{location} may not be listed ({error}): {names}. If files cannot be read, too: {reasons}"
        );
        warn(launcher, &text);
        return Ok(false);
    }
    Err(Error::Bucket {
        location,
        hint: hint(&error),
        error: Box::new(error),
    })
}
