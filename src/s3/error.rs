//! What S3 can answer but data, and which of it is worth another try.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use aws_smithy_runtime_api::client::result::ConnectorError;

use crate::credentials;
use crate::network::causes;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such key.
    #[error("no such object")]
    NotFound,
    /// No such bucket.
    #[error("no such bucket")]
    NoSuchBucket,
    /// Refused, with credentials that are fresh.
    #[error("access denied by S3{}", said(.0))]
    AccessDenied(String),
    /// The object is not what it was when its version was noted (`If-Match` failed).
    #[error("the object was replaced while it was read")]
    Changed,
    /// In an archive class and not restored.
    #[error("the object is archived (GLACIER or DEEP_ARCHIVE) and must be restored first")]
    Archived,
    /// The bucket is in another region than requests are signed for.
    #[error("the bucket is in another region: mount it with --region {0}")]
    WrongRegion(String),
    /// No valid credentials in time.
    #[error(transparent)]
    NoCredentials(#[from] credentials::Error),
    /// S3 says that even renewed credentials are expired or unknown.
    #[error("S3 does not accept the credentials that /s3credentials grants{}", said(.0))]
    CredentialsRejected(String),
    /// Throttled, failing or out of reach for as long as is worth trying.
    #[error("S3 cannot be read: {0}")]
    Unavailable(String),
    /// The operation's deadline is over.
    #[error("no answer from S3 within the time for one operation (--operation-timeout)")]
    TimedOut,
    /// An answer that cannot be used, and that another try will not mend.
    #[error("S3 answered with nonsense: {0}")]
    Protocol(String),
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

/// One attempt that failed, and what to do about it.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again cannot help.
    Final(Error),
    /// It may pass: with backoff.
    Transient(String),
    /// The credentials are not accepted any more: with new ones.
    Expired(String),
}

impl Failure {
    /// Reads what the SDK makes of an answer. `head` requests have no body, and so no code.
    pub(super) fn from_sdk<E>(error: &SdkError<E>, head: bool) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let SdkError::ServiceError(service) = error else {
            return Self::Transient(cause(error));
        };
        let status = service.raw().status().as_u16();
        let code = service.err().code().unwrap_or_default();
        let message = service.err().message().unwrap_or_default();
        let region = service.raw().headers().get("x-amz-bucket-region");
        Self::from_answer(status, code, message, region, head)
    }

    /// Reads an answer that is no success.
    pub(super) fn from_answer(
        status: u16,
        code: &str,
        message: &str,
        region: Option<&str>,
        head: bool,
    ) -> Self {
        let text = match (code, message) {
            ("", _) => format!("HTTP {status}"),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        match (status, code, region) {
            (
                _,
                "ExpiredToken" | "InvalidAccessKeyId" | "InvalidToken" | "TokenRefreshRequired",
                _,
            ) => Self::Expired(text),
            (400, _, _) if head => Self::Expired(text),
            (301 | 307 | 400, _, Some(region)) => {
                Self::Final(Error::WrongRegion(region.to_owned()))
            }
            (_, "RequestTimeTooSkewed" | "RequestTimeout" | "SlowDown", _) => Self::Transient(text),
            (_, "NoSuchBucket", _) => Self::Final(Error::NoSuchBucket),
            (404, _, _) => Self::Final(Error::NotFound),
            (_, "InvalidObjectState", _) => Self::Final(Error::Archived),
            (401 | 403, _, _) => Self::Final(Error::AccessDenied(text)),
            (412, _, _) => Self::Final(Error::Changed),
            (408 | 429 | 500.., _, _) => Self::Transient(text),
            _ => Self::Final(Error::Protocol(text)),
        }
    }

    pub(super) fn changed() -> Self {
        Self::Final(Error::Changed)
    }

    pub(super) fn protocol(text: String) -> Self {
        Self::Final(Error::Protocol(text))
    }
}

/// No answer at all.
pub(super) fn connection_failed(error: &ConnectorError) -> Failure {
    if error.is_timeout() {
        return Failure::Transient("no answer in time".to_owned());
    }
    Failure::Transient(short(causes(error)))
}

fn cause<E: std::error::Error + 'static>(error: &SdkError<E>) -> String {
    match error {
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        _ => short(causes(error)),
    }
}

fn short(text: String) -> String {
    text.chars().take(300).collect()
}
