//! What S3 can answer but data, and which of it is worth another try.

use aws_smithy_runtime_api::client::result::ConnectorError;
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::credentials;
use crate::network::{causes, is_region};
use crate::s3::list_xml::resolve;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such key.
    #[error("no such object")]
    NotFound,
    /// No such bucket.
    #[error("no such bucket")]
    NoSuchBucket,
    /// Refused, with credentials that are fresh.
    #[error("access denied by S3{}", said(.0))]
    AccessDenied(String),
    /// The object is not what it was when its version was noted (`If-Match` failed).
    #[error("the object was replaced while it was read")]
    Changed,
    /// In an archive class and not restored.
    #[error("the object is archived (GLACIER or DEEP_ARCHIVE) and must be restored first")]
    Archived,
    /// The bucket is in another region than requests are signed for.
    #[error("the bucket is in another region: mount it with --region {0}")]
    WrongRegion(String),
    /// No valid credentials in time.
    #[error(transparent)]
    NoCredentials(#[from] credentials::Error),
    /// S3 says that even renewed credentials are expired or unknown.
    #[error("S3 does not accept the credentials that /s3credentials grants{}", said(.0))]
    CredentialsRejected(String),
    /// Throttled, failing or out of reach for as long as is worth trying.
    #[error("S3 cannot be read: {0}")]
    Unavailable(String),
    /// The bytes that come are not those of the object's checksum: where it is, what the checksum is called, and
    /// how often in a row.
    #[error(
        "{0} came with wrong bytes {2} times in a row, by the {1} checksum that S3 has of it: something on \
         the way changes them, or the server's checksum is wrong. Try it without a proxy or from another \
         machine, and tell who runs the server; --no-checksums reads the bytes as they come"
    )]
    WrongBytes(String, &'static str, u32),
    /// The operation's deadline is over.
    #[error("no answer from S3 within the time for one operation (--operation-timeout)")]
    TimedOut,
    /// The same, and why the attempt before the last one failed.
    #[error("no answer from S3 in time: {0}")]
    Late(String),
    /// An answer that cannot be used, and that another try will not mend.
    #[error("S3 {did}: {0}", did = refuses_or_not(.0))]
    Protocol(String),
}

impl Error {
    /// Whether S3 says that the credentials do not allow what was asked for. Not so where a signature is wrong, or a
    /// proxy refuses, nor ever of a HEAD, of which a 403 is all that is said.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::AccessDenied(said) if said.starts_with("AccessDenied"))
    }

    /// Whether a server failed and said so, and was not out of reach.
    pub fn is_failure_of_server(&self) -> bool {
        match self {
            Self::Unavailable(why) | Self::Late(why) => is_said_by_server(why),
            _ => false,
        }
    }
}

fn refuses_or_not(text: &str) -> &'static str {
    match is_said_by_server(text) {
        true => "refuses",
        false => "answered with nonsense",
    }
}

/// Whether `text` is what [`Failure::from_answer`] has from a server: its codes begin with a capital, and what this
/// program says of an answer does not.
fn is_said_by_server(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

/// One attempt that failed, and what to do about it.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again cannot help.
    Final(Error),
    /// It may pass: with backoff.
    Transient(String),
    /// It did not come in time: with more patience, over another connection.
    TooSlow(String),
    /// The credentials are not accepted any more: with new ones.
    Expired(String),
}

impl Failure {
    /// Reads an answer that is no success; `region` is the bucket's, if S3 says that it is another one.
    pub(super) fn from_answer(
        status: u16,
        code: &str,
        message: &str,
        region: Option<&str>,
    ) -> Self {
        let message = message.trim_end_matches('.');
        let text = match (code, message) {
            ("", _) => format!("HTTP {status}"),
            (code, "") => plain(code),
            (code, message) => plain(&format!("{code}: {message}")),
        };
        // A server may have named something for the user to paste into a shell.
        let region = region.filter(|region| is_region(region));
        match (status, code, region) {
            (
                _,
                "ExpiredToken" | "InvalidAccessKeyId" | "InvalidToken" | "TokenRefreshRequired",
                _,
            ) => Self::Expired(text),
            (_, "RequestTimeTooSkewed" | "RequestTimeout" | "SlowDown", _) => Self::Transient(text),
            (301 | 307 | 400, _, Some(region)) => {
                Self::Final(Error::WrongRegion(region.to_owned()))
            }
            (_, "NoSuchBucket" | "InvalidBucketName", _) => Self::Final(Error::NoSuchBucket),
            (404, _, _) => Self::Final(Error::NotFound),
            (_, "InvalidObjectState", _) => Self::Final(Error::Archived),
            (401 | 403, _, _) => Self::Final(Error::AccessDenied(text)),
            (412, _, _) => Self::Final(Error::Changed),
            (408 | 429 | 500.., _, _) => Self::Transient(text),
            _ => Self::Final(Error::Protocol(text)),
        }
    }

