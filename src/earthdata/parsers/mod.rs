//! What holds whatever Earthdata's servers answer; for what stands in files: [`files`].

pub(crate) mod files;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use reqwest::Url;
use reqwest::cookie::{CookieStore, Jar};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::Error;
use super::answer::{self, LONGEST_LIFE, parse_expiration};
use super::endpoint::{Endpoint, Settings, agreement_page, user_token};
use super::login::{Login, LoginSettings, Proof};
use super::registry::is_trusted;
use super::web::{Answer, Authority, check_url};
use crate::network::{Network, is_loopback};
use crate::parsers::check_message;

const HOUR: Duration = Duration::from_secs(3600);
/// 2027-01-15.
const NOW: u64 = 1_800_000_000;
/// 9999-12-31, the last second: what HTTP's dates end with, and RFC 3339's.
const LAST: u64 = 253_402_300_799;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn is_in_header(secret: &SecretString) -> bool {
    HeaderValue::from_str(secret.expose_secret()).is_ok() && !secret.expose_secret().is_empty()
}

pub(crate) fn credentials_json(text: &str) {
    for now in [0, NOW, LAST - 1] {
        for date in [None, Some(0), Some(now), Some(NOW - 3600), Some(LAST)] {
            let date = date.map(at);
            let parsed = answer::parse("https://e/s3credentials", &text.into(), at(now), date);
            let grant = match &parsed {
                Ok(grant) => grant,
                Err(error) => {
                    check_message(&error.to_string());
                    depends_on_no_secret(text, at(now), date);
                    continue;
                }
            };
            assert!(!grant.remaining.is_zero() && grant.remaining <= LONGEST_LIFE);
            assert!(HeaderValue::from_str(&grant.access_key_id).is_ok());
            assert!(is_in_header(&grant.secret_access_key) && is_in_header(&grant.session_token));
            assert_eq!(format!("{grant:?}").matches("REDACTED").count(), 2);
            let skew = date.map_or(0, |date| {
                let ahead = at(now).duration_since(date);
                let seconds =
                    |by: Duration| i64::try_from(by.as_secs()).expect("some 10,000 years");
                ahead.map_or_else(|behind| -seconds(behind.duration()), seconds)
            });
            assert!(grant.clock_ahead == skew || (grant.clock_ahead == 0 && skew.abs() < 5));
        }
    }
}

/// The error is the same with other secrets.
fn depends_on_no_secret(text: &str, now: SystemTime, date: Option<SystemTime>) {
    // Written anew, since of a field that is there twice only one is replaced.
    let Ok(mut json) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let told = |json: &Value| {
        let body = json.to_string().into();
        let parsed = answer::parse("https://e/s3credentials", &body, now, date);
        parsed.err().map(|error| error.to_string())
    };
    let before = told(&json);
    for field in ["secretAccessKey", "sessionToken"] {
        if let Some(Value::String(secret)) = json.get_mut(field)
            && answer::is_printable(secret)
        {
            *secret = "another".to_owned();
        }
    }
    assert_eq!(told(&json), before);
}

pub(crate) fn expiration(text: &str) {
    let Some(time) = parse_expiration(text) else {
        return;
    };
    assert!((at(0)..=at(LAST) + HOUR).contains(&time));
    let written = humantime::format_rfc3339_nanos(time).to_string();
    assert_eq!(parse_expiration(&written), Some(time), "{written}");
}

pub(crate) fn login_answer(text: &str) {
    let endpoint = &endpoints()[0];
    for status in [200, 202, 302, 400, 401, 403, 404, 429, 500] {
        let answer = an_answer(status, text, None);
        if let Err(error) = endpoint.grant(&endpoint.url, &answer) {
            check_message(&error.to_string());
            if let Error::EulaNotAccepted { resolution_url, .. } = error {
                check_url(&resolution_url).expect("one that a browser may open");
            }
        }
        let locked = endpoint.locked(&a_login(), answer.detail()).to_string();
        check_message(&locked);
        assert!(!locked.contains("hunter2"), "{locked}");
    }
    if let Some(token) = user_token(text) {
        assert!(is_in_header(&token));
    }
}

