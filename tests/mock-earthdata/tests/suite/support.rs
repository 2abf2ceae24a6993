//! A world with one bucket, and a client that signs as AWS' SDKs do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use mock_earthdata::{Bucket, Content, DEFAULT_TOKEN, Settings, World};
use reqwest::{Client, Method, Response, redirect};
use serde_json::Value;

/// The bucket of every test.
pub(crate) const BUCKET: &str = "test-bucket";

/// A world whose one bucket holds these keys, each with its own name as content.
pub(crate) fn world_of(keys: &[&str]) -> World {
    let objects = keys
        .iter()
        .map(|key| ((*key).to_owned(), Content::from(key.as_bytes().to_vec())));
    World::start(settings(objects)).expect("loopback has free ports")
}

pub(crate) fn settings(objects: impl IntoIterator<Item = (String, Content)>) -> Settings {
    Settings {
        buckets: vec![Bucket {
            name: BUCKET.to_owned(),
            objects: objects.into_iter().collect(),
            ..Bucket::default()
        }],
        ..Settings::default()
    }
}

/// Follows no redirect, keeps no cookie.
pub(crate) fn http() -> Client {
    // In the workspace's build reqwest has TLS without a provider of its own. The first call wins.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a plain client")
}

/// Credentials by bearer token.
pub(crate) async fn credentials(world: &World) -> Value {
    let response = http()
        .get(world.tea_endpoint())
        .bearer_auth(DEFAULT_TOKEN)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    serde_json::from_str(&response.text().await.expect("a body")).expect("JSON")
}

pub(crate) struct S3 {
    pub(crate) http: Client,
    pub(crate) url: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: Option<String>,
}

impl S3 {
    pub(crate) async fn new(world: &World) -> Self {
        let credentials = credentials(world).await;
        let field = |name: &str| credentials[name].as_str().expect(name).to_owned();
        Self {
            http: http(),
            url: world.s3_url(),
            access_key: field("accessKeyId"),
            secret_key: field("secretAccessKey"),
            token: Some(field("sessionToken")),
        }
    }

    /// `path` is percent-encoded, below the bucket, with its query.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let url = format!("{}/{BUCKET}{path}", self.url);
        self.send_to(method, &url, headers).await
    }

    pub(crate) async fn send_to(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let answer = self.try_send(method, url, headers, SystemTime::now()).await;
        answer.expect("an answer")
    }

    /// A GET that may fail without an answer.
    pub(crate) async fn try_get(&self, path: &str) -> reqwest::Result<Response> {
        let url = format!("{}/{BUCKET}{path}", self.url);
        self.try_send(Method::GET, &url, &[], SystemTime::now())
            .await
    }

    /// Signed at this time.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        now: SystemTime,
    ) -> reqwest::Result<Response> {
        let identity = Credentials::new(
            self.access_key.clone(),
            self.secret_key.clone(),
            self.token.clone(),
            None,
            "test",
        )
        .into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-west-2")
            .name("s3")
            .time(now)
            .settings(settings)
            .build()
            .expect("all parameters are set")
            .into();
        let signable = SignableRequest::new(
            method.as_str(),
            url,
            headers.iter().copied(),
            SignableBody::Bytes(&[]),
        )
        .expect("a URL that can be signed");
        let (instructions, _) = sign(signable, &params).expect("a signature").into_parts();
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body("").expect("a request");
        instructions.apply_to_request_http1x(&mut request);
        let request = reqwest::Request::try_from(request).expect("a request of reqwest");
        self.http.execute(request).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.send(Method::GET, path, headers).await
    }

    pub(crate) async fn head(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.send(Method::HEAD, path, headers).await
    }

    /// The XML of a page, whose status must be 200.
    pub(crate) async fn list(&self, parameters: &[(&str, &str)]) -> String {
        let response = self.list_response(parameters).await;
        assert_eq!(response.status(), 200);
        response.text().await.expect("a body")
    }

    pub(crate) async fn list_response(&self, parameters: &[(&str, &str)]) -> Response {
        let mut query = String::from("?list-type=2");
        for (name, value) in parameters {
            query.push_str(&format!("&{name}={}", strict(value)));
        }
        self.get(&query, &[]).await
    }
}

/// Percent-encoded as SigV4 wants a query: all but the unreserved characters.
pub(crate) fn strict(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The texts of all elements of this name, in order. Enough for XML without attributes that we wrote.
pub(crate) fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open)
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned()))
        .collect()
}

/// The code of an error that must have this status.
pub(crate) async fn error_code(response: Response, status: u16) -> String {
    assert_eq!(response.status(), status);
    let xml = response.text().await.expect("a body");
    elements(&xml, "Code").join(" ")
}

pub(crate) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_else(|| panic!("no {name} in {response:?}"))
}

/// One connection with S3, without any http library: for lean worlds, which check no signature.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// A read that takes longer than this has failed.
    const PATIENCE: Duration = Duration::from_secs(20);

    pub(crate) fn new(world: &World) -> Self {
        let url = world.s3_url();
        let address = url.split("//").nth(1).expect("a URL");
        let stream = TcpStream::connect(address).expect("it listens");
        stream
            .set_read_timeout(Some(Self::PATIENCE))
            .expect("a socket option");
        Self(stream)
    }

    /// Sends a request: `GET /key` and header lines, each with its end.
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &str) {
        let request = format!("{method} /{BUCKET}{path} HTTP/1.1\r\nHost: s3\r\n{headers}\r\n");
        self.0.write_all(request.as_bytes()).expect("it is open");
    }

    /// The head of an answer, up to the empty line.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.bytes(1));
        }
        String::from_utf8(head).expect("text")
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// An answer whose head says its length: the head and the body.
    pub(crate) fn answer(&mut self) -> (String, Vec<u8>) {
        let head = self.head();
        let length = head_field(&head, "content-length").parse();
        let body = self.bytes(length.expect("a length"));
        (head, body)
    }
}

/// A field of a head.
pub(crate) fn head_field(head: &str, name: &str) -> String {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let field = fields.find(|(one, _)| one.eq_ignore_ascii_case(name));
    field
        .unwrap_or_else(|| panic!("no {name} in {head}"))
        .1
        .to_owned()
}
