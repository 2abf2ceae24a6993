//! What holds whatever a server answers in the name of S3.
//!
//! A page is written down as lines, `o KEY` for an object, `p PREFIX` for a common prefix, `t` where there
//! is more, keys encoded as S3 encodes them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector,
};
use aws_smithy_runtime_api::http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::client::{S3, Settings};
use super::error::{Error, Failure, code_and_message};
use super::http::Pool;
use super::list::{From, ListQuery, Listed, Page, check, decode};
use super::send::{Method, Sender, path};
use super::types::{ETag, ObjectMeta, Storage};
use crate::credentials::Credentials;
use crate::credentials::parsers::some_credentials;
use crate::network::Network;
use crate::parsers::check_message;
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

fn encode(key: &str) -> String {
    utf8_percent_encode(key, AS_S3)
        .to_string()
        .replace(' ', "+")
}

/// What every object of these pages is.
fn meta(key: &str) -> ObjectMeta {
    ObjectMeta {
        size: key.len() as u64,
        etag: ETag::from("\"e\""),
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
        meta: meta(&key),
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
                meta: meta(key),
            }),
        }
    }
    page
}

/// Whether all of a page is what its query asks for, said in another way than [`check`] does.
fn check_page(page: &Page, query: &ListQuery<'_>) {
    let objects: BTreeSet<&str> = page.objects.iter().map(|o| o.key.as_str()).collect();
    let prefixes: BTreeSet<&str> = page.prefixes.iter().map(String::as_str).collect();
    assert!(objects.iter().eq(page.objects.iter().map(|o| &o.key)));
    assert!(prefixes.iter().eq(page.prefixes.iter()));
    let all: BTreeSet<&str> = objects.union(&prefixes).copied().collect();
    assert_eq!(
        all.len(),
        objects.len() + prefixes.len(),
        "both file and prefix"
    );
    assert_eq!(page.last(), all.last().copied());
    for key in &all {
        let place = key.strip_prefix(query.prefix).expect("within the prefix");
        let slashes = place.matches('/').count();
        match (prefixes.contains(key), query.delimited) {
            (true, true) => assert!(slashes == 1 && place.ends_with('/'), "{key:?}"),
            (true, false) => panic!("{key:?} was not asked for"),
            (false, true) => assert_eq!(slashes, 0, "{key:?}"),
            (false, false) => {}
        }
        if let From::After(after) = query.from {
            assert!(
                *key > after || after.starts_with(key),
                "{key:?} before {after:?}"
            );
        }
    }
}

/// Whether a page is one that a listing may have: it passes the check, and says more than that there is more.
pub(crate) fn passes(page: &Page, query: &ListQuery<'_>) -> bool {
    check(page, query).is_ok() && (page.next_token.is_none() || page.last().is_some())
}

