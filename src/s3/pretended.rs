//! S3 as tests and fuzz targets pretend it to be: what a server answers that tells the truth, and a client
//! whose server answers with what they like.
//!
//! A page is written down as lines, `o KEY` for an object, `p PREFIX` for a common prefix, `t` where there
//! is more, keys encoded as S3 encodes them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector,
};
use aws_smithy_runtime_api::http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::client::{S3, Settings};
use super::http::Pool;
use super::list::{From, ListQuery, Listed, Page, decode};
use super::types::{ETag, ObjectMeta, Storage};
use crate::request::Request;
use crate::sync::{Arc, Mutex, lock};

/// As S3 writes keys, but for the blank, which it writes as `+`.
const AS_S3: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*')
    .remove(b'/')
    .remove(b' ');

pub(super) fn encode(key: &str) -> String {
    utf8_percent_encode(key, AS_S3)
        .to_string()
        .replace(' ', "+")
}

/// So many bytes from `start` on.
#[cfg(test)]
pub(crate) fn range(start: u64, len: u64) -> super::ByteRange {
    super::ByteRange::new(start, start + len).expect("not empty")
}

/// Of an object in the standard class.
pub(crate) fn meta(size: u64, etag: &str) -> ObjectMeta {
    ObjectMeta {
        size,
        etag: ETag::from(etag),
        last_modified: SystemTime::UNIX_EPOCH,
        storage: Storage::default(),
    }
}

/// The keys that lines of `text` with this mark name.
pub(crate) fn keys_of<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = String> + 'a {
    let lines = text
        .lines()
        .filter_map(move |line| line.strip_prefix(mark)?.strip_prefix(' '));
    lines.filter_map(|key| decode(key.to_owned(), true).ok())
}

/// A page as it is written down, whatever is in it.
pub(crate) fn page_of(text: &str) -> Page {
    let object = |key: String| Listed {
        meta: meta(key.len() as u64, "\"e\""),
        key,
    };
    Page {
        objects: keys_of(text, "o").map(object).collect(),
        prefixes: keys_of(text, "p").collect(),
        next_token: text
            .lines()
            .any(|line| line == "t")
            .then(|| "token".to_owned()),
    }
}

/// What is asked for, on the first line: `d` for delimited, then prefix and start, with blanks between.
pub(crate) fn query_of(text: &str) -> (bool, String, String) {
    let line = text.lines().next().unwrap_or_default();
    let mut words = line.split(' ');
    let delimited = words.next() == Some("d");
    let mut word = || decode(words.next().unwrap_or_default().to_owned(), true).unwrap_or_default();
    (delimited, word(), word())
}

pub(crate) fn query<'a>(delimited: bool, prefix: &'a str, after: &'a str) -> ListQuery<'a> {
    ListQuery {
        prefix,
        delimited,
        from: match after {
            "" => From::Start,
            after => From::After(after),
        },
        max_keys: 1000,
    }
}

/// What S3 answers to `query` if the bucket has `keys`, with up to `most` of them.
pub(crate) fn honest(keys: &BTreeSet<String>, query: &ListQuery<'_>, most: usize) -> Page {
    let after = match query.from {
        From::Start => "",
        From::After(after) | From::Token(after) => after,
    };
    let mut page = Page::default();
    let mut last = "";
    // A token goes on behind a common prefix, a start may lie within one.
    let is_behind = |key: &str| match query.from {
        From::Token(after) if query.delimited && after[query.prefix.len()..].ends_with('/') => {
            !key.starts_with(after)
        }
        _ => true,
    };
    let asked = keys
        .iter()
        .map(String::as_str)
        .filter(|key| key.starts_with(query.prefix));
    for key in asked.filter(|key| (after.is_empty() || *key > after) && is_behind(key)) {
        let slash = key[query.prefix.len()..]
            .find('/')
            .filter(|_| query.delimited);
        let gathered = slash.map(|slash| &key[..=query.prefix.len() + slash]);
        if gathered.is_some() && gathered == page.prefixes.last().map(String::as_str) {
            continue;
        }
        if page.objects.len() + page.prefixes.len() == most {
            page.next_token = Some(last.to_owned());
            break;
        }
        last = gathered.unwrap_or(key);
        match gathered {
            Some(prefix) => page.prefixes.push(prefix.to_owned()),
            None => page.objects.push(Listed {
                key: key.to_owned(),
                meta: meta(key.len() as u64, "\"e\""),
            }),
        }
    }
    page
}

/// A server that is a function from a request to a status, headers and a body.
#[derive(Clone)]
struct Server(Arc<Answers>);

