//! The answer of `/s3credentials`, parsed.

use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::error::Error;

/// Temporary S3 credentials as an endpoint granted them.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The id, which is not secret; it also tells one grant from another.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: SecretString,
    /// The session token.
    pub session_token: SecretString,
    /// How long the credentials live from the moment of the answer on, by the server's clock where
    /// its `Date` header shows that ours is off.
    pub remaining: Duration,
    /// The seconds that the local clock is ahead of the server's (`Date`); negative if behind, 0 if
    /// the two agree within their resolution, or nothing is known.
    pub clock_ahead: i64,
}

/// The JSON that both families of servers send (TEA docs/s3access.md; Cumulus distribution API
/// content/s3credentials.md).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: SecretString,
    expiration: String,
}

/// `Date` and `expiration` have a resolution of a second, and the answer took time to come: less
/// than this is no skew.
const LEAST_SKEW: Duration = Duration::from_secs(5);
/// Of an expiration, more characters than this are not shown.
const LONGEST_TIME: usize = 40;

/// AWS gives temporary credentials for 36 hours at most (GetSessionToken). What claims to live longer
/// is renewed as if it did not.
pub const LONGEST_LIFE: Duration = Duration::from_secs(36 * 3600);

/// Parses the body of a 200 answer of `endpoint` that arrived at `now` (local clock), when the
/// server's clock said `date`.
pub(super) fn parse(
    endpoint: &str,
    body: &SecretString,
    now: SystemTime,
    date: Option<SystemTime>,
) -> Result<Grant, Error> {
    let not_credentials = |what: String| Error::NotCredentials {
        endpoint: endpoint.to_owned(),
        what,
    };
    let text = body.expose_secret();
    let body: Body = serde_json::from_str(text).map_err(|e| {
        // serde_json's message may quote values, so only the kind and place are told.
        not_credentials(match text.trim_start().chars().next() {
            None => "an empty body".to_owned(),
            Some('<') => "an HTML page".to_owned(),
            _ if e.is_data() => "JSON that lacks accessKeyId, secretAccessKey, sessionToken or \
                                 expiration"
                .to_owned(),
            _ => format!("unreadable JSON (line {}, column {})", e.line(), e.column()),
        })
    })?;
    if !is_printable(&body.access_key_id)
        || !is_printable(body.secret_access_key.expose_secret())
        || !is_printable(body.session_token.expose_secret())
    {
        return Err(not_credentials("empty or garbled credentials".to_owned()));
    }
    let expiration = parse_expiration(&body.expiration)
        .ok_or_else(|| not_credentials("an expiration in an unknown format".to_owned()))?;
    let skewed = date.filter(|date| distance(*date, now) >= LEAST_SKEW);
    let remaining = expiration
        .duration_since(skewed.unwrap_or(now))
        .unwrap_or_default()
        .min(LONGEST_LIFE);
    if remaining.is_zero() {
        return Err(Error::AlreadyExpired {
            endpoint: endpoint.to_owned(),
            expiration: body.expiration.trim().chars().take(LONGEST_TIME).collect(),
        });
    }
    Ok(Grant {
        access_key_id: body.access_key_id,
        secret_access_key: body.secret_access_key,
        session_token: body.session_token,
        remaining,
        clock_ahead: skewed.map_or(0, |date| seconds_ahead(now, date)),
    })
}

/// Whether it can stand in a header.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn seconds_ahead(now: SystemTime, date: SystemTime) -> i64 {
    let seconds = i64::try_from(distance(now, date).as_secs()).unwrap_or(i64::MAX);
    if now >= date { seconds } else { -seconds }
}

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|e| e.duration())
}