pub(crate) fn list_page(text: &str) {
    if let Ok(key) = decode(text.to_owned(), true) {
        assert_eq!(decode(encode(&key), true).expect("what was encoded"), key);
        assert!(percent_decode_str(&encode(&key)).decode_utf8().is_ok());
    }
    assert_eq!(decode(text.to_owned(), false).expect("as it is"), text);
    let (delimited, prefix, after) = query_of(text);
    let query = query(delimited, &prefix, &after);
    let page = page_of(text);
    if check(&page, &query).is_ok() {
        check_page(&page, &query);
    }
    // What S3 answers passes.
    let keys: BTreeSet<String> = keys_of(text, "o").chain(keys_of(text, "p")).collect();
    for most in [1, 3, 1000] {
        let page = honest(&keys, &query, most);
        check_page(&page, &query);
        check(&page, &query).unwrap_or_else(|failure| panic!("{failure:?}: {page:?}"));
    }
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

fn settings() -> Settings {
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
pub(crate) struct Asked {
    pub(crate) is_delimited: bool,
    pub(crate) prefix: String,
    pub(crate) after: String,
    pub(crate) token: Option<String>,
    pub(crate) max_keys: usize,
}

pub(crate) fn asked_for(request: &HttpRequest) -> Asked {
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

/// The XML comes behind the first line, which says what is asked for.
pub(crate) fn list_answer(text: &str) {
    let (delimited, prefix, after) = query_of(text);
    let xml = text.split_once('\n').map_or("", |(_, xml)| xml).to_owned();
    let s3 = client_of(move |_| xml.clone());
    let query = query(delimited, &prefix, &after);
    match run(async { s3.list(query, &impatient()).await }) {
        Ok(page) => {
            check_page(&page, &query);
            assert!(page.next_token.is_none() || page.last().is_some());
            for object in &page.objects {
                let time = humantime::format_rfc3339_seconds(object.meta.last_modified);
                check_message(&time.to_string());
            }
        }
        Err(error) => check_message(&error.to_string()),
    }
}

/// The XML comes behind the first line, which is the region.
pub(crate) fn s3_error(text: &str) {
    let (region, xml) = text.split_once('\n').unwrap_or(("", text));
    let (code, message) = code_and_message(xml);
    assert!(code.len() + message.len() <= xml.len());
    for status in [
        200, 301, 307, 400, 401, 403, 404, 408, 412, 416, 429, 500, 503,
    ] {
        for (region, head) in [(None, false), (Some(region), false), (Some(region), true)] {
            let failure = Failure::from_answer(status, &code, &message, region, head);
            let is_final = match failure {
                Failure::Final(error) => {
                    check_message(&error.to_string());
                    true
                }
                Failure::Transient(text) | Failure::TooSlow(text) | Failure::Expired(text) => {
                    check_message(&text);
                    false
                }
            };
            // Whoever has no code to say is taken by the status.
            if code.is_empty() {
                assert_eq!(
                    is_final,
                    status < 500 && !matches!(status, 408 | 429) && !(status == 400 && head)
                );
            }
        }
    }
}

/// A key on the first line, and its ETag behind it.
pub(crate) fn get_request(text: &str) {
    static SENDER: OnceLock<(Sender, Arc<Credentials>)> = OnceLock::new();
    let (sender, credentials) = SENDER.get_or_init(|| {
        let pool = Pool::new(Network::default(), true, 1);
        (Sender::new(&settings(), true, pool), some_credentials())
    });
    let (key, etag) = text.split_once('\n').unwrap_or((text, "\"e\""));
    let headers = [("range", "bytes=0-1048575"), ("if-match", etag)];
    for credentials in [None, Some(&**credentials)] {
        match sender.request(Method::Get, &path(key), &headers, credentials) {
            Ok(request) => {
                let path = request.uri().strip_prefix("http://127.0.0.1:9000/bucket/");
                let path = path.unwrap_or_else(|| panic!("{} leads elsewhere", request.uri()));
                assert!(!path.contains(['?', '#']), "{path}");
                assert_eq!(percent_decode_str(path).decode_utf8_lossy(), key);
                assert_eq!(request.headers().get("if-match"), Some(etag));
                assert_eq!(request.headers().get("range"), Some("bytes=0-1048575"));
                let is_signed = request.headers().get("authorization").is_some();
                assert_eq!(is_signed, credentials.is_some());
            }
            Err(Failure::Final(error @ Error::Protocol(_))) => check_message(&error.to_string()),
            Err(failure) => panic!("{failure:?}"),
        }
    }
}

/// Answers in turn, and the last one again and again.
pub(crate) fn in_turn(answers: Vec<String>) -> impl FnMut(&HttpRequest) -> String + Send {
    let mut answers = VecDeque::from(answers);
    move |_| match answers.len() {
        0 | 1 => answers.front().cloned().unwrap_or_default(),
        _ => answers.pop_front().unwrap_or_default(),
    }
}

/// Words of pages that are written down.
#[cfg(test)]
pub(crate) const PAGE: &[&str] = &[
    "d ",
    "u ",
    "\n",
    "\n\n",
    "\no ",
    "\np ",
    "\nt",
    "a",
    "a/",
    "b",
    "b-",
    "/",
    "//",
    "..",
    ".",
    "%00",
    "+",
    "%2B",
    "%0A",
    "%C3%A9",
    "%FF",
    "%F4%8F%BF%BF",
    "c/d",
    "x",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const XML: &[&str] = &[
        "d \n",
        "u a/ \n",
        "<?xml version=\"1.0\"?>",
        "<ListBucketResult>",
        "</ListBucketResult>",
        "<EncodingType>url</EncodingType>",
        "<Contents>",
        "</Contents>",
        "<Key>",
        "</Key>",
        "a",
        "a/b",
        "<Size>1</Size>",
        "<Size>-1</Size>",
        "<ETag>&quot;e&quot;</ETag>",
        "<ETag>&#10;</ETag>",
        "<LastModified>9999-12-31T23:59:59.999Z</LastModified>",
        "<IsTruncated>true</IsTruncated>",
        "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>",
        "<![CDATA[",
        "]]>",
        "<!--",
        "&#x1b;",
        "<NextContinuationToken>t</NextContinuationToken>",
        "<!DOCTYPE a [<!ENTITY x \"y\">]>",
        "&x;",
    ];
    const ERROR: &[&str] = &[
        "us-east-1\n",
        "<Error>",
        "</Error>",
        "<Code>",
        "</Code>",
        "<Message>",
        "</Message>",
        "SlowDown",
        "ExpiredToken",
        "RequestTimeTooSkewed",
        "&amp;",
        "&#27;",
        "<RequestId/>",
        "\u{9b}",
        "\n",
    ];

    /// Lists a bucket whose server answers each request with no entries and the next of `tokens`; what comes
    /// of it, and how often it was asked.
    fn list_of_empty_pages(
        mut tokens: impl Iterator<Item = String> + Send + 'static,
    ) -> (Result<Page, Error>, usize) {
        let asked = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&asked);
        let s3 = client_of(move |_| {
            *lock(&counted) += 1;
            xml_of(&Page {
                next_token: tokens.next(),
                ..Page::default()
            })
        });
        let request = Request::demand(Duration::from_secs(3600));
        let listed = run(async { s3.list(query(true, "", ""), &request).await });
        let asked = *lock(&asked);
        (listed, asked)
    }

    #[test]
    fn pages_without_entries_are_read_on_but_not_for_ever() {
        let tokens = |count: usize| (0..count).map(|i| format!("t{i}"));
        let (listed, asked) = list_of_empty_pages(tokens(999));
        let page = listed.expect("an empty list");
        assert!(page.last().is_none() && page.next_token.is_none());
        assert_eq!(asked, 1000);
        for (tokens, expected) in [
            (
                Box::new(tokens(usize::MAX)) as Box<dyn Iterator<Item = String> + Send>,
                1000,
            ),
            (Box::new(tokens(1).cycle()), 2),
            (Box::new(tokens(5).cycle()), 6),
        ] {
            let (listed, asked) = list_of_empty_pages(tokens);
            assert!(matches!(listed, Err(Error::Protocol(_))), "{listed:?}");
            assert_eq!(asked, expected);
        }
    }

    proptest! {
        #[test]
        fn pages_that_pass_are_in_order_and_within_what_was_asked(text in soup(PAGE)) {
            list_page(&text);
        }

        #[test]
        fn lists_are_read_or_refused(text in soup(XML)) {
            list_answer(&text);
        }

        #[test]
        fn errors_are_read_and_told_in_a_line(text in soup(ERROR)) {
            s3_error(&text);
        }

        #[test]
        fn requests_lead_to_their_key_only(text in soup(PAGE), any in any::<String>()) {
            get_request(&text);
            get_request(&any);
        }
    }
}
