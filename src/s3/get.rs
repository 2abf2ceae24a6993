//! One ranged GET, without the SDK's layers, which cost more CPU than the request itself. The
//! connections are the SDK's, and so is the code that signs.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use futures_util::FutureExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::Settings;
use super::error::{Failure, connection_failed};
use super::types::{ByteRange, ETag};
use crate::credentials::Credentials;
use crate::network::USER_AGENT;
use crate::sync::{Mutex, lock};

/// What stays as it is in the path of a URL (SigV4, "URI encode"), and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');
/// Errors of S3 are some hundred bytes.
const MAX_ERROR: usize = 64 << 10;

/// Sends GETs to one bucket.
#[derive(Debug)]
pub(super) struct Getter {
    connector: SharedHttpConnector,
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

impl Getter {
    /// The endpoint is where the SDK would send to.
    pub(super) fn new(
        settings: &Settings,
        path_style: bool,
        connector: SharedHttpConnector,
    ) -> Self {
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
            connector,
            base,
            region: settings.region.clone(),
            skew: Mutex::default(),
        }
    }

    /// Sends one request. What comes is the answer to just this: the version, and the range.
    pub(super) async fn get(
        &self,
        key: &str,
        etag: &ETag,
        range: ByteRange,
        credentials: Option<&Credentials>,
    ) -> Result<ByteStream, Failure> {
        let request = self.request(key, etag, range, credentials)?;
        let answer = self.connector.call(request).await;
        let answer = answer.map_err(|error| connection_failed(&error))?;
        if answer.status().as_u16() != 206 {
            return Err(self.refused(answer, range).await);
        }
        let header = |name| answer.headers().get(name).unwrap_or_default();
        if header("etag") != etag.as_str() {
            return Err(Failure::changed());
        }
        let expected = format!("bytes {}-{}/", range.start(), range.end() - 1);
        let got = header("content-range");
        if !got.starts_with(&expected) {
            return Err(Failure::Transient(format!(
                "asked for {range}, got {got:?}"
            )));
        }
        Ok(ByteStream::new(answer.into_body()))
    }

    fn request(
        &self,
        key: &str,
        etag: &ETag,
        range: ByteRange,
        credentials: Option<&Credentials>,
    ) -> Result<HttpRequest, Failure> {
        let base = self
            .base
            .as_ref()
            .map_err(|e| Failure::protocol(e.clone()))?;
        let uri = format!("{base}/{}", utf8_percent_encode(key, PATH));
        let range = range.to_string();
        let headers = [("range", range.as_str()), ("if-match", etag.as_str())];
        let mut request = HttpRequest::new(SdkBody::empty());
        let signature = match credentials {
            None => Vec::new(),
            Some(credentials) => self.signature(&uri, &headers, credentials)?,
        };
        request
            .set_uri(uri)
            .map_err(|error| Failure::protocol(error.to_string()))?;
        let out = request.headers_mut();
        out.insert("user-agent", USER_AGENT);
        for (name, value) in headers {
            out.insert(name, value.to_owned());
        }
        for (name, value) in signature {
            out.insert(name, value);
        }
        Ok(request)
    }

    /// The headers that sign a GET (AWS Signature Version 4, in S3's variant: the path encoded once,
    /// and as it is).
    fn signature(
        &self,
        uri: &str,
        headers: &[(&str, &str)],
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
        let request = SignableRequest::new("GET", Cow::from(uri), headers, body);
        let request = request.map_err(|e| unsigned(e.to_string()))?;
        let signed = sign(request, &params.into()).map_err(|e| unsigned(e.to_string()))?;
        let (instructions, _) = signed.into_parts();
        let headers = instructions.headers();
        Ok(headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
    }

    async fn refused(&self, answer: HttpResponse, range: ByteRange) -> Failure {
        let status = answer.status().as_u16();
        if status < 300 {
            return Failure::Transient(format!("asked for {range}, got all of it"));
        }
        let header = |name| answer.headers().get(name).map(str::to_owned);
        let (region, date) = (header("x-amz-bucket-region"), header("date"));
        let mut body = ByteStream::new(answer.into_body());
        let mut xml = Vec::new();
        while let Some(Ok(bytes)) = body.next().await {
            xml.extend_from_slice(&bytes);
            if xml.len() > MAX_ERROR {
                break;
            }
        }
        let (code, message) = code_and_message(&String::from_utf8_lossy(&xml));
        if code == "RequestTimeTooSkewed"
            && let Some(date) = date.and_then(|date| httpdate::parse_http_date(&date).ok())
        {
            let now = SystemTime::now();
            *lock(&self.skew) = Skew {
                ahead: date.duration_since(now).unwrap_or_default(),
                behind: now.duration_since(date).unwrap_or_default(),
            };
        }
        Failure::from_answer(status, &code, &message, region.as_deref(), false)
    }
}

/// Of S3's error document, empty where it has none.
fn code_and_message(xml: &str) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    let mut document = aws_smithy_xml::decode::Document::new(xml);
    if let Ok(mut root) = document.root_element() {
        while let Some(mut tag) = root.next_tag() {
            let to = match tag.start_el().local() {
                "Code" => &mut code,
                "Message" => &mut message,
                _ => continue,
            };
            if let Ok(text) = aws_smithy_xml::decode::try_data(&mut tag) {
                *to = text.into_owned();
            }
        }
    }
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_and_what_is_none_is_no_error() {
        let xml = "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>a &amp; b</Message>\
                   <RequestId>1</RequestId></Error>";
        assert_eq!(
            code_and_message(xml),
            ("SlowDown".to_owned(), "a & b".to_owned())
        );
        for nonsense in ["", "<html>", "<Error><Code>", "busy"] {
            assert_eq!(code_and_message(nonsense).0, "", "{nonsense}");
        }
    }

    #[test]
    fn urls_are_the_sdk_s() {
        let base = |endpoint: Option<&str>, path_style| {
            let settings = Settings {
                bucket: "podaac-data".to_owned(),
                region: "us-west-2".to_owned(),
                endpoint_url: endpoint.map(|url| url.parse().expect("a URL")),
                force_path_style: path_style,
                max_connections: 1,
            };
            let network = crate::network::Network::default();
            let connector = crate::s3::http::connector(&network, true, 1);
            Getter::new(&settings, path_style, connector)
                .base
                .expect("a URL")
        };
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
