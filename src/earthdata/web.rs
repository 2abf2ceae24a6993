//! One HTTP client for the login: no redirects of its own, small answers only, plain http only on
//! loopback.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use reqwest::Url;
use reqwest::cookie::Jar;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION};
use secrecy::{ExposeSecret, SecretString};

use super::error::Error;
use super::login::Proof;
use crate::network::{self, Network, causes};

/// No answer of these servers is larger; one that is, is not what we asked for.
const MAX_BODY: usize = 64 * 1024;
/// A TCP and TLS handshake across a continent takes a tenth of this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `/s3credentials` calls AWS STS and Earthdata Login in turn: seconds, not tens of them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// thin-egress-app, `app.py`: who asks, for the `RoleSessionName`.
const APP_NAME: HeaderName = HeaderName::from_static("app-name");

/// A host with its port, if it is not the default one: `urs.earthdata.nasa.gov`, `127.0.0.1:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    text: String,
    host_length: usize,
}

impl Authority {
    /// The authority of `url`.
    pub(super) fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let host_length = host.len();
        let text = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        Self { text, host_length }
    }

    /// Reads `HOST` or `HOST:PORT`, also as people copy it from a browser: `https://HOST/`.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let bare = Self::bare(text);
        let url = Url::parse(&format!("https://{bare}/")).ok();
        let authority = url.map(|url| Self::of(&url));
        let portless = bare.strip_suffix(":443").unwrap_or(bare);
        let is = |text: &str, authority: &Self| authority.text.eq_ignore_ascii_case(text);
        authority
            .filter(|authority| is(bare, authority) || is(portless, authority))
            .ok_or_else(|| Error::BadUrl {
                url: network::without_userinfo(text),
                why: "it must be a host, as in --earthdata-host urs.earthdata.nasa.gov, with a :PORT \
                      if need be",
            })
    }

    /// Without the scheme and the path that go without saying.
    pub(super) fn bare(text: &str) -> &str {
        let scheme = text.get(..8);
        let is_https = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        let text = if is_https { &text[8..] } else { text };
        text.strip_suffix('/').unwrap_or(text)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn host(&self) -> &str {
        &self.text[..self.host_length]
    }
}

/// [`network::check_url`], as an error of this module.
pub(super) fn check_url(text: &str) -> Result<Url, Error> {
    network::check_url(text).map_err(|bad| Error::BadUrl {
        url: bad.url,
        why: bad.why,
    })
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where a redirect leads, made absolute.
    pub(super) location: Option<Url>,
    /// The server's clock, from the `Date` header.
    pub(super) date: Option<std::time::SystemTime>,
    /// May hold secrets: for parsing only.
    pub(super) body: SecretString,
    /// What was sent to have it.
    pub(super) sent: Option<Proof>,
}

impl Answer {
    /// What an error page says, if it is short, plain text that does not quote the login; an error page holds no
    /// credentials.
    pub(super) fn detail(&self) -> String {
        let body = self.body.expose_secret();
        let text = serde_json::from_str::<serde_json::Value>(body)
            .ok()
            .and_then(|json| {
                let field = ["error_description", "message", "error"];
                let mut texts = field
                    .iter()
                    .filter_map(|f| Some(json.get(f)?.as_str()?.to_owned()));
                texts.next()
            })
            .unwrap_or_else(|| body.trim().to_owned());
        if text.is_empty() || text.starts_with('<') || self.quotes_login(&text) {
            return String::new();
        }
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        format!(": {}", clean.take(200).collect::<String>())
    }

    fn quotes_login(&self, text: &str) -> bool {
        match &self.sent {
            None => false,
            Some(Proof::Token(token)) => text.contains(token.expose_secret()),
            Some(Proof::Password { user, password }) => {
                let password = password.expose_secret();
                let header =
                    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                text.contains(password) || text.contains(&header)
            }
        }
    }
}

/// The HTTP clients, with one set of cookies.
#[derive(Clone, Debug)]
pub(super) struct Web {
    /// For https: through a proxy, where the environment names one. It sees no secret.
    client: reqwest::Client,
    /// For http, which is on loopback: a proxy would see secrets, and could not reach it.
    direct: reqwest::Client,
}

impl Web {
    pub(super) fn new(network: &Network) -> Result<Self, Error> {
        let unusable = |e: reqwest::Error| Error::Client(Arc::from(causes(&e)));
        let cookies = Arc::new(Jar::default());
        // TEA makes it a part of the name under which AWS logs what the credentials do.
        let program = HeaderMap::from_iter([(APP_NAME, HeaderValue::from_static("s3credmount"))]);
        let builder = || {
            Ok(network
                .http_client()?
                .default_headers(program.clone())
                .cookie_provider(Arc::clone(&cookies))
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(ANSWER_TIMEOUT)
                // Refreshes are many minutes apart: a kept connection would be dead by then.
                .pool_max_idle_per_host(0))
        };
        let client = builder().and_then(reqwest::ClientBuilder::build);
        let direct = builder().and_then(|builder| builder.no_proxy().build());
        Ok(Self {
            client: client.map_err(unusable)?,
            direct: direct.map_err(unusable)?,
        })
    }

