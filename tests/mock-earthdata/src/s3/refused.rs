//! Errors as S3 says them: those of the gate, of the lean mode, and of the script.

use std::borrow::Cow;
use std::time::SystemTime;

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use s3s::S3Error;

use crate::clock;
use crate::faults::Fault;
use crate::script::Hit;
use crate::state::State;

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// What S3 says where a policy denies, not merely does not allow.
const EXPLICIT_DENY: &str = "User: arn:aws:sts::123456789012:assumed-role/s3-same-region-access-role/scientist is not authorized \
     to perform the operation on this resource with an explicit deny in an identity-based policy";

/// An error of S3.
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    /// Elements that S3 adds to the error.
    details: Vec<(&'static str, String)>,
    /// Where the bucket is, for who asks at the wrong place.
    pub(crate) region: Option<String>,
}

impl Refused {
    /// An error with the text that S3 has for it.
    pub(crate) fn new(status: StatusCode, code: &'static str) -> Self {
        let message = match code {
            "AccessDenied" => "Access Denied",
            "ExpiredToken" => "The provided token has expired.",
            "InvalidToken" => "The provided token is malformed or otherwise invalid.",
            "InvalidAccessKeyId" => {
                "The AWS Access Key Id you provided does not exist in our records."
            }
            "SlowDown" => "Please reduce your request rate.",
            "RequestTimeTooSkewed" => {
                "The difference between the request time and the current time is too large."
            }
            "InvalidRequest" => {
                "The object was stored using a form of Server Side Encryption. The correct parameters must be \
                 provided to retrieve the object."
            }
            "InvalidObjectState" => "The operation is not valid for the object's storage class",
            "PermanentRedirect" => {
                "The bucket you are attempting to access must be addressed using the specified endpoint. \
                 Please send all future requests to this endpoint."
            }
            "MethodNotAllowed" => "The specified method is not allowed against this resource.",
            _ => "We encountered an internal error. Please try again.",
        };
        Self {
            status,
            code: Cow::Borrowed(code),
            message: Cow::Borrowed(message),
            details: Vec::new(),
            region: None,
        }
    }

    /// With an element more.
    pub(crate) fn with(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.details.push((name, text.into()));
        self
    }

    /// The error of a clock that is off: what the request's says, and what ours does.
    pub(crate) fn skewed(request_time: &str, now: SystemTime) -> Self {
        Self::new(StatusCode::FORBIDDEN, "RequestTimeTooSkewed")
            .with("RequestTime", request_time)
            .with("ServerTime", clock::xml_time(clock::whole_seconds(now)))
            .with("MaxAllowedSkewMilliseconds", "900000")
    }

    /// The error that a request is in for, if its fault is one. It fires.
    pub(crate) fn by(state: &State, hit: &Hit, bucket: &str) -> Option<Self> {
        let refused = match hit.fault() {
            Fault::SlowDown => Self::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            Fault::InternalError => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Fault::AccessDenied => Self::new(StatusCode::FORBIDDEN, "AccessDenied"),
            Fault::ExplicitDeny => Self {
                message: Cow::Borrowed(EXPLICIT_DENY),
                ..Self::new(StatusCode::FORBIDDEN, "AccessDenied")
            },
            Fault::Expired => {
                state.meter.count(|counters| &mut counters.expired_refused);
                Self::new(StatusCode::BAD_REQUEST, "ExpiredToken")
            }
            Fault::InvalidRequest => Self::new(StatusCode::BAD_REQUEST, "InvalidRequest"),
            Fault::TimeTooSkewed => Self::skewed("20000101T000000Z", state.now()),
            Fault::Archived => Self::new(StatusCode::FORBIDDEN, "InvalidObjectState")
                .with("StorageClass", "GLACIER"),
            Fault::OtherRegion(region) => Self {
                region: Some(region.clone()),
                ..Self::new(StatusCode::MOVED_PERMANENTLY, "PermanentRedirect")
                    .with("Endpoint", format!("{bucket}.s3.{region}.amazonaws.com"))
                    .with("Bucket", bucket)
            },
            _ => return None,
        };
        hit.fires();
        Some(refused)
    }

    pub(crate) fn xml(&self) -> String {
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message>",
            self.code, self.message
        );
        for (name, text) in &self.details {
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            xml.push_str(&format!("<{name}>{text}</{name}>"));
        }
        xml.push_str("</Error>");
        xml
    }

    pub(crate) fn response(self) -> Response<s3s::Body> {
        let mut response = Response::new(s3s::Body::from(self.xml()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/xml"),
        );
        if let Some(Ok(region)) = self.region.as_deref().map(HeaderValue::from_str) {
            headers.insert(BUCKET_REGION, region);
        }
        response
    }
}

impl From<S3Error> for Refused {
    fn from(error: S3Error) -> Self {
        let status = error.status_code();
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: Cow::Owned(error.code().as_str().to_owned()),
            message: Cow::Owned(error.message().unwrap_or_default().to_owned()),
            details: Vec::new(),
            region: None,
        }
    }
}
