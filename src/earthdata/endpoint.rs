//! One `/s3credentials` endpoint and the ways to authenticate at it.
//!
//! With a token: one GET with `Authorization: Bearer`; a redirect then means "not accepted". With a
//! password: Earthdata Login gives a token for it, once, which is then used in the same way; where
//! the endpoint takes no tokens, the [dance](super::dance) of redirects gets a cookie instead.
//!
//! The password goes to the login host and nowhere else, the token to the endpoint and nowhere else;
//! redirects are followed by hand, without either.

use std::time::SystemTime;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::answer::{self, Grant};
use super::error::Error;
use super::login::{Finder, Login, LoginSettings, Proof};
use super::refusal::{Refusal, Refused};
use super::web::{Answer, Authority, Web, check_url, shown};
use crate::network::{Network, is_loopback};
use crate::sync::{Mutex, lock};

/// What an endpoint is and how to log in to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL of the endpoint, `https://HOST/s3credentials`; http on loopback.
    pub endpoint: String,
    /// The Earthdata Login host, `HOST` or `HOST:PORT`.
    pub login_host: String,
    /// Where to look for the user's login.
    pub login: LoginSettings,
}

/// An `/s3credentials` endpoint.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) url: Url,
    pub(super) login_host: Authority,
    pub(super) login: Finder,
    network: Network,
    session: Mutex<Session>,
    refused: Mutex<Option<Refused>>,
}

/// What the servers know of one login: cookies and tokens of another must never be sent for it.
#[derive(Clone, Debug)]
struct Session {
    login: Option<Login>,
    /// With the cookies.
    web: Web,
    way: Way,
}

/// How a password led to credentials the last time.
#[derive(Clone, Debug)]
enum Way {
    Unknown,
    /// By this token, which the password was exchanged for.
    Token(SecretString),
    /// By redirects: the endpoint does not take tokens.
    Dance,
}

impl Endpoint {
    /// Checks the URLs; sends nothing yet.
    ///
    /// # Errors
    /// [`Error::BadUrl`] where the endpoint is neither https nor on loopback, or a host is no host.
    pub fn new(settings: Settings, network: &Network) -> Result<Self, Error> {
        Ok(Self {
            url: check_url(&settings.endpoint)?,
            login_host: Authority::parse(&settings.login_host)?,
            login: Finder::new(settings.login),
            network: network.clone(),
            session: Mutex::new(Session {
                login: None,
                web: Web::new(network)?,
                way: Way::Unknown,
            }),
            refused: Mutex::new(None),
        })
    }

    /// The URL, for messages.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The user's login as it is now, or was when it could be read the last time; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::LoginUnreadable`] and [`Error::LoginFile`].
    pub async fn find_login(&self) -> Result<Option<Login>, Error> {
        self.login.find(&self.login_host).await
    }

    /// Gets new credentials with a login that was found, logging in where the endpoint wants it.
    ///
    /// # Errors
    /// Every variant of [`Error`]; [`Error::is_transient`] tells which may pass by themselves.
    pub async fn fetch_as(&self, login: Option<&Login>) -> Result<Grant, Error> {
        let session = self.session(login)?;
        let Some(login) = login else {
            return self.dance(&session.web, None).await;
        };
        let (user, password) = match &login.proof {
            Proof::Token(token) => return self.with_token(&session.web, token, login).await,
            Proof::Password { user, password } => (user, password),
        };
        let refused = lock(&self.refused).as_ref().and_then(|r| r.error(login));
        if let Some(error) = refused {
            return Err(error);
        }
        let result = self.with_password(session, login, user, password).await;
        if let Err(error) = &result
            && let Some(refused) = Refused::of(login, error)
        {
            *lock(&self.refused) = Some(refused);
        }
        result
    }

    /// Tells this endpoint and login from all others. It holds the login itself.
    pub fn identity(&self, login: Option<&Login>) -> SecretString {
        let login = self.login_identity(login);
        format!("{}\n{}", self.url, login.expose_secret()).into()
    }

