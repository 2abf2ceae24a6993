//! What happens to every S3 request, whatever it asks: counted, admitted or refused, delayed, and its body sent.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};

use super::body::Metered;
use super::lists::Listing;
use super::objects::{ListedEntries, Objects};
use super::pace::Pace;
use super::refused::Refused;
use super::request;
use crate::clock;
use crate::credentials::Refusal;
use crate::meter::Op;
use crate::reply::{Body, Reply};
use crate::script::Hit;
use crate::state::State;
use crate::wire::Link;

/// S3 takes signatures that are so many seconds off.
const MAX_SKEW: u64 = 15 * 60;

const SECURITY_TOKEN: &str = "x-amz-security-token";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The S3 host.
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<State>,
    service: S3Service,
}

/// The ledger, as `s3s` asks it for the key to check a signature with.
struct Keys(Arc<State>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let ledger = self.0.ledger.lock();
        match ledger.secret_key(access_key) {
            Some(secret) => Ok(SecretKey::from(secret)),
            None => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

impl Gate {
    pub(crate) fn new(state: Arc<State>) -> Self {
        let mut builder = S3ServiceBuilder::new(Objects::new(state.clone()));
        builder.set_auth(Keys(state.clone()));
        // The clock that counts is the world's, which may be off: `check_clock`.
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        Self {
            state,
            service: builder.build(),
        }
    }

    /// Answers a request. Dropped in the middle (the client is gone), the request counts as given up.
    pub(crate) async fn answer(self, request: Request<Incoming>, link: Link) -> Reply {
        let (head, body) = request.into_parts();
        let record = request::record(&head);
        let (op, method, bucket) = (record.op, head.method.clone(), record.bucket.clone());
        let query = record.query.clone();
        let mut hit = None;
        let admitted = self.admit(op, &head);
        if admitted.is_ok() {
            hit = self.state.script.lock().hit(&record);
        }
        let mut ticket = self.state.meter.begin(record);
        let refused = |hit: &Hit| Refused::by(&self.state, hit, &bucket);
        let mut response = match admitted.and_then(|()| match hit.as_ref().and_then(refused) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }) {
            Err(refusal) => refusal.response(),
            Ok(()) => {
                let mut request = Request::from_parts(head, s3s::Body::from(body));
                if let Some(hit) = &hit {
                    request.extensions_mut().insert(hit.clone());
                }
                // An error here is one of writing the answer, not of the request.
                self.service.call(request).await.unwrap_or_else(|_| {
                    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError").response()
                })
            }
        };
        if let Some(hit) = &hit {
            if op == Op::List && response.status() == StatusCode::OK {
                self.break_list(&mut response, &bucket, &query, hit);
            }
            hit.stall().await;
        }
        let shape = self.state.controls.lock().shape;
        let entries = response
            .extensions()
            .get()
            .map_or(0, |ListedEntries(count)| *count);
        let delay = shape.first_byte + shape.per_listed_key * entries;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let response = dress(response, &method);
        ticket.answered(response.status().as_u16());
        let length = content_length(&response);
        if let Some(hit) = &hit {
            link.arm(hit);
        }
        let pace = Pace::new(shape, &self.state.link);
        let reply = response.map(|body| Body::new(Metered::new(body, length, ticket, pace)));
        self.state.dated(reply)
    }

    /// Writes the listing anew, if the script wants it broken.
    fn break_list(&self, response: &mut Response<s3s::Body>, bucket: &str, query: &str, hit: &Hit) {
        if !hit.fault().is_of_listings() {
            return;
        }
        let store = self.state.store.read();
        let listing = Listing::parse(bucket, query);
        let Some(Ok(listed)) = store
            .bucket(bucket)
            .map(|holding| listing.answer(holding, Some(hit)))
        else {
            return;
        };
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static(listed.content_type);
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CONTENT_LENGTH, listed.xml.len().into());
        *response.body_mut() = s3s::Body::from(listed.xml);
    }

    /// Is it an operation of ours, with credentials that are good now? The signature is left to `s3s`.
    fn admit(&self, op: Op, head: &Parts) -> Result<(), Refused> {
        let now = self.state.now();
        let denied = || Refused::new(StatusCode::FORBIDDEN, "AccessDenied");
        let Some(access_key) = request::access_key(&head.headers) else {
            if head.headers.contains_key(header::AUTHORIZATION) {
                self.state
                    .meter
                    .count(|counters| &mut counters.stray_authorizations);
            }
            return Err(denied());
        };
        let token = request::text(&head.headers, HeaderName::from_static(SECURITY_TOKEN));
        let verdict = self.state.ledger.lock().check(access_key, token.as_deref());
        match verdict {
            Ok(()) if !request::is_signed(&head.headers, SECURITY_TOKEN) => Err(denied()),
            Ok(()) if op == Op::Forbidden => Err(denied()),
            Ok(()) => check_clock(head, now),
            Err(Refusal::UnknownKey) => {
                Err(Refused::new(StatusCode::FORBIDDEN, "InvalidAccessKeyId")
                    .with("AWSAccessKeyId", access_key))
            }
            Err(Refusal::WrongToken) => Err(Refused::new(StatusCode::BAD_REQUEST, "InvalidToken")
                .with("Token-0", token.unwrap_or_default())),
            Err(Refusal::Expired(ago)) => {
                let meter = &self.state.meter;
                meter.count(|counters| &mut counters.expired_refused);
                let signed = clock::signed_at(&amz_date(head)).and_then(clock::from_seconds);
                if signed.is_some_and(|signed| signed >= now - ago) {
                    meter.count(|counters| &mut counters.expired_signed);
                }
                // S3 does write the token into the answer: who logs the body of an error logs a secret.
                Err(Refused::new(StatusCode::BAD_REQUEST, "ExpiredToken")
                    .with("Token-0", token.unwrap_or_default()))
            }
        }
    }
}