type Answers = Mutex<Box<dyn FnMut(&HttpRequest) -> String + Send>>;

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl HttpConnector for Server {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = (*lock(&self.0))(&request);
        let ok = StatusCode::try_from(200).expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(ok, SdkBody::from(body))))
    }
}

/// A client whose server answers with what `answer` says. There is one to a thread, because it takes
/// longer to make than to use.
pub(crate) fn client_of(answer: impl FnMut(&HttpRequest) -> String + Send + 'static) -> Arc<S3> {
    thread_local! {
        static CLIENT: (Server, Arc<S3>) = {
            let server = Server(Arc::new(Mutex::new(Box::new(|_: &HttpRequest| String::new()))));
            let connector = SharedHttpConnector::new(server.clone());
            (server, Arc::new(S3::over(Pool::fixed(connector), settings(), None)))
        };
    }
    CLIENT.with(|(server, client)| {
        *lock(&server.0) = Box::new(answer);
        Arc::clone(client)
    })
}

pub(crate) fn settings() -> Settings {
    Settings {
        bucket: "bucket".to_owned(),
        region: "us-west-2".to_owned(),
        endpoint_url: Some("http://127.0.0.1:9000".parse().expect("a URL")),
        force_path_style: true,
        max_connections: 64,
        checksums: true,
    }
}

/// Does `work` in a runtime of its own, which ends with all tasks that it left.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    runtime.block_on(work)
}

/// So short that a failure is not tried again.
pub(crate) fn impatient() -> Request {
    Request::demand(Duration::from_millis(45))
}

/// As S3 writes a page.
pub(crate) fn xml_of(page: &Page) -> String {
    let mut xml =
        "<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType>".to_owned();
    for object in &page.objects {
        let (key, size) = (encode(&object.key), object.meta.size);
        let _ = write!(
            xml,
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;e&quot;</ETag>\
             <LastModified>1970-01-01T00:00:00.000Z</LastModified></Contents>"
        );
    }
    for prefix in &page.prefixes {
        let prefix = encode(prefix);
        let _ = write!(
            xml,
            "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"
        );
    }
    if let Some(token) = &page.next_token {
        let token = encode(token).replace('+', "%20");
        let _ = write!(
            xml,
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        );
    }
    xml + "</ListBucketResult>"
}

/// What a request asks for.
struct Asked {
    is_delimited: bool,
    prefix: String,
    after: String,
    token: Option<String>,
    max_keys: usize,
}

fn asked_for(request: &HttpRequest) -> Asked {
    let url: reqwest::Url = request.uri().parse().expect("a URL");
    let value = |name: &str| {
        let found = url.query_pairs().find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    };
    let token = value("continuation-token");
    let max_keys = value("max-keys").and_then(|most| most.parse().ok());
    Asked {
        is_delimited: value("delimiter").is_some(),
        prefix: value("prefix").unwrap_or_default(),
        after: value("start-after").unwrap_or_default(),
        token: token.map(|token| percent_decode_str(&token).decode_utf8_lossy().into_owned()),
        max_keys: max_keys.unwrap_or(1000),
    }
}

/// What a server answers that tells the truth about `keys`, in pages of up to `most` of them, with so many
/// pages before each that have no entries.
pub(crate) fn true_answer(
    keys: &BTreeSet<String>,
    request: &HttpRequest,
    most: usize,
    empty: usize,
) -> String {
    let asked = asked_for(request);
    // How many are still to come, then `t` for a token of the honest page or `s` for a start, which follows.
    let token = asked.token.unwrap_or(format!("{empty}~s{}", asked.after));
    let (left, place) = token.split_once('~').expect("a token of ours");
    let (left, (kind, place)) = (left.parse().unwrap_or(0), place.split_at(1));
    if left > 0 {
        let next_token = Some(format!("{}~{kind}{place}", left - 1));
        return xml_of(&Page {
            next_token,
            ..Page::default()
        });
    }
    let mut query = query(asked.is_delimited, &asked.prefix, place);
    if kind == "t" {
        query.from = From::Token(place);
    }
    let mut page = honest(keys, &query, most.min(asked.max_keys));
    page.next_token = page.next_token.map(|token| format!("{empty}~t{token}"));
    xml_of(&page)
}

/// Answers in turn, and the last one again and again.
pub(crate) fn in_turn(answers: Vec<String>) -> impl FnMut(&HttpRequest) -> String + Send {
    let mut answers = VecDeque::from(answers);
    move |_| match answers.len() {
        0 | 1 => answers.front().cloned().unwrap_or_default(),
        _ => answers.pop_front().unwrap_or_default(),
    }
}