    /// Tells this login, and the host that it is for, from all others. It holds the login itself.
    pub fn login_identity(&self, login: Option<&Login>) -> SecretString {
        let (user, secret) = match login.map(|login| &login.proof) {
            None => ("", ""),
            Some(Proof::Token(token)) => ("", token.expose_secret()),
            Some(Proof::Password { user, password }) => (user.as_str(), password.expose_secret()),
        };
        // Only the last of these may hold a line's end.
        let all = [self.login_host.as_str(), user, secret];
        all.join("\n").into()
    }

    /// Sends a login that was refused once more.
    pub fn forget_refusal(&self) {
        *lock(&self.refused) = None;
    }

    /// The error that [`Endpoint::fetch_as`] gave `login` when it was refused, perhaps in another
    /// process; `hint` says what else helps.
    pub fn refused(&self, login: &Login, refusal: Refusal, hint: &str) -> Error {
        match refusal {
            Refusal::WrongPassword => Error::WrongPassword {
                host: self.login_host.as_str().to_owned(),
                user: login.user().to_owned(),
                source_of_login: login.source.clone(),
                hint: match login.has_backslash {
                    true => format!("{hint}{BACKSLASH}"),
                    false => hint.to_owned(),
                },
            },
            Refusal::Locked => self.locked(login, String::new()),
        }
    }

    /// What there is for `login` from earlier fetches; nothing, if those were with another one.
    fn session(&self, login: Option<&Login>) -> Result<Session, Error> {
        let mut session = lock(&self.session);
        let same = match (&session.login, login) {
            (Some(held), Some(login)) => held.proof == login.proof,
            (None, None) => true,
            _ => false,
        };
        if !same {
            *session = Session {
                login: login.cloned(),
                web: Web::new(&self.network)?,
                way: Way::Unknown,
            };
        }
        Ok(session.clone())
    }

    fn remember(&self, way: Way) {
        lock(&self.session).way = way;
    }

    async fn with_token(
        &self,
        web: &Web,
        token: &SecretString,
        login: &Login,
    ) -> Result<Grant, Error> {
        let answer = web
            .get(&self.url, Some(&Proof::Token(token.clone())))
            .await?;
        if let Some(eula) = answer.location.as_ref().and_then(|url| self.agreement(url)) {
            return Err(eula);
        }
        match answer.status {
            // 400 is TEA's answer to a header that is garbled.
            300..=401 => Err(self.token_refused(login)),
            403 if is_about_token(answer.body.expose_secret()) => Err(self.token_refused(login)),
            _ => self.grant(&self.url, &answer),
        }
    }

    fn token_refused(&self, login: &Login) -> Error {
        Error::TokenRefused {
            endpoint: shown(&self.url),
            host: self.login_host.as_str().to_owned(),
            source_of_login: login.source.clone(),
        }
    }

    async fn with_password(
        &self,
        session: Session,
        login: &Login,
        user: &str,
        password: &SecretString,
    ) -> Result<Grant, Error> {
        let web = &session.web;
        let refused =
            |result: &Result<Grant, Error>| matches!(result, Err(Error::TokenRefused { .. }));
        match session.way {
            Way::Dance => return self.dance(web, Some(login)).await,
            Way::Token(token) => {
                let result = self.with_token(web, &token, login).await;
                // Tokens live 60 days, a mount may live longer.
                if !refused(&result) {
                    return result;
                }
            }
            Way::Unknown => {}
        }
        if let Some(token) = self.token_for(web, login, user, password).await? {
            let result = self.with_token(web, &token, login).await;
            if !refused(&result) {
                self.remember(Way::Token(token));
                return result;
            }
        }
        let grant = self.dance(web, Some(login)).await?;
        self.remember(Way::Dance);
        Ok(grant)
    }

    /// Exchanges the password for a token at Earthdata Login; `None` where it does not give one.
    async fn token_for(
        &self,
        web: &Web,
        login: &Login,
        user: &str,
        password: &SecretString,
    ) -> Result<Option<SecretString>, Error> {
        let url = self.login_url("/api/users/find_or_create_token")?;
        let answer = web.post(&url, user, password).await?;
        match answer.status {
            401 => return Err(self.refused(login, Refusal::WrongPassword, "")),
            403 => return Err(self.locked(login, answer.detail())),
            200 => {}
            status => {
                tracing::info!(status, "Earthdata Login gives no token for the password");
                return Ok(None);
            }
        }
        Ok(user_token(answer.body.expose_secret()))
    }