    /// GETs `url`, with `proof` in the `Authorization` header if given.
    pub(super) async fn get(&self, url: &Url, proof: Option<&Proof>) -> Result<Answer, Error> {
        let request = self.client_for(url).get(url.clone());
        let request = match proof {
            None => request,
            Some(Proof::Token(token)) => request.bearer_auth(token.expose_secret()),
            Some(Proof::Password { user, password }) => {
                request.basic_auth(user, Some(password.expose_secret()))
            }
        };
        answer(url, request, proof.cloned()).await
    }

    /// POSTs nothing to `url`, with user and password in the `Authorization` header.
    pub(super) async fn post(
        &self,
        url: &Url,
        user: &str,
        password: &SecretString,
    ) -> Result<Answer, Error> {
        let request = self.client_for(url).post(url.clone());
        let request = request.basic_auth(user, Some(password.expose_secret()));
        let sent = Proof::Password {
            user: user.to_owned(),
            password: password.clone(),
        };
        answer(url, request.header(CONTENT_LENGTH, 0), Some(sent)).await
    }

    fn client_for(&self, url: &Url) -> &reqwest::Client {
        match url.scheme() {
            "https" => &self.client,
            _ => &self.direct,
        }
    }
}

/// Sends `request`, which goes to `url` with `sent`, and reads the answer.
async fn answer(
    url: &Url,
    request: reqwest::RequestBuilder,
    sent: Option<Proof>,
) -> Result<Answer, Error> {
    let unreachable = |e: reqwest::Error| Error::Unreachable {
        endpoint: shown(url),
        why: causes(&e.without_url()),
    };
    let response = request.send().await.map_err(unreachable)?;
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
    let location = header(LOCATION).and_then(|text| location(url, text));
    let date = header(reqwest::header::DATE).and_then(|d| httpdate::parse_http_date(d).ok());
    let status = response.status().as_u16();
    let body = network::body_up_to(response, MAX_BODY).await;
    let body = body
        .map_err(unreachable)?
        .ok_or_else(|| Error::NotCredentials {
            endpoint: shown(url),
            what: format!("more than {} KiB", MAX_BODY / 1024),
        })?;
    let body = String::from_utf8(body)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    Ok(Answer {
        status,
        location,
        date,
        body: body.into(),
        sent,
    })
}

/// Where a redirect from `url` leads.
pub(super) fn location(url: &Url, text: &str) -> Option<Url> {
    url.join(text).ok()
}

/// A URL without query and fragment, which may hold codes and states of a login.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_hosts_and_ports_only() {
        let good = Authority::parse("127.0.0.1:8080").expect("host and port");
        assert_eq!(
            (good.as_str(), good.host()),
            ("127.0.0.1:8080", "127.0.0.1")
        );
        let login = Authority::parse("urs.earthdata.nasa.gov").expect("a host");
        let is_login = |url: &str| Authority::of(&Url::parse(url).expect("a URL")) == login;
        assert!(is_login("https://URS.earthdata.nasa.gov/x"));
        assert!(is_login("https://urs.earthdata.nasa.gov:443/x"));
        for other in [
            "https://urs.earthdata.nasa.gov.example.org/",
            "https://urs.earthdata.nasa.gov@example.org/",
            "https://example.org/urs.earthdata.nasa.gov",
            "https://urs.earthdata.nasa.gov:8443/",
            "https://urs-earthdata.nasa.gov/",
            "https://xurs.earthdata.nasa.gov/",
            "https://uat.urs.earthdata.nasa.gov/",
            "https://urs.earthdat\u{430}.nasa.gov/",
        ] {
            assert!(!is_login(other), "{other}");
        }
        for same in [
            "urs.earthdata.nasa.gov:443",
            "https://urs.earthdata.nasa.gov/",
            "HTTPS://URS.earthdata.nasa.gov",
            "https://urs.earthdata.nasa.gov:443/",
            "urs.earthdata.nasa.gov/",
        ] {
            assert_eq!(Authority::parse(same).expect(same), login, "{same}");
        }
        for bad in [
            "http://x.org",
            "https://https://x.org",
            "https://x.org//",
            "x.org/path",
            "https://x.org/path",
            "x.org?q",
            "x.org:http",
            "x.org:4:443",
            "x.org:443:443",
            "u:p@x.org",
            "https://u:p@x.org/",
            "https://",
            "/",
            ":443",
            "",
            "a b",
        ] {
            let error = Authority::parse(bad).expect_err(bad).to_string();
            assert!(error.contains("--earthdata-host urs.earthdata.nasa.gov"));
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
