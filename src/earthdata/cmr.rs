//! NASA's Common Metadata Repository: the sweep of its cloud collections.
//!
//! Pages follow one another by the `CMR-Search-After` header, which is sent back as it came; the last
//! page is the one without it, or without items, and not one that is merely short. `CMR-Time-Out`
//! marks a partial page. Nothing secret is sent: what restricted collections say is not needed.
//!
//! Source: CMR's search API documentation, cmr.earthdata.nasa.gov/search/site/docs/search/api.html.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};

use super::registry::Table;
use super::sweep::{Page, Tally};
use crate::network::{self, Network, causes};

/// Where the production system is.
pub const CMR: &str = "https://cmr.earthdata.nasa.gov";
/// Records of collections have 10 to 30 KB: some 10 MB a page. CMR allows 2,000.
const PAGE_SIZE: &str = "500";
/// Several times what a page has.
const MAX_PAGE: usize = 128 << 20;
/// Several times the pages there are; a server that always has another walks in circles.
const MAX_PAGES: u32 = 1000;
/// A TCP and TLS handshake across a continent takes a tenth of this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// CMR gives up on a search after 180 s.
const PAGE_TIMEOUT: Duration = Duration::from_secs(200);
/// A server that says when to come again is believed up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SEARCH_AFTER: &str = "cmr-search-after";

/// Why there is no new table.
#[derive(Debug, thiserror::Error)]
pub enum CmrError {
    /// No connection, no answer, or a broken one.
    #[error(
        "cannot reach CMR at {host}: {why}. Check the network and proxy settings; the table is as it \
         was"
    )]
    Unreachable {
        /// Host and port.
        host: String,
        /// The cause as the HTTP client tells it.
        why: String,
    },
    /// It fails, or wants no more requests for now.
    #[error("CMR at {host} fails ({what}): try again later; the table is as it was")]
    Fails {
        /// Host and port.
        host: String,
        /// In what way.
        what: String,
    },
    /// Something else answers there.
    #[error("CMR at {host} answers with {what}: the table is as it was. Check --cmr-url")]
    NotCmr {
        /// Host and port.
        host: String,
        /// What came.
        what: String,
    },
}

/// What a sweep found.
#[derive(Debug)]
pub struct Sweep {
    /// The buckets.
    pub table: Table,
    /// Collections seen.
    pub collections: u64,
    /// Names of buckets left out, because name, endpoint or region cannot be used.
    pub left_out: u64,
}

/// Asks CMR at `url` for all its cloud collections. `progress` is told after each page how many
/// collections came so far, and how many there are.
///
/// # Errors
/// [`CmrError`]; also where fewer collections came than CMR says there are.
pub async fn sweep(
    url: &Url,
    network: &Network,
    mut progress: impl FnMut(u64, u64),
) -> Result<Sweep, CmrError> {
    let host = url.authority().to_owned();
    let client = client(url, network).map_err(|error| CmrError::Unreachable {
        host: host.clone(),
        why: causes(&error),
    })?;
    let cmr = Cmr { client, url, host };
    let mut tally = Tally::default();
    let mut after = None;
    for _ in 0..MAX_PAGES {
        let Answer { page, next, hits } = cmr.page_with_patience(after.as_ref()).await?;
        let is_last = next.is_none() || page.items.is_empty();
        page.items.into_iter().for_each(|item| tally.add(item));
        progress(tally.collections, hits);
        if !is_last {
            after = next;
            continue;
        }
        if tally.collections < hits {
            return Err(cmr.fails(format!(
                "it has {hits} collections and sent {} of them",
                tally.collections
            )));
        }
        let today = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let table = tally.table(&today[..10]);
        if table.rows().is_empty() {
            return Err(cmr.not_cmr("no bucket that can be used"));
        }
        return Ok(Sweep {
            table,
            collections: tally.collections,
            left_out: tally.left_out,
        });
    }
    Err(cmr.not_cmr("pages without end"))
}

