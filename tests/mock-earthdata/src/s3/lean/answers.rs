//! What the lean mode answers, before it is written: the same as `s3s` and `objects` together, in text.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hyper::StatusCode;
use parking_lot::Mutex;
use s3s::dto::{ETagCondition, Range as RangeHeader};
use s3s::{S3Result, s3_error};

use crate::content::{Object, Reader};
use crate::meter::{Op, RequestRecord};
use crate::s3::checksums;
use crate::s3::lists::Listing;
use crate::s3::objects::{Conditions, content_range, etag, find, readable, resolve, storage_class};
use crate::s3::refused::Refused;
use crate::script::Hit;
use crate::state::State;

/// Listings kept ready may take so much memory: a million keys in pages of a thousand.
const MAX_PAGES: usize = 512 * 1024 * 1024;

/// An answer but for the headers that each has.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Whole lines, `Content-Length` among them.
    pub(super) headers: String,
    pub(super) body: Body,
    /// Keys and common prefixes listed.
    pub(super) entries: u32,
}

/// The body of an answer.
pub(super) enum Body {
    /// That of an answer to HEAD, which is not sent.
    None(u64),
    /// All at once.
    Whole(Bytes),
    /// A part of an object.
    Part(Reader, Range<u64>),
}

impl Body {
    /// Bytes that `Content-Length` says.
    fn length(&self) -> u64 {
        match self {
            Self::None(length) => *length,
            body => body.sent(),
        }
    }

    /// Bytes that are sent.
    pub(super) fn sent(&self) -> u64 {
        match self {
            Self::None(_) => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Part(_, bytes) => bytes.end - bytes.start,
        }
    }
}

/// Pages of listings in XML, by bucket and query, as they were at a version of the store.
#[derive(Default)]
pub(super) struct Pages(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    version: u64,
    size: usize,
    pages: HashMap<(String, String), (Bytes, u32)>,
}

impl Pages {
    /// The page, made if it is not there.
    fn page(&self, state: &State, record: &RequestRecord) -> Result<(Bytes, u32), Refused> {
        let name = (record.bucket.clone(), record.query.clone());
        let version = state.store.read().version();
        {
            let mut kept = self.0.lock();
            if kept.version != version || kept.size > MAX_PAGES {
                *kept = Kept {
                    version,
                    ..Kept::default()
                };
            }
            if let Some(page) = kept.pages.get(&name) {
                return Ok(page.clone());
            }
        }
        let listed = list(state, record, None)?;
        let page = (Bytes::from(listed.xml), listed.entries);
        let mut kept = self.0.lock();
        // Else the store has changed meanwhile, and the page may be of either version.
        if state.store.read().version() == version && kept.version == version {
            kept.size += page.0.len();
            kept.pages.insert(name, page.clone());
        }
        Ok(page)
    }
}

/// The answer to a request, with the fault that it is in for.
pub(super) fn answer(
    state: &State,
    pages: &Pages,
    record: &RequestRecord,
    hit: Option<&Hit>,
) -> Answer {
    let refused = hit.and_then(|hit| Refused::by(state, hit, &record.bucket));
    let answer = match refused {
        Some(refused) => Err(refused),
        None => match record.op {
            Op::List => listing(state, pages, record, hit),
            Op::Head => look(state, record, hit).map_err(Refused::from),
            Op::Get => read(state, record, hit).map_err(Refused::from),
            Op::Forbidden => Err(Refused::new(StatusCode::FORBIDDEN, "AccessDenied")),
        },
    };
    let mut answer = answer.unwrap_or_else(|refused| error(record, &refused));
    if record.op != Op::Head || answer.status.is_success() {
        let _ = write!(
            answer.headers,
            "Content-Length: {}\r\n",
            answer.body.length()
        );
    }
    answer
}

