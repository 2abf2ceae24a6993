//! NASA's Common Metadata Repository: `/search/collections.umm_json` beside Earthdata Login.
//!
//! Pages as the real one gives them: `CMR-Search-After` leads to the next one and is absent behind the last; it must be
//! sent back as it came, with the same parameters and without `page_num` (400 otherwise); a page may be shorter than was
//! asked. Sources: CMR's search API documentation; nsidc/earthaccess issue 1445; the dirt is that of
//! earthaccess-auth's docs/explanation/cmr-s3-buckets.md.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use crate::login::Query;
use crate::reply::{Reply, html, json};
use crate::state::State;

const SEARCH_AFTER: HeaderName = HeaderName::from_static("cmr-search-after");
const HITS: HeaderName = HeaderName::from_static("cmr-hits");

/// What CMR holds, and how it answers.
#[derive(Debug, Clone)]
pub struct Cmr {
    /// The records, `{"meta": ..., "umm": ...}`.
    pub collections: Vec<Value>,
    /// Never more than so many to a page, whatever is asked for.
    pub most_per_page: usize,
    /// What goes wrong with the first requests, in order.
    pub trouble: Vec<CmrTrouble>,
}

/// What goes wrong with a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CmrTrouble {
    /// Nothing.
    Fine,
    /// This status, with `Retry-After` in seconds.
    Status(u16, Option<u32>),
    /// Half of the page, with `CMR-Time-Out: true`.
    TimeOut,
    /// 200 with a page of HTML.
    Html,
    /// The page, but nothing that leads to the next one.
    LastTooEarly,
}

impl Default for Cmr {
    /// Three good buckets among the dirt of the field, in pages of 4.
    fn default() -> Self {
        Self {
            collections: dirty_collections(),
            most_per_page: 4,
            trouble: Vec::new(),
        }
    }
}

impl Cmr {
    /// One record of a collection.
    pub fn collection(provider: &str, names: &[&str], endpoint: &str) -> Value {
        json!({
            "meta": { "concept-id": "C1-MOCK", "provider-id": provider },
            "umm": { "ShortName": "MOCK", "DirectDistributionInformation": {
                "Region": "us-west-2",
                "S3BucketAndObjectPrefixNames": names,
                "S3CredentialsAPIEndpoint": endpoint,
                "S3CredentialsAPIDocumentationURL": format!("{endpoint}README"),
            }},
        })
    }
}

fn dirty_collections() -> Vec<Value> {
    let podaac = "https://archive.podaac.earthdata.nasa.gov/s3credentials";
    let asf = "https://cumulus.asf.earthdatacloud.nasa.gov/s3credentials";
    let asf_of_old = "https://cumulus.asf.alaska.edu/s3credentials";
    let ges_disc = "https://data.gesdisc.earthdata.nasa.gov/s3credentials";
    let opera = &["asf-cumulus-prod-opera-products/OPERA"][..];
    let collection = Cmr::collection;
    vec![
        collection(
            "POCLOUD",
            &["podaac-new-bucket/A/", "podaac-new-bucket/B/"],
            podaac,
        ),
        // Two endpoints for one bucket: most collections say the second.
        collection("ASF", opera, asf_of_old),
        collection("ASF", opera, asf),
        collection("ASF", opera, asf),
        // As an S3 URL; and the separator is missing.
        collection(
            "GES_DISC",
            &["s3://gesdisc-cumulus-prod-protectedAqua_AIRS_Level2/AIRXBCAL.005/"],
            ges_disc,
        ),
        // Placeholders.
        collection("SCIOPS", &["TestBucket"], "www.testexample.com"),
        // An S3 URL where the endpoint belongs.
        collection(
            "LPCLOUD",
            &["lp-wrong-field/x"],
            "s3://lp-wrong-field/s3credentials",
        ),
        // Endpoints that no login must go to.
        collection(
            "POCLOUD",
            &["evil-bucket/x", "podaac-new-bucket/C/"],
            "https://evil.example.org/s3credentials",
        ),
        collection(
            "POCLOUD",
            &["plain-bucket/x"],
            "http://archive.podaac.earthdata.nasa.gov/s3credentials",
        ),
        // Other forms than the schema's.
        json!({ "meta": { "provider-id": null }, "umm": { "DirectDistributionInformation": {
            "Region": null, "S3BucketAndObjectPrefixNames": "not-a-list/x", "S3CredentialsAPIEndpoint": [podaac] } } }),
        json!({ "meta": {}, "umm": {} }),
        json!({ "umm": null }),
    ]
}

