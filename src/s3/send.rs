//! One request to the bucket, without the SDK's layers, which cost more CPU than the request itself.
//! The code that signs, and that knows AWS's endpoints, is the SDK's.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::SdkBody;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::HttpConnector;
use futures_util::FutureExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::Settings;
use super::error::{Failure, code_and_message, connection_failed, plain};
use super::http::Pool;
use super::pace::whole;
use super::retry::Attempt;
use crate::credentials::Credentials;
use crate::network::USER_AGENT;
use crate::sync::{Mutex, lock};

/// What stays as it is in a URL (SigV4, "URI encode") ...
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// ... and the slash, in its path.
const PATH: &AsciiSet = &QUERY.remove(b'/');
/// S3 refuses requests signed at a time this far from its own (AWS General Reference, SigV4), less what
/// its answer may have been under way.
const MOST_SKEW: Duration = Duration::from_secs(14 * 60);
/// Errors of S3 are some hundred bytes.
const MAX_ERROR: usize = 64 << 10;

/// What to ask for: all that this program ever does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// The path of an object behind the bucket's URL.
pub(super) fn path(key: &str) -> String {
    format!("/{}", utf8_percent_encode(key, PATH))
}

/// The path of the bucket with a query.
pub(super) fn query(parameters: &[(&str, &str)]) -> String {
    let mut query = "/".to_owned();
    for (name, value) in parameters {
        query.push(if query.len() == 1 { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(value, QUERY));
    }
    query
}

/// Sends requests to one bucket.
#[derive(Debug)]
pub(super) struct Sender {
    pool: Pool,
    /// The bucket's URL without a final slash; or why it has none.
    base: Result<String, String>,
    region: String,
    /// What to add to our clock to have S3's, once S3 said that ours is wrong.
    skew: Mutex<Skew>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Skew {
    ahead: Duration,
    behind: Duration,
}

impl Sender {
    /// The endpoint is where the SDK would send to.
    pub(super) fn new(settings: &Settings, path_style: bool, pool: Pool) -> Self {
        let endpoint = settings.endpoint_url.as_ref();
        let params = Params::builder()
            .bucket(&settings.bucket)
            .region(&settings.region)
            .set_endpoint(endpoint.map(|url| url.as_str().to_owned()))
            .force_path_style(path_style)
            .build();
        let base = match params {
            Ok(params) => DefaultResolver::new()
                .resolve_endpoint(&params)
                .now_or_never()
                .map_or_else(
                    || Err("not known yet".to_owned()),
                    |e| {
                        e.map(|e| e.url().trim_end_matches('/').to_owned())
                            .map_err(|e| e.to_string())
                    },
                ),
            Err(error) => Err(error.to_string()),
        };
        Self {
            pool,
            base,
            region: settings.region.clone(),
            skew: Mutex::default(),
        }
    }

    /// Sends one request, once, for what is at `target` behind the bucket's URL. What comes is a
    /// success, with its body still to come.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        attempt: &Attempt,
    ) -> Result<HttpResponse, Failure> {
        let request = self.request(method, target, headers, attempt.credentials.as_deref())?;
        let answer = self.pool.current().call(request);
        let answer = match tokio::time::timeout(attempt.patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(connection_failed(&error, self.host())),
            Err(_) => {
                let (host, seconds) = (self.host(), attempt.patience.as_secs());
                let why = format!("no answer from {host} within {seconds} s");
                return Err(Failure::TooSlow(why));
            }
        };
        match answer.status().as_u16() {
            200..300 => Ok(answer),
            400 if method == Method::Head => Err(self.said_to_get(target, attempt).await),
            _ => Err(self.refused(method, answer, attempt.patience).await),
        }
    }

    /// Why S3 answers 400 to a HEAD: that may be expired credentials, another region or a key of its own kind, and only
    /// to a GET does it say which.
    async fn said_to_get(&self, target: &str, attempt: &Attempt) -> Failure {
        let first_byte = [("range", "bytes=0-0")];
        let get = Box::pin(self.send(Method::Get, target, &first_byte, attempt));
        match get.await {
            Ok(_) => Failure::Transient("HTTP 400 to a HEAD, and none to a GET".to_owned()),
            Err(failure) => failure,
        }
    }

    /// Whom requests go to, for messages.
    pub(super) fn host(&self) -> &str {
        let base = self.base.as_deref().unwrap_or_default();
        base.split('/').nth(2).unwrap_or_default()
    }

    /// Connections that were there may be dead: no more requests go over them.
    pub(super) fn renew_connections(&self) {
        self.pool.renew();
    }

    /// Where an object is, for people.
    pub(super) fn place(&self, key: &str) -> String {
        let base = self.base.as_deref().unwrap_or_default();
        format!("{base}/{}", plain(key))
    }

    pub(super) fn request(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        credentials: Option<&Credentials>,
    ) -> Result<HttpRequest, Failure> {
        let base = self
            .base
            .as_ref()
            .map_err(|e| Failure::protocol(e.clone()))?;
        let uri = format!("{base}{target}");
        let unusable = |error: String| Failure::protocol(error);
        let mut request = HttpRequest::new(SdkBody::empty());
        request
            .set_method(method.as_str())
            .map_err(|e| unusable(e.to_string()))?;
        let signature = match credentials {
            None => Vec::new(),
            Some(credentials) => self.signature(method, &uri, headers, credentials)?,
        };
        request.set_uri(uri).map_err(|e| unusable(e.to_string()))?;
        let out = request.headers_mut();
        out.insert("user-agent", USER_AGENT);
        let headers = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        for (name, value) in headers.chain(signature) {
            // An ETag may be anything that XML can say.
            let set = out.try_insert(name, value);
            set.map_err(|_| unusable("an ETag that no header can hold".to_owned()))?;
        }
        Ok(request)
    }

    /// The headers that sign a request (AWS Signature Version 4, in S3's variant: the path encoded once,
    /// and as it is).
    fn signature(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&'static str, &str)],
        credentials: &Credentials,
    ) -> Result<Vec<(String, String)>, Failure> {
        let unsigned = |error: String| Failure::protocol(format!("cannot sign: {error}"));
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let skew = *lock(&self.skew);
        let identity = credentials.for_sdk().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(SystemTime::now() + skew.ahead - skew.behind)
            .settings(settings)
            .build()
            .map_err(|e| unsigned(e.to_string()))?;
        let headers = headers.iter().copied();
        let body = SignableBody::Bytes(&[]);
        let request = SignableRequest::new(method.as_str(), Cow::from(uri), headers, body);
        let request = request.map_err(|e| unsigned(e.to_string()))?;
        let signed = sign(request, &params.into()).map_err(|e| unsigned(e.to_string()))?;
        let (instructions, _) = signed.into_parts();
        let headers = instructions.headers();
        Ok(headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
    }

    async fn refused(&self, method: Method, answer: HttpResponse, patience: Duration) -> Failure {
        let status = answer.status().as_u16();
        let header = |name| answer.headers().get(name).map(str::to_owned);
        let region = header("x-amz-bucket-region").filter(|region| *region != self.region);
        let date = header("date");
        let is_head = method == Method::Head;
        // What a 403 is about stands in its body: one that broke off is no denial.
        let xml = match whole(answer.into_body(), MAX_ERROR, patience).await {
            Ok(xml) => xml,
            Err(failure) => return failure,
        };
        let (code, message) = code_and_message(&String::from_utf8_lossy(&xml));
        if code == "RequestTimeTooSkewed" || (is_head && status == 403) {
            let date = date.and_then(|date| httpdate::parse_http_date(&date).ok());
            let is_news = date.is_some_and(|date| self.learn_time(date, is_head));
            if is_news && is_head {
                return Failure::Transient("HTTP 403, at another time than ours".to_owned());
            }
        }
        Failure::from_answer(status, &code, &message, region.as_deref())
    }

    /// Notes that S3 says it is `date`. `only_if_far`: only if S3 refuses requests for such a difference,
    /// which it does not say of a HEAD. Whether it was noted.
    fn learn_time(&self, date: SystemTime, only_if_far: bool) -> bool {
        let mut skew = lock(&self.skew);
        let now = SystemTime::now();
        let signed_at = now + skew.ahead - skew.behind;
        let apart = signed_at
            .duration_since(date)
            .or_else(|_| date.duration_since(signed_at));
        if only_if_far && apart.unwrap_or_default() < MOST_SKEW {
            return false;
        }
        *skew = Skew {
            ahead: date.duration_since(now).unwrap_or_default(),
            behind: now.duration_since(date).unwrap_or_default(),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(path("a b/é+.nc"), "/a%20b/%C3%A9%2B.nc");
        let all = query(&[("list-type", "2"), ("prefix", "a b/+&é")]);
        assert_eq!(all, "/?list-type=2&prefix=a%20b%2F%2B%26%C3%A9");
    }

    fn sender(endpoint: Option<&str>, path_style: bool) -> Sender {
        let settings = Settings {
            bucket: "podaac-data".to_owned(),
            region: "us-west-2".to_owned(),
            endpoint_url: endpoint.map(|url| url.parse().expect("a URL")),
            force_path_style: path_style,
            max_connections: 1,
            checksums: true,
        };
        let pool = Pool::new(&crate::network::Network::default(), true, 1);
        Sender::new(&settings, path_style, pool)
    }

    #[test]
    fn an_etag_that_no_header_can_hold_is_an_error_and_no_panic() {
        let headers = [("if-match", "\"a\nb\"")];
        let request = sender(None, false).request(Method::Get, "/key", &headers, None);
        assert!(matches!(request, Err(Failure::Final(_))), "{request:?}");
    }

    #[test]
    fn urls_are_the_sdk_s() {
        let base =
            |endpoint: Option<&str>, path_style| sender(endpoint, path_style).base.expect("a URL");
        assert_eq!(
            base(None, false),
            "https://podaac-data.s3.us-west-2.amazonaws.com"
        );
        assert_eq!(
            base(None, true),
            "https://s3.us-west-2.amazonaws.com/podaac-data"
        );
        let other = Some("http://127.0.0.1:9000");
        assert_eq!(base(other, true), "http://127.0.0.1:9000/podaac-data");
        let other = Some("https://s3.example.org");
        assert_eq!(base(other, false), "https://podaac-data.s3.example.org");
    }
}