    /// A page of the login host. It speaks https, unless all of this is on loopback.
    fn login_url(&self, path: &str) -> Result<Url, Error> {
        let host = self.login_host.as_str();
        let plain = check_url(&format!("http://{host}{path}"));
        match plain {
            Ok(url) if self.url.scheme() == "http" && is_loopback(&url) => Ok(url),
            _ => check_url(&format!("https://{host}{path}")),
        }
    }

    pub(super) fn locked(&self, login: &Login, detail: String) -> Error {
        Error::Locked {
            host: self.login_host.as_str().to_owned(),
            user: login.user().to_owned(),
            source_of_login: login.source.clone(),
            detail,
        }
    }

    /// Cumulus redirects whoever has not accepted the EULA to Earthdata Login's page for that, by
    /// password and by token alike.
    pub(super) fn agreement(&self, url: &Url) -> Option<Error> {
        let is_page = Authority::of(url) == self.login_host && url.path() == "/approve_app";
        is_page.then(|| Error::EulaNotAccepted {
            endpoint: shown(&self.url),
            resolution_url: agreement_page(url),
        })
    }

    /// Reads the final answer, which came from `url`.
    pub(super) fn grant(&self, url: &Url, answer: &Answer) -> Result<Grant, Error> {
        let endpoint = shown(url);
        let body = answer.body.expose_secret();
        match answer.status {
            200 => answer::parse(&endpoint, &answer.body, SystemTime::now(), answer.date),
            404 | 410 => Err(Error::NoSuchEndpoint {
                endpoint,
                status: answer.status,
            }),
            401 | 403 => match resolution_url(body) {
                Some(resolution_url) => Err(Error::EulaNotAccepted {
                    endpoint,
                    resolution_url,
                }),
                None => Err(Error::Refused {
                    endpoint,
                    status: answer.status,
                    detail: answer.detail(),
                }),
            },
            status => Err(Error::ServerFails {
                endpoint,
                status,
                detail: answer.detail(),
            }),
        }
    }
}

/// curl knows this inside of quotes only.
const BACKSLASH: &str = ". A backslash in a netrc file stands for the character behind it: if the password has one, write \
                         two there";

/// The token in an answer of `/api/users/find_or_create_token`.
pub(super) fn user_token(body: &str) -> Option<SecretString> {
    #[derive(serde::Deserialize)]
    struct UserToken {
        access_token: SecretString,
    }
    let token: UserToken = serde_json::from_str(body).ok()?;
    Some(token.access_token).filter(|token| answer::is_printable(token.expose_secret()))
}

/// Pages that a user is sent to have shorter URLs.
const LONGEST_PAGE: usize = 1000;

/// The URL of the page on which to accept; of its query only what says which agreement it is.
pub(super) fn agreement_page(url: &Url) -> String {
    let page = shown(url);
    let client = url.query_pairs().find(|(name, _)| name == "client_id");
    let page = match client {
        Some((_, client)) => Url::parse_with_params(&page, [("client_id", client)])
            .map_or(page, |url| url.to_string()),
        None => page,
    };
    page.chars().take(LONGEST_PAGE).collect()
}

/// TEA passes on what Earthdata Login says of a token: one that has run out, or was revoked, is a 403, too. So is a
/// missing EULA, by the same name, but with the page to accept it on.
fn is_about_token(body: &str) -> bool {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let error = body.get("error").and_then(serde_json::Value::as_str);
    matches!(error, Some("invalid_token" | "token_expired")) && body.get("resolution_url").is_none()
}

/// TEA's 403 for a missing EULA is JSON that names the page (rain-api-core edl.py).
fn resolution_url(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let url = body.get("resolution_url")?.as_str()?;
    // Parsed and written anew, it holds nothing that a terminal obeys.
    let url = check_url(url).ok()?.to_string();
    (url.len() <= LONGEST_PAGE).then_some(url)
}