    pub(super) fn changed() -> Self {
        Self::Final(Error::Changed)
    }

    pub(super) fn protocol(text: String) -> Self {
        Self::Final(Error::Protocol(text))
    }
}

/// No answer at all: no address for `host`, no connection, or one that broke.
pub(super) fn connection_failed(error: &ConnectorError, host: &str) -> Failure {
    let why = causes(error);
    Failure::Transient(plain(&format!("the connection to {host} failed: {why}")))
}

fn short(text: String) -> String {
    text.chars().take(300).collect()
}

/// What a server said, as it may stand in a message: short, and nothing in it that a terminal obeys.
pub(super) fn plain(text: &str) -> String {
    let text = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    short(text.collect())
}

/// `Code` and `Message` of S3's error document, empty where it has none.
pub(super) fn code_and_message(xml: &str) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    let mut reader = Reader::from_str(xml);
    let mut text = String::new();
    let mut depth = 0;
    // What could be read before the document ends, or ceases to be one, is what S3 said.
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(_) => {
                depth += 1;
                text.clear();
            }
            Event::Text(more) => text.push_str(&more.decode().unwrap_or_default()),
            Event::GeneralRef(reference) => text.push_str(&resolve(&reference).unwrap_or_default()),
            Event::End(end) => {
                match (depth, end.local_name().as_ref()) {
                    (2, b"Code") => code = std::mem::take(&mut text),
                    (2, b"Message") => message = std::mem::take(&mut text),
                    _ => {}
                }
                depth -= 1;
            }
            Event::Eof => break,
            _ => {}
        }
    }
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(code: &str, message: &str, region: Option<&str>) -> String {
        match Failure::from_answer(400, code, message, region) {
            Failure::Final(error) => error.to_string(),
            Failure::Transient(text) | Failure::TooSlow(text) | Failure::Expired(text) => text,
        }
    }

    #[test]
    fn what_a_server_says_moves_no_cursor_and_names_no_region_that_is_none() {
        let said = message("Odd", "a\x1b[2J\r\nWARN b\u{9b}2J", None);
        assert!(
            !said.contains(char::is_control) && said.contains("WARN b"),
            "{said:?}"
        );
        assert!(message("Odd", &"x".repeat(9999), None).len() < 400);
        assert!(message("", "", Some("eu-central-1")).ends_with("--region eu-central-1"));
        // S3 names it in errors of other kinds, too.
        let slow = Failure::from_answer(400, "RequestTimeout", "", Some("eu-central-1"));
        assert!(matches!(slow, Failure::Transient(_)));
        for region in ["", "x; rm -rf ~", "\x1b[2J", "US"] {
            let said = message("", "", Some(region));
            assert!(said.ends_with("HTTP 400"), "{said:?}");
        }
    }

    #[test]
    fn only_what_s3_denies_is_a_denial() {
        let is_denial = |code: &str| match Failure::from_answer(403, code, "No.", None) {
            Failure::Final(error @ Error::AccessDenied(_)) => error.is_denial(),
            other => panic!("{code}: {other:?}"),
        };
        assert!(is_denial("AccessDenied"));
        for code in ["", "SignatureDoesNotMatch", "NotSignedUp"] {
            assert!(!is_denial(code), "{code}");
        }
    }

    #[test]
    fn what_a_server_says_is_told_from_what_is_said_of_it() {
        assert_eq!(
            message("AuthorizationHeaderMalformed", "No.", None),
            "S3 refuses: AuthorizationHeaderMalformed: No"
        );
        let nonsense = Error::Protocol("a list that does not go on".to_owned());
        assert!(
            nonsense
                .to_string()
                .starts_with("S3 answered with nonsense: a list")
        );
        for (said, by_server) in [
            (message("SlowDown", "Reduce your request rate.", None), true),
            ("HTTP 503".to_owned(), true),
            ("no answer from host within 4 s".to_owned(), false),
            ("the connection to host failed: refused".to_owned(), false),
        ] {
            assert!(!said.ends_with('.'), "{said}");
            assert_eq!(
                Error::Late(said.clone()).is_failure_of_server(),
                by_server,
                "{said}"
            );
        }
    }

    #[test]
    fn errors_are_read_and_what_is_none_is_no_error() {
        let xml = "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>a &amp; b</Message>\
                   <RequestId>1</RequestId></Error>";
        assert_eq!(
            code_and_message(xml),
            ("SlowDown".to_owned(), "a & b".to_owned())
        );
        for nonsense in ["", "<html>", "<Error><Code>", "busy"] {
            assert_eq!(code_and_message(nonsense).0, "", "{nonsense}");
        }
    }
}
