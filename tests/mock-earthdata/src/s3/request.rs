//! What an S3 request is, seen from its head alone, before anything is checked.

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;

use crate::login::Query;
use crate::meter::{Op, RequestRecord};

/// The parameters that a ListObjectsV2 may have.
const LIST_PARAMETERS: [&str; 9] = [
    "list-type",
    "prefix",
    "delimiter",
    "start-after",
    "continuation-token",
    "max-keys",
    "encoding-type",
    "fetch-owner",
    "x-id",
];

/// Asks for checksums; its one value is `ENABLED`.
pub(crate) const CHECKSUM_MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");

/// The record of a request that has just arrived.
pub(crate) fn record(head: &Parts) -> RequestRecord {
    RequestRecord {
        range: text(&head.headers, header::RANGE),
        if_match: text(&head.headers, header::IF_MATCH),
        checksum_mode: head.headers.contains_key(&CHECKSUM_MODE),
        ..bare_record(&head.method, &head.uri)
    }
}

/// The record without the headers.
pub(crate) fn bare_record(method: &Method, uri: &Uri) -> RequestRecord {
    let (bucket, key) = bucket_and_key(uri);
    let query = uri.query().unwrap_or_default();
    let op = operation(method, &bucket, &key, query);
    let key = match op {
        Op::List => Query::parse(query)
            .get("prefix")
            .unwrap_or_default()
            .to_owned(),
        _ => key,
    };
    RequestRecord {
        op,
        method: method.to_string(),
        bucket,
        key,
        query: query.to_owned(),
        range: None,
        if_match: None,
        checksum_mode: false,
        status: 0,
        bytes: 0,
        depth: 0,
    }
}

/// A parameter beyond the operation's own is a subresource (`?acl`, `?versionId=`), and needs a right that is not there.
fn operation(method: &Method, bucket: &str, key: &str, query: &str) -> Op {
    let names: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, _)| name.into_owned())
        .collect();
    let plain = || {
        names
            .iter()
            .all(|name| name == "x-id" || name.starts_with("response-"))
    };
    let list = || {
        names
            .iter()
            .all(|name| LIST_PARAMETERS.contains(&name.as_str()))
            && Query::parse(query).get("list-type") == Some("2")
    };
    match (method, bucket, key) {
        (_, "", _) => Op::Forbidden,
        (&Method::GET, _, "") if list() => Op::List,
        (_, _, "") => Op::Forbidden,
        (&Method::GET, _, _) if plain() => Op::Get,
        (&Method::HEAD, _, _) if plain() => Op::Head,
        _ => Op::Forbidden,
    }
}

/// `/bucket/key`, decoded; a key may begin or end with a slash.
fn bucket_and_key(uri: &Uri) -> (String, String) {
    let path = percent_decode_str(uri.path()).decode_utf8_lossy();
    let path = path.strip_prefix('/').unwrap_or(&path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    (bucket.to_owned(), key.to_owned())
}

/// The access key that signed the request, if it was signed with SigV4 in its header.
pub(crate) fn access_key(headers: &HeaderMap) -> Option<&str> {
    let fields = signature(headers)?;
    let credential = fields
        .split(',')
        .find_map(|field| field.trim().strip_prefix("Credential="))?;
    credential.split('/').next()
}

/// Did the signature cover this header?
pub(crate) fn is_signed(headers: &HeaderMap, name: &str) -> bool {
    signature(headers)
        .and_then(|fields| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix("SignedHeaders="))
        })
        .is_some_and(|names| names.split(';').any(|one| one == name))
}

fn signature(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("AWS4-HMAC-SHA256 ")
}

/// A header as text; None if it is not there.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}