fn error(record: &RequestRecord, refused: &Refused) -> Answer {
    let mut headers = String::new();
    if let Some(region) = &refused.region {
        let _ = write!(headers, "x-amz-bucket-region: {region}\r\n");
    }
    let body = if record.method == "HEAD" {
        Body::None(0)
    } else {
        headers.push_str("Content-Type: application/xml\r\n");
        Body::Whole(Bytes::from(refused.xml()))
    };
    Answer {
        status: refused.status,
        headers,
        body,
        entries: 0,
    }
}

fn list(
    state: &State,
    record: &RequestRecord,
    hit: Option<&Hit>,
) -> Result<crate::s3::lists::Listed, Refused> {
    let store = state.store.read();
    let holding = store
        .bucket(&record.bucket)
        .ok_or_else(|| Refused::from(s3_error!(NoSuchBucket)))?;
    Listing::parse(&record.bucket, &record.query).answer(holding, hit)
}

fn listing(
    state: &State,
    pages: &Pages,
    record: &RequestRecord,
    hit: Option<&Hit>,
) -> Result<Answer, Refused> {
    let (page, entries, kind) = match hit {
        None => {
            let (page, entries) = pages.page(state, record)?;
            (page, entries, "application/xml")
        }
        Some(_) => {
            let listed = list(state, record, hit)?;
            (Bytes::from(listed.xml), listed.entries, listed.content_type)
        }
    };
    Ok(Answer {
        status: StatusCode::OK,
        headers: format!("Content-Type: {kind}\r\n"),
        body: Body::Whole(page),
        entries,
    })
}

fn look(state: &State, record: &RequestRecord, hit: Option<&Hit>) -> S3Result<Answer> {
    let object = find(state, &record.bucket, &record.key)?;
    described(state, &object, record, hit, |range| {
        Ok(Body::None(range.end - range.start))
    })
}

fn read(state: &State, record: &RequestRecord, hit: Option<&Hit>) -> S3Result<Answer> {
    let object = readable(find(state, &record.bucket, &record.key)?)?;
    described(state, &object, record, hit, |range| {
        let reader = object
            .open(&record.key)
            .map_err(|error| s3_error!(error, InternalError))?;
        Ok(Body::Part(reader, range))
    })
}

/// The answer about an object, with the body that belongs to the range asked for.
fn described(
    state: &State,
    object: &Object,
    record: &RequestRecord,
    hit: Option<&Hit>,
    body: impl FnOnce(Range<u64>) -> S3Result<Body>,
) -> S3Result<Answer> {
    let if_match = record
        .if_match
        .as_deref()
        .and_then(|text| ETagCondition::parse_http_header(text.as_bytes()).ok());
    Conditions::if_match(if_match).check(object, hit)?;
    // As S3 does, a range that cannot be read counts as none.
    let range = record
        .range
        .as_deref()
        .and_then(|text| RangeHeader::parse(text).ok());
    let range = resolve(range.as_ref(), object.size, hit)?;
    let mut headers = String::with_capacity(256);
    let modified = UNIX_EPOCH + Duration::from_secs(object.modified);
    let modified = httpdate::HttpDate::from(modified);
    let _ = write!(
        headers,
        "Accept-Ranges: bytes\r\nContent-Type: binary/octet-stream\r\nLast-Modified: {modified}\r\n"
    );
    if let Some(etag) = etag(object, hit) {
        let _ = write!(headers, "ETag: \"{etag}\"\r\n");
    }
    if object.archived {
        let class = storage_class(object);
        let _ = write!(headers, "x-amz-storage-class: {class}\r\n");
    }
    let asked = record.checksum_mode;
    if let Some(said) = checksums::said(state, asked, &record.key, object, range.as_ref()) {
        let _ = write!(
            headers,
            "x-amz-checksum-{}: {}\r\nx-amz-checksum-type: {}\r\n",
            said.algorithm, said.value, said.kind
        );
    }
    let mut status = StatusCode::OK;
    if let Some(said) = content_range(&range, object.size, hit) {
        status = StatusCode::PARTIAL_CONTENT;
        let _ = write!(headers, "Content-Range: {said}\r\n");
    }
    Ok(Answer {
        status,
        headers,
        body: body(range.unwrap_or(0..object.size))?,
        entries: 0,
    })
}