/// Endpoints with a login host each: in production, and on loopback. Made once, because each has HTTP
/// clients.
fn endpoints() -> &'static [Endpoint; 2] {
    static ENDPOINTS: OnceLock<[Endpoint; 2]> = OnceLock::new();
    ENDPOINTS.get_or_init(|| {
        [
            (
                "https://archive.podaac.earthdata.nasa.gov/s3credentials",
                "urs.earthdata.nasa.gov",
            ),
            ("http://127.0.0.1:8080/s3credentials", "127.0.0.1:8081"),
        ]
        .map(|(endpoint, login_host)| {
            let settings = Settings {
                endpoint: endpoint.to_owned(),
                login_host: login_host.to_owned(),
                login: LoginSettings::default(),
            };
            Endpoint::new(settings, &Network::default()).expect("a URL and a host")
        })
    })
}

fn a_login() -> Login {
    Login {
        proof: Proof::Password {
            user: "ada".to_owned(),
            password: "hunter2".into(),
        },
        source: "here".to_owned(),
        changed: None,
        is_from_pipe: false,
        has_backslash: false,
    }
}

fn an_answer(status: u16, body: &str, location: Option<Url>) -> Answer {
    Answer {
        status,
        location,
        date: None,
        body: body.into(),
        sent: Some(a_login().proof),
    }
}

pub(crate) fn redirect(text: &str) {
    let login = a_login();
    for endpoint in endpoints() {
        let is_https = endpoint.url.scheme() == "https";
        let allowed = match is_https {
            true => [
                ("archive.podaac.earthdata.nasa.gov", 443),
                ("urs.earthdata.nasa.gov", 443),
            ],
            false => [("127.0.0.1", 8080), ("127.0.0.1", 8081)],
        };
        let login_page = format!(
            "https://{}/oauth/authorize?x=y",
            endpoint.login_host.as_str()
        );
        for from in [endpoint.url.as_str(), &login_page] {
            let from: Url = from.parse().expect("a URL");
            let location = super::web::location(&from, text);
            for (login, sent) in [(None, false), (Some(&login), false), (Some(&login), true)] {
                let answer = an_answer(302, "", location.clone());
                let target = match endpoint.redirected(&answer, login, sent) {
                    Ok(target) => target,
                    Err(error @ Error::NoLogin { .. }) => {
                        assert!(login.is_none(), "{error}");
                        continue;
                    }
                    Err(error) => {
                        check_message(&error.to_string());
                        continue;
                    }
                };
                let host = target.host_str().expect("a host");
                let port = target.port_or_known_default().expect("a port");
                assert!(allowed.contains(&(host, port)), "{target}");
                assert!(!is_https || target.scheme() == "https", "{target}");
                assert!(
                    target.scheme() == "https" || is_loopback(&target),
                    "{target}"
                );
                assert!(
                    target.username().is_empty() && target.password().is_none(),
                    "{target}"
                );
                // The password is sent there.
                if Authority::of(&target) == endpoint.login_host {
                    assert!(login.is_some(), "{target}");
                    assert_eq!((host, port), allowed[1], "{target}");
                }
            }
        }
        if let Ok(url) = endpoint.url.join(text) {
            check_message(&agreement_page(&url));
        }
    }
}

pub(crate) fn cookies(text: &str) {
    let jar = Arc::new(Jar::default());
    let url = |text: &str| text.parse::<Url>().expect("a URL");
    let endpoint = &endpoints()[0].url;
    for cookie in text.lines() {
        jar.add_cookie_str(cookie, endpoint);
    }
    for elsewhere in [
        "https://example.org/s3credentials",
        "https://127.0.0.1/",
        "https://podaac.earthdata.nasa.gov.example.org/",
        "https://urs.earthdata.nasa.gov.",
    ] {
        assert_eq!(jar.cookies(&url(elsewhere)), None, "{elsewhere}");
    }
}

