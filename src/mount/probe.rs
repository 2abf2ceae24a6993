//! The first request to the bucket, which finds out before the mount what would fail in it.

use std::time::Duration;

use super::target::{Target, hint};
use super::{Config, Error, Launcher, warn};
use crate::instance;
use crate::request::Request;
use crate::s3::{self, S3};

/// See [`super::FIRST_CREDENTIALS`].
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Lists one key. A denied listing is a warning: some buckets cannot be listed, and their files can
/// be read all the same.
pub(super) async fn probe(config: &Config, s3: &S3, launcher: &dyn Launcher) -> Result<(), Error> {
    let target = Target {
        source: &config.source,
        s3: &config.s3,
        credentials: config.credentials.as_ref(),
    };
    let request = Request::demand(FIRST_ANSWER);
    let error = match target.first_keys(s3, 1, &request).await {
        Ok(page) => {
            if page.objects.is_empty() {
                let text = format!("{} is empty: nothing lies below it", config.source);
                warn(launcher, &text);
            }
            return Ok(());
        }
        Err(error) => error,
    };
    let location = target.location();
    if matches!(error, s3::Error::AccessDenied(_)) {
        let reasons = target.reasons(instance::region().await.as_deref());
        let text = format!(
            "{location} may not be listed ({error}): files whose names you know can be read. If \
             those fail, too: {reasons}"
        );
        warn(launcher, &text);
        return Ok(());
    }
    Err(Error::Bucket {
        location,
        hint: hint(&error),
        error: Box::new(error),
    })
}