/// Reads `2021-01-27 00:50:09+00:00` and its relatives: blank or `T`, `+00:00` or `Z` or nothing
/// (UTC then), with or without fractions of a second.
pub(super) fn parse_expiration(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let naive = text.parse::<jiff::civil::DateTime>().ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(naive).ok()
    })?;
    let since_epoch = Duration::try_from(timestamp.as_duration()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 1_611_708_609; // 2021-01-27 00:50:09 UTC

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn body(expiration: &str) -> SecretString {
        format!(
            r#"{{"accessKeyId":"ASIAX","secretAccessKey":"s","sessionToken":"t","expiration":"{expiration}"}}"#
        )
        .into()
    }

    #[test]
    fn expirations_in_every_format_of_the_field() {
        for text in [
            "2021-01-27 00:50:09+00:00",
            "2021-01-27T00:50:09+00:00",
            "2021-01-27T00:50:09Z",
            "2021-01-27 00:50:09",
            "2021-01-27T00:50:09",
            "2021-01-26T19:50:09-05:00",
        ] {
            assert_eq!(parse_expiration(text), Some(at(AT)), "{text}");
        }
        let fraction = parse_expiration("2021-01-27 00:50:09.500000+00:00");
        assert_eq!(fraction, Some(at(AT) + Duration::from_millis(500)));
        for text in ["", "tomorrow", "1611708609", "-5000-01-01T00:00:00Z"] {
            assert_eq!(parse_expiration(text), None, "{text}");
        }
    }

    #[test]
    fn life_is_counted_by_the_servers_clock_when_ours_is_off() {
        let body = body("2021-01-27 00:50:09+00:00");
        let life = |now, date| parse("e", &body, at(now), date).map(|grant| grant.remaining);
        let hour = Duration::from_secs(3600);
        assert_eq!(life(AT - 3600, None).expect("fresh"), hour);
        // 4 s are within the resolution of both clocks
        assert_eq!(life(AT - 3600, Some(at(AT - 3604))).expect("fresh"), hour);
        assert_eq!(life(AT + 7200, Some(at(AT - 3600))).expect("fresh"), hour);
        let ahead = |now, date| parse("e", &body, at(now), date).map(|grant| grant.clock_ahead);
        assert_eq!(ahead(AT - 3600, Some(at(AT - 3604))).expect("fresh"), 0);
        assert_eq!(
            ahead(AT + 7200, Some(at(AT - 3600))).expect("fresh"),
            10_800
        );
        assert_eq!(ahead(AT - 9000, Some(at(AT - 3600))).expect("fresh"), -5400);
        assert!(matches!(life(AT, None), Err(Error::AlreadyExpired { .. })));
    }

    #[test]
    fn nobody_is_believed_to_grant_more_than_aws_does() {
        let body = body("9999-12-30T22:00:00Z");
        let grant = parse("e", &body, at(AT), Some(at(0))).expect("valid");
        assert_eq!(grant.remaining, LONGEST_LIFE);
    }

    #[test]
    fn an_expiration_is_told_in_its_line() {
        let body = body(" 2021-01-27 00:50:09+00:00\\n ");
        let error = parse("e", &body, at(AT), None).expect_err("expired");
        let told = "(2021-01-27 00:50:09+00:00)";
        assert!(error.to_string().contains(told), "{error}");
    }

    #[test]
    fn what_is_no_credentials_says_so_without_quoting() {
        let message = |text: &str| {
            let body = SecretString::from(text.to_owned());
            let error = parse("https://e/s3credentials", &body, at(AT), None);
            error.expect_err("no credentials").to_string()
        };
        assert!(message("<html>hunter2").contains("an HTML page"));
        assert!(message("").contains("an empty body"));
        assert!(message("{\"secretAccessKey\":\"hunter2\"}").contains("lacks accessKeyId"));
        assert!(message("{\"secretAccessKey\":hunter2}").contains("unreadable JSON"));
        for text in [
            "<html>hunter2",
            "{\"secretAccessKey\":\"hunter2\"}",
            "hunter2",
        ] {
            assert!(!message(text).contains("hunter2"));
        }
    }

    #[test]
    fn a_grant_does_not_show_its_secrets() {
        let text = body("2021-01-27 00:50:09Z");
        let grant = parse("e", &text, at(AT - 60), None).expect("valid");
        let shown = format!("{grant:?}");
        assert!(
            shown.contains("ASIAX") && shown.matches("REDACTED").count() == 2,
            "{shown}"
        );
    }
}
