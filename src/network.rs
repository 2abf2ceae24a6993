//! Network settings that both HTTP stacks (the login's and S3's) share: certificates, proxies, names.
//!
//! `AWS_CA_BUNDLE` and `SSL_CERT_FILE` name files of certificate authorities in PEM; where one of
//! them is set, those (of both, if both are) are trusted and no others. `HTTPS_PROXY`, `HTTP_PROXY`,
//! `ALL_PROXY` and `NO_PROXY` are read by both stacks from the environment, by the same rules
//! (`hyper-util`).

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::{Certificate, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Never "Mozilla": Earthdata's servers answer browsers with pages.
pub const USER_AGENT: &str = concat!("s3credmount/", env!("CARGO_PKG_VERSION"));

/// What to do about a connection that failed for other reasons than that the server cannot be reached; `why` is
/// what the HTTP client tells.
pub fn what_to_check(why: &str) -> Option<&'static str> {
    if why.contains("certificate") {
        Some(
            "Name the file of an authority that vouches for this server by AWS_CA_BUNDLE, or install \
             the system's (ca-certificates)",
        )
    } else if why.contains("unsupported scheme socks") {
        Some(
            "SOCKS proxies are not spoken here: name an http proxy in HTTPS_PROXY, or the server in \
             NO_PROXY if it can be reached without one",
        )
    } else if why.contains("tunnel") {
        Some("The way leads through a proxy: check HTTPS_PROXY, ALL_PROXY and NO_PROXY")
    } else {
        None
    }
}

/// What both stacks are made with.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Certificate authorities in PEM; `None` for those of the system.
    pub authorities: Option<Vec<u8>>,
}

impl Network {
    /// Reads the files that the environment names.
    ///
    /// # Errors
    /// A message that names the variable and its file.
    pub fn from_environment() -> Result<Self, String> {
        let mut authorities = None;
        for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
                continue;
            };
            let path = PathBuf::from(path);
            let unusable = |why: String| {
                format!(
                    "{variable} names {}, which cannot be used: {why}. Correct it, or unset it to \
                     trust the certificates of the system",
                    path.display()
                )
            };
            let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
            check_authorities(&pem).map_err(unusable)?;
            let all = authorities.get_or_insert_with(Vec::new);
            all.extend_from_slice(&pem);
            all.push(b'\n');
        }
        for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            let proxy = std::env::var(variable).unwrap_or_default();
            if !proxy.is_empty() && !is_proxy(&proxy) {
                let proxy = without_userinfo(&proxy);
                return Err(format!(
                    "{variable} is {proxy}, which is no URL of a proxy: it looks like http://HOST:PORT. \
                     Correct it, or unset it to use none"
                ));
            }
        }
        Ok(Self { authorities })
    }

    /// The beginning of every HTTP client but S3's: no redirects of its own, and TLS by `ring`.
    ///
    /// # Errors
    /// Where the authorities are no certificates.
    pub fn http_client(&self) -> reqwest::Result<reqwest::ClientBuilder> {
        // Several parts of a program may do this; the first one wins, and all ask for the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false);
        match &self.authorities {
            None => Ok(builder),
            Some(pem) => Ok(builder.tls_certs_only(Certificate::from_pem_bundle(pem)?)),
        }
    }
}

/// Whether there are certificates, and all are sound: one stack passes over those that are not, and the other fails
/// without saying where.
fn check_authorities(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
        let certificate = certificate.map_err(|error| error.to_string());
        let added = certificate.and_then(|one| roots.add(one).map_err(|error| error.to_string()));
        added.map_err(|why| format!("certificate {number} in it is damaged ({why})"))?;
    }
    match roots.is_empty() {
        true => Err("there is no PEM certificate in it".to_owned()),
        false => Ok(()),
    }
}

/// Whether both stacks take it for a proxy; others they ignore without a word.
fn is_proxy(text: &str) -> bool {
    let schemes = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    Url::parse(&text).is_ok_and(|url| schemes.contains(&url.scheme()) && url.has_host())
}

/// The whole body of an answer; `None` where it is larger than `most`, which is all of it that is ever
/// held.
///
/// # Errors
/// As the connection fails.
pub async fn body_up_to(
    mut response: reqwest::Response,
    most: usize,
) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// A URL that must not be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url} cannot be used: {why}")]
pub struct BadUrl {
    /// As the user gave it, without name and password.
    pub url: String,
    /// Why not.
    pub why: &'static str,
}

/// Refuses every URL but https, and http on loopback; and user names in URLs.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(text: &str) -> Result<Url, BadUrl> {
    let bad = |why| BadUrl {
        url: without_userinfo(text),
        why,
    };
    let url = Url::parse(text).map_err(|_| bad("not a URL; it looks like https://HOST/PATH"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("a URL with a user name or password in it"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(bad("plain http is allowed on loopback only: use https")),
        _ => Err(bad("the scheme must be https")),
    }
}

/// What may be printed of a URL that the user typed, even with a password in it. URLs are read with
/// much goodwill (`https:user:password@host` is one), so all before the last `@` goes.
pub fn without_userinfo(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, behind)) => format!("...@{behind}"),
        None => text.to_owned(),
    }
}

/// Whether a URL leads to this machine itself.
pub fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

/// Whether this may name a region of AWS, as `us-west-2` does: a part of a host name, and no more. Twice as long as any
/// there is.
pub fn is_region(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(fits)
}

/// An error with all its causes: the HTTP client tells the interesting one last.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_urls_or_hosts() {
        for good in [
            "http://proxy:3128",
            "proxy:3128",
            "https://a:b@proxy",
            "socks5h://localhost:1",
        ] {
            assert!(is_proxy(good), "{good}");
        }
        for bad in [
            "http://",
            "htp://proxy:3128",
            "proxy:port",
            "http://pro xy:1",
        ] {
            assert!(!is_proxy(bad), "{bad}");
        }
    }

    #[test]
    fn urls_are_https_or_loopback() {
        for good in [
            "https://data.nsidc.earthdatacloud.nasa.gov/s3credentials",
            "http://127.0.0.2:8080/s3credentials",
            "http://localhost/x",
            "http://[::1]:9/x",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://example.org/s3credentials",
            "http://127.0.0.1.example.org/",
            "ftp://localhost/",
            "localhost",
            "https://user:hunter2@example.org/",
            "https:user:hunter2@example.org/",
            "https:\\\\user:hunter2@example.org",
            "user:hunter2@example.org",
        ] {
            let error = check_url(bad).expect_err(bad);
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