/// Answers a search.
pub(crate) fn answer<B>(state: &State, request: &Request<B>) -> Reply {
    state.meter.count(|counters| &mut counters.cmr_requests);
    if request.headers().contains_key(header::AUTHORIZATION) {
        state
            .meter
            .count(|counters| &mut counters.stray_authorizations);
    }
    let (trouble, cmr) = {
        let mut controls = state.controls.lock();
        let trouble = match controls.cmr.trouble.is_empty() {
            true => CmrTrouble::Fine,
            false => controls.cmr.trouble.remove(0),
        };
        (trouble, controls.cmr.clone())
    };
    match trouble {
        CmrTrouble::Status(status, retry_after) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut reply = json(status, &json!({ "errors": ["trouble"] }));
            if let Some(seconds) = retry_after {
                let headers = reply.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            reply
        }
        CmrTrouble::Html => html(StatusCode::OK, "Earthdata Search", "Welcome."),
        trouble => page(&cmr, &trouble, request),
    }
}

fn page<B>(cmr: &Cmr, trouble: &CmrTrouble, request: &Request<B>) -> Reply {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let wrong = |text: &str| json(StatusCode::BAD_REQUEST, &json!({ "errors": [text] }));
    let size = query.get("page_size").unwrap_or("10").parse::<usize>();
    let Some(size) = size.ok().filter(|size| (1..=2000).contains(size)) else {
        return wrong("page_size must be a number between 0 and 2000");
    };
    let Some(first) = search_after(request.headers(), size) else {
        return wrong("search-after is not one of ours, or belongs to another search");
    };
    if query.get("page_num").is_some() && first > 0 {
        return wrong("page_num is not allowed with search-after");
    }
    // All that the mock holds is in the cloud; without the parameter there would be more.
    if query.get("cloud_hosted") != Some("true") {
        return wrong("the mock holds collections in the cloud only");
    }
    let all = cmr.collections.len();
    let first = first.min(all);
    let mut end = all.min(first + size.min(cmr.most_per_page));
    if *trouble == CmrTrouble::TimeOut {
        end = first + (end - first) / 2;
    }
    let items = &cmr.collections[first..end];
    let mut reply = json(
        StatusCode::OK,
        &json!({ "hits": all, "took": 1, "items": items }),
    );
    let headers = reply.headers_mut();
    headers.insert(HITS, HeaderValue::from(all));
    if *trouble == CmrTrouble::TimeOut {
        headers.insert("cmr-time-out", HeaderValue::from_static("true"));
    }
    // The real one has it behind every page but an empty one.
    if !items.is_empty() && *trouble != CmrTrouble::LastTooEarly {
        let token = HeaderValue::try_from(format!("[\"mock\",{size},{end}]"));
        headers.insert(SEARCH_AFTER, token.expect("visible ASCII"));
    }
    reply
}

/// Where the page begins; None if the token is not one of a search of this size.
fn search_after(headers: &HeaderMap, size: usize) -> Option<usize> {
    let Some(token) = headers.get(SEARCH_AFTER) else {
        return Some(0);
    };
    let rest = token.to_str().ok()?.strip_prefix("[\"mock\",")?;
    let (of_size, at) = rest.strip_suffix(']')?.split_once(',')?;
    (of_size.parse() == Ok(size)).then(|| at.parse().ok())?
}