pub(crate) fn urls(text: &str) {
    match check_url(text) {
        Ok(url) => {
            assert!(url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)));
            assert!(url.username().is_empty() && url.password().is_none() && url.has_host());
            assert_eq!(check_url(url.as_str()).expect("the same"), url);
            let shown = super::web::shown(&url);
            assert!(
                !shown.contains(char::is_control) && !shown.contains(['?', '#']),
                "{shown}"
            );
        }
        Err(error) => without_password(text, &error),
    }
    match Authority::parse(text) {
        Ok(authority) => {
            let bare = Authority::bare(text);
            let url: Url = format!("https://{bare}/x").parse().expect("a URL");
            assert_eq!(url.host_str(), Some(authority.host()));
            let written = [
                authority.as_str().to_owned(),
                format!("{}:443", authority.as_str()),
            ];
            assert!(
                written
                    .iter()
                    .any(|written| written.eq_ignore_ascii_case(bare))
            );
            assert_eq!(url.path(), "/x");
            // However it is written, it is the host that a browser goes to.
            let scheme = if text.contains("://") { "" } else { "https://" };
            let browsed: Url = format!("{scheme}{text}").parse().expect("a URL");
            assert!(Authority::of(&browsed) == authority && browsed.path() == "/");
            assert!(Authority::of(&url) == authority);
        }
        Err(error) => without_password(text, &error),
    }
    if is_trusted(text) {
        let host = text.strip_prefix("https://").expect("https");
        let host = host.strip_suffix("/s3credentials").expect("an endpoint");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        assert!(host.chars().all(plain), "{host}");
        let domains = [
            "earthdata.nasa.gov",
            "earthdatacloud.nasa.gov",
            "asf.alaska.edu",
        ];
        assert!(
            domains
                .iter()
                .any(|domain| host.ends_with(&format!(".{domain}")))
        );
    }
}

/// In what is shown of it, nothing stands that any reading of a URL takes for a password.
fn without_password(text: &str, error: &Error) {
    let Error::BadUrl { url, .. } = error else {
        panic!("{error}");
    };
    let Some((before, _)) = text.rsplit_once('@') else {
        return;
    };
    assert!(!before.is_empty() || url.starts_with("...@"), "{url}");
    let shown = url.strip_prefix("...@").expect("cut");
    assert!(!shown.contains('@'), "{url}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const JSON: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "1",
        "\\u0000",
        "\"accessKeyId\":\"ASIA\",",
        "\"secretAccessKey\":\"hunter2\",",
        "\"sessionToken\":\"hunter3\",",
        "\"expiration\":\"2027-01-15 09:00:00+00:00\"",
        "\"error_description\":",
        "\"resolution_url\":",
        "\"https://urs.earthdata.nasa.gov/approve_app?client_id=x\"",
        "{\"access_token\":\"",
        "<html>",
        "\\u001b[2J",
    ];
    const TIME: &[&str] = &[
        "2021", "-", "01", "27", "T", " ", "00", ":", "50", "09", ".5", "+00:00", "Z", "9999",
        "12", "31", "23", "59", "-05:00", "[UTC]", "-0001", "W04",
    ];
    const URLS: &[&str] = &[
        "https://",
        "http://",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "?",
        "#",
        "..",
        "urs.earthdata.nasa.gov",
        "archive.podaac.earthdata.nasa.gov",
        "/s3credentials",
        "127.0.0.1",
        ":8080",
        ":8081",
        ":443",
        "[::1]",
        "localhost",
        "example.org",
        "/oauth/authorize",
        "/approve_app?client_id=1",
        "user",
        "\t",
        "%2e",
        "%40",
        ".",
        "x.earthdata.nasa.gov",
        "\u{ff0e}",
        "xn--",
        "0x7f.1",
        "data:",
    ];
    const COOKIES: &[&str] = &[
        "a",
        "=",
        ";",
        " ",
        "Domain=",
        ".earthdata.nasa.gov",
        "gov",
        "example.org",
        "Path=/",
        "Secure",
        "HttpOnly",
        "Max-Age=",
        "99999999999999999999",
        "-1",
        "\n",
        "Expires=",
        "\"",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "SameSite=None",
    ];

    proptest! {
        #[test]
        fn credentials_are_sound_or_refused_without_a_secret(text in soup(JSON)) {
            credentials_json(&text);
            credentials_json(&format!("{{{}}}", JSON[10..14].concat() + &text));
            login_answer(&text);
        }

        #[test]
        fn expirations_are_times_of_our_calendar(text in soup(TIME)) {
            expiration(&text);
            credentials_json(&format!("{{{}\"expiration\":\"{text}\"}}", JSON[10..13].concat()));
        }

        #[test]
        fn redirects_lead_to_the_allowed_hosts_only(text in soup(URLS)) {
            redirect(&text);
            urls(&text);
        }

        #[test]
        fn cookies_stay_with_their_domain(text in soup(COOKIES)) {
            cookies(&text);
        }
    }
}
