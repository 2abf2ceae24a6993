//! The login by redirects, for endpoints that do not take tokens, and for those that want no login.
//!
//! A GET without authentication is redirected to Earthdata Login (TEA with 302, Cumulus with 307),
//! there a GET with Basic is redirected back with a code, and the page that takes it leads to the
//! endpoint again, which now knows a cookie. The cookie spares later refreshes the login.

use reqwest::Url;

use super::answer::Grant;
use super::endpoint::{Endpoint, agreement_page};
use super::error::Error;
use super::login::Login;
use super::refusal::Refusal;
use super::web::{Answer, Authority, Web, check_url, shown};

/// A dance takes four; a server that wants more than this walks in circles.
const MAX_REDIRECTS: usize = 10;

impl Endpoint {
    /// Gets credentials by cookie, logging in with the password of `login` where the redirects lead
    /// to the login host.
    pub(super) async fn dance(&self, web: &Web, login: Option<&Login>) -> Result<Grant, Error> {
        let mut url = self.url.clone();
        let mut sent = false;
        for _ in 0..=MAX_REDIRECTS {
            let at_login = Authority::of(&url) == self.login_host;
            // A second visit to the login means that the password did not help: it is not sent again.
            let shown_here = login.filter(|_| at_login && !sent);
            let answer = web.get(&url, shown_here.map(|login| &login.proof)).await?;
            sent |= shown_here.is_some();
            match (answer.status, shown_here) {
                (300..=399, _) => url = self.redirected(&answer, login, sent)?,
                (401, Some(login)) => return Err(self.refused(login, Refusal::WrongPassword, "")),
                (403, Some(login)) => {
                    return Err(self.locked(login, answer.detail()));
                }
                (200, _) if at_login => {
                    return Err(Error::EulaNotAccepted {
                        endpoint: shown(&self.url),
                        resolution_url: agreement_page(&url),
                    });
                }
                _ => return self.grant(&url, &answer),
            }
        }
        Err(self.bad_redirect(&url, "the servers redirect in a circle"))
    }

    /// Where a redirect leads, if it may be followed.
    pub(super) fn redirected(
        &self,
        answer: &Answer,
        login: Option<&Login>,
        sent: bool,
    ) -> Result<Url, Error> {
        let Some(url) = &answer.location else {
            return Err(self.bad_redirect(&self.url, "it does not say where to"));
        };
        let downgraded = self.url.scheme() == "https" && url.scheme() != "https";
        if downgraded || check_url(url.as_str()).is_err() {
            return Err(self.bad_redirect(url, "it is not https"));
        }
        if let Some(eula) = self.agreement(url) {
            return Err(eula);
        }
        let target = Authority::of(url);
        if target == self.login_host {
            if login.is_none() {
                return Err(Error::NoLogin {
                    endpoint: shown(&self.url),
                    host: self.login_host.as_str().to_owned(),
                    looked_at: self.login.settings.places(),
                    netrc: self.login.settings.netrc_to_write(),
                    wants_netrc: self.login.settings.wants_netrc(),
                });
            }
            if sent && url.path() == "/oauth/authorize" {
                return Err(self.bad_redirect(url, "the login was right, and is asked for again"));
            }
            return Ok(url.clone());
        }
        if target == Authority::of(&self.url) {
            return Ok(url.clone());
        }
        Err(self.bad_redirect(
            url,
            "neither the endpoint's host nor the Earthdata Login host (--earthdata-host)",
        ))
    }

    fn bad_redirect(&self, target: &Url, why: &'static str) -> Error {
        let authority = Authority::of(target);
        let target = format!("{}://{}", target.scheme(), authority.as_str());
        Error::BadRedirect {
            endpoint: shown(&self.url),
            // A host's name has 253 characters at most, but this one is the server's invention.
            target: target.chars().take(300).collect(),
            why,
        }
    }
}
