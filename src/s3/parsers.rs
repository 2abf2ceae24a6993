//! What holds whatever a server answers in the name of S3.
//!
//! Pages are written down as [`super::pretended`] does.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use percent_encoding::percent_decode_str;

use super::error::{Error, Failure, code_and_message};
use super::http::Pool;
use super::list::{From, ListQuery, Page, check, decode};
use super::pretended::{
    client_of, encode, honest, impatient, keys_of, page_of, query, query_of, run, settings,
};
use super::send::{Method, Sender, path};
use crate::credentials::Credentials;
use crate::credentials::parsers::some_credentials;
use crate::network::Network;
use crate::parsers::check_message;
use crate::sync::Arc;
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
        for region in [None, Some(region)] {
            let failure = Failure::from_answer(status, &code, &message, region);
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
                assert_eq!(is_final, status < 500 && !matches!(status, 408 | 429));
            }
        }
    }
}

/// A key on the first line, and its ETag behind it.
pub(crate) fn get_request(text: &str) {
    static SENDER: OnceLock<(Sender, Arc<Credentials>)> = OnceLock::new();
    let (sender, credentials) = SENDER.get_or_init(|| {
        let pool = Pool::new(&Network::default(), true, 1);
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
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::pretended::xml_of;
    use super::*;
    use crate::parsers::soup;
    use crate::request::Request;
    use crate::sync::{Mutex, lock};

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
