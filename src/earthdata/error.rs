//! What can go wrong between a login and its credentials, in the user's words.

use std::sync::Arc;

use super::refusal::Refusal;
use crate::network;

/// Why `/s3credentials` gave no credentials. No variant holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No way to log in was found.
    #[error(
        "{endpoint} wants an Earthdata login, and none was found (looked at: {looked_at}). {}\n    \
         machine {host} login YOUR_NAME password YOUR_PASSWORD\ninto {netrc} (mode 0600)",
        match .wants_netrc {
            true => "Put",
            false => "Set EARTHDATA_TOKEN, or EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or name a file with \
                      --token-file, or put",
        },
    )]
    NoLogin {
        /// The `/s3credentials` URL.
        endpoint: String,
        /// The Earthdata Login host.
        host: String,
        /// The places that were looked at.
        looked_at: String,
        /// The netrc file.
        netrc: String,
        /// Whether it was asked for: no other place counts.
        wants_netrc: bool,
    },
    /// The netrc or the token file cannot be read; perhaps later.
    #[error("cannot read the login in {path}: {why}")]
    LoginUnreadable {
        /// The file, or the places that were looked at.
        path: String,
        /// What the system says.
        why: String,
    },
    /// The netrc, the token file or the token cannot be used.
    #[error("cannot use the login in {path}: {why}")]
    LoginFile {
        /// The file, or the variable.
        path: String,
        /// What is wrong with it; never its content.
        why: String,
    },
    /// Earthdata Login says that name and password do not fit.
    #[error(
        "Earthdata Login ({host}) refuses the password of user {user} from {source_of_login}. \
         It was sent once and is not sent again until it changes there, because repeated failures \
         lock the account. Check it by logging in at https://{host}/{hint}"
    )]
    WrongPassword {
        /// The Earthdata Login host.
        host: String,
        /// The user name that was sent.
        user: String,
        /// Where name and password came from.
        source_of_login: String,
        /// What else helps; may be empty.
        hint: String,
    },
    /// Earthdata Login refuses the user, whatever the password.
    #[error(
        "Earthdata Login ({host}) refuses user {user} from {source_of_login} for now \
         (HTTP 403{detail}). Accounts are locked after failed logins for about 10 minutes: the \
         password is not sent again for {} minutes. Check it by logging in at https://{host}/",
        super::refusal::LOCKED_FOR.as_secs() / 60
    )]
    Locked {
        /// The Earthdata Login host.
        host: String,
        /// The user name that was sent.
        user: String,
        /// Where name and password came from.
        source_of_login: String,
        /// What the server said, cut short; begins with `: ` unless empty.
        detail: String,
    },
    /// The bearer token is not accepted.
    #[error(
        "{endpoint} does not accept the token from {source_of_login}: it may be expired (they live \
         60 days), revoked, or of another system (production and UAT have tokens of their own). \
         Make a new one at https://{host}/ under Generate Token"
    )]
    TokenRefused {
        /// The `/s3credentials` URL.
        endpoint: String,
        /// The Earthdata Login host.
        host: String,
        /// Where the token came from.
        source_of_login: String,
    },
    /// A licence has to be accepted, or the application approved, in a browser.
    #[error(
        "the login is right, but user agreements (EULA) of {endpoint} are not accepted yet. \
         Open this page in a browser, accept, and try again: {resolution_url}"
    )]
    EulaNotAccepted {
        /// The `/s3credentials` URL.
        endpoint: String,
        /// The page on which to accept.
        resolution_url: String,
    },
    /// 401 or 403 for another reason than the above.
    #[error(
        "{endpoint} refuses this login (HTTP {status}{detail}): the user may have no right to this \
         archive's data, or the account may be locked for some minutes"
    )]
    Refused {
        /// The URL that answered.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What the server said, cut short; begins with `: ` unless empty.
        detail: String,
    },
    /// There is no such endpoint.
    #[error(
        "{endpoint} does not exist (HTTP {status}): check --credentials-endpoint; \
         it usually ends in /s3credentials"
    )]
    NoSuchEndpoint {
        /// The URL.
        endpoint: String,
        /// The HTTP status, 404 or 410.
        status: u16,
    },
    /// The server fails; it may answer later.
    #[error(
        "{endpoint} fails (HTTP {status}{detail}). This is the server's trouble: try again later, \
         and see https://status.earthdata.nasa.gov/"
    )]
    ServerFails {
        /// The URL.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What the server said, cut short; begins with `: ` unless empty.
        detail: String,
    },
    /// No connection, no answer, or a broken one.
    #[error("cannot reach {endpoint}: {why}. {}. Try: curl -sI {endpoint}",
        network::what_to_check(.why).unwrap_or("Check the network, DNS, proxy settings and the URL"))]
    Unreachable {
        /// The URL.
        endpoint: String,
        /// The cause as the HTTP client tells it.
        why: String,
    },
    /// An answer that should hold credentials and does not.
    #[error(
        "{endpoint} answered with {what} where credentials in JSON were due. \
         Is this the URL of an /s3credentials endpoint?"
    )]
    NotCredentials {
        /// The URL.
        endpoint: String,
        /// What came instead; never the content.
        what: String,
    },
    /// The credentials handed out are already expired by the server's own clock.
    #[error(
        "{endpoint} handed out credentials that are already expired ({expiration}): \
         check the clock of this machine; if it is right, this is the server's trouble"
    )]
    AlreadyExpired {
        /// The URL.
        endpoint: String,
        /// The expiration as the endpoint gave it.
        expiration: String,
    },
    /// A redirect that must not be followed.
    #[error("{endpoint} redirected the login to {target}, which is not followed: {why}")]
    BadRedirect {
        /// The `/s3credentials` URL.
        endpoint: String,
        /// Scheme and host of the target; its path and query may hold secrets.
        target: String,
        /// Why not.
        why: &'static str,
    },
    /// A URL or host that must not be used at all.
    #[error("{url} cannot be used: {why}. Check --credentials-endpoint and --earthdata-host")]
    BadUrl {
        /// As the user gave it.
        url: String,
        /// Why not.
        why: &'static str,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(Arc<str>),
}

impl Error {
    /// Whether trying again, with nothing changed by the user, can help.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::ServerFails { .. } | Self::Unreachable { .. } | Self::AlreadyExpired { .. }
        )
    }

    /// What Earthdata Login has against this user and password, if that is the error.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::WrongPassword { .. } => Some(Refusal::WrongPassword),
            Self::Locked { .. } => Some(Refusal::Locked),
            _ => None,
        }
    }
}
