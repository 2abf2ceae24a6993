//! Where this machine is, if it is one of AWS: the instance metadata service (IMDSv2).
//!
//! PUT `/latest/api/token`, then GET `/latest/meta-data/placement/region` with the token
//! (Amazon EC2 user guide, "Use the Instance Metadata Service"). Nothing of the user's goes there, and
//! no proxy is asked. Containers are often too many hops away from it, so that no answer means little.

use std::time::Duration;

use crate::network::{self, Network};

/// The service is on the machine's own host: it answers in milliseconds, or not at all.
const PATIENCE: Duration = Duration::from_secs(1);
/// A token has 56 bytes, a region some ten. What else answers there may send without end.
const MOST: usize = 1024;
/// Where it is on every instance; AWS's SDKs let this variable say otherwise.
const ENDPOINT: &str = "http://169.254.169.254";
const ENDPOINT_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// `true` forbids asking.
const DISABLED_VARIABLE: &str = "AWS_EC2_METADATA_DISABLED";

/// The AWS region that this machine is in, if that can be learned within a second.
pub async fn region() -> Option<String> {
    let disabled = std::env::var(DISABLED_VARIABLE);
    if disabled.is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let endpoint = std::env::var(ENDPOINT_VARIABLE).ok();
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
    let endpoint = endpoint
        .as_deref()
        .unwrap_or(ENDPOINT)
        .trim_end_matches('/');
    let asked = tokio::time::timeout(PATIENCE, ask(endpoint)).await.ok()?;
    asked
        .inspect_err(|error| tracing::debug!("no instance metadata: {error}"))
        .ok()
        .flatten()
        // Whatever else answers there (a captive portal, a proxy) must not get into messages.
        .filter(|region| network::is_region(region))
}

/// What the service says; `None` if that is too much to be a region.
async fn ask(endpoint: &str) -> reqwest::Result<Option<String>> {
    let client = Network::default().http_client()?.no_proxy().build()?;
    let token = client
        .put(format!("{endpoint}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let Some(token) = text(token).await? else {
        return Ok(None);
    };
    let region = client
        .get(format!("{endpoint}/latest/meta-data/placement/region"))
        .header("x-aws-ec2-metadata-token", token);
    text(region).await
}

async fn text(request: reqwest::RequestBuilder) -> reqwest::Result<Option<String>> {
    let answer = request.send().await?.error_for_status()?;
    let body = network::body_up_to(answer, MOST).await?;
    Ok(body.and_then(|body| String::from_utf8(body).ok()))
}