fn client(url: &Url, network: &Network) -> reqwest::Result<reqwest::Client> {
    let mut builder = network
        .http_client()?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(PAGE_TIMEOUT);
    // Plain http is on this machine, where a proxy cannot go.
    if url.scheme() != "https" {
        builder = builder.no_proxy();
    }
    builder.build()
}

struct Cmr<'a> {
    client: reqwest::Client,
    url: &'a Url,
    host: String,
}

/// A page, and where the next one begins.
struct Answer {
    page: Page,
    next: Option<HeaderValue>,
    hits: u64,
}

/// A page that did not come.
enum Failure {
    /// Another try may help, after this pause if the server named one.
    Transient(CmrError, Option<Duration>),
    Final(CmrError),
}

impl Cmr<'_> {
    async fn page_with_patience(&self, after: Option<&HeaderValue>) -> Result<Answer, CmrError> {
        let mut pauses = ExponentialBuilder::default()
            .with_max_times(4)
            .with_jitter()
            .build();
        loop {
            let (error, named) = match self.page(after).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(error, named)) => (error, named),
            };
            let Some(pause) = pauses.next() else {
                return Err(error);
            };
            tracing::debug!("trying again: {error}");
            tokio::time::sleep(named.unwrap_or(pause).min(LONGEST_PAUSE)).await;
        }
    }

    async fn page(&self, after: Option<&HeaderValue>) -> Result<Answer, Failure> {
        let mut url = self.url.clone();
        url.set_path(&format!(
            "{}/search/collections.umm_json",
            self.url.path().trim_end_matches('/')
        ));
        url.query_pairs_mut()
            .append_pair("cloud_hosted", "true")
            .append_pair("page_size", PAGE_SIZE);
        // CMR asks its clients to say who they are.
        let mut request = self.client.get(url).header("client-id", "s3credmount");
        if let Some(after) = after {
            request = request.header(SEARCH_AFTER, after);
        }
        let unreachable = |error: reqwest::Error| {
            let why = causes(&error.without_url());
            let host = self.host.clone();
            Failure::Transient(CmrError::Unreachable { host, why }, None)
        };
        let response = request.send().await.map_err(unreachable)?;
        let headers = response.headers().clone();
        match response.status() {
            StatusCode::OK if said(&headers, "cmr-time-out") == Some("true") => {
                let error = self.fails("a search that took too long".to_owned());
                return Err(Failure::Transient(error, None));
            }
            StatusCode::OK => {}
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) => {
                let seconds = said(&headers, RETRY_AFTER.as_str()).and_then(|s| s.parse().ok());
                let error = self.fails(format!("HTTP {}", status.as_u16()));
                return Err(Failure::Transient(error, seconds.map(Duration::from_secs)));
            }
            status if status.is_server_error() => {
                let error = self.fails(format!("HTTP {}", status.as_u16()));
                return Err(Failure::Transient(error, None));
            }
            status => {
                let what = format!("HTTP {}", status.as_u16());
                return Err(Failure::Final(self.not_cmr(&what)));
            }
        }
        let body = network::body_up_to(response, MAX_PAGE).await;
        let body = body.map_err(unreachable)?.ok_or_else(|| {
            let what = format!("a page of more than {} MiB", MAX_PAGE >> 20);
            Failure::Final(self.not_cmr(&what))
        })?;
        let page = serde_json::from_slice(&body).map_err(|_| {
            Failure::Final(self.not_cmr("something that is no list of collections"))
        })?;
        Ok(Answer {
            page,
            next: headers.get(SEARCH_AFTER).cloned(),
            hits: said(&headers, "cmr-hits")
                .and_then(|hits| hits.parse().ok())
                .unwrap_or(0),
        })
    }

    fn fails(&self, what: String) -> CmrError {
        let host = self.host.clone();
        CmrError::Fails { host, what }
    }

    fn not_cmr(&self, what: &str) -> CmrError {
        CmrError::NotCmr {
            host: self.host.clone(),
            what: what.to_owned(),
        }
    }
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