/// When the request says that it was signed; empty where it does not.
fn amz_date(head: &Parts) -> String {
    let date = request::text(&head.headers, HeaderName::from_static("x-amz-date"));
    date.unwrap_or_default()
}

/// Was the request signed within [`MAX_SKEW`] seconds of now?
fn check_clock(head: &Parts, now: SystemTime) -> Result<(), Refused> {
    let date = amz_date(head);
    // A date that cannot be read is left to `s3s`.
    let off = clock::signed_at(&date).is_some_and(|signed| {
        let now = i64::try_from(clock::whole_seconds(now)).unwrap_or(i64::MAX);
        now.abs_diff(signed) > MAX_SKEW
    });
    if off {
        return Err(Refused::skewed(&date, now));
    }
    Ok(())
}

/// The last touches: S3's headers, and no body where S3 sends none.
fn dress(response: Response<s3s::Body>, method: &Method) -> Response<s3s::Body> {
    let (mut head, mut body) = response.into_parts();
    let id = format!("{:016X}", fastrand::u64(..));
    if let Ok(id) = HeaderValue::from_str(&id) {
        head.headers.insert(REQUEST_ID, id);
    }
    head.headers
        .insert(header::SERVER, HeaderValue::from_static("AmazonS3"));
    // `s3s` gives the status of a part to GET alone.
    if head.status == StatusCode::OK && head.headers.contains_key(header::CONTENT_RANGE) {
        head.status = StatusCode::PARTIAL_CONTENT;
    }
    let bodiless = method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    if bodiless {
        body = s3s::Body::empty();
        if !head.status.is_success() {
            head.headers.remove(header::CONTENT_LENGTH);
            head.headers.remove(header::CONTENT_TYPE);
        }
    }
    Response::from_parts(head, body)
}

/// How long the body will be: S3 always knows. 0 for a body that is not sent.
fn content_length(response: &Response<s3s::Body>) -> Option<u64> {
    use http_body::Body as _;
    if response.body().is_end_stream() {
        return Some(0);
    }
    let said = response
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    said.or_else(|| response.body().size_hint().exact())
}
