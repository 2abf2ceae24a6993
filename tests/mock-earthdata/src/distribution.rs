//! The distribution hosts: `/s3credentials` as the Thin Egress App and as Cumulus serve it.
//!
//! Sources: asfadmin/thin-egress-app `app.py`, asfadmin/rain-api-core `urs_util.py` and `edl.py`, nasa/cumulus
//! `packages/oauth-client` and the s3-credentials-endpoint; the differences are a table in `earthdata.md` section 1.
//! In both families a redirect means "not authenticated", never 401, and a password sent here is ignored (and counted
//! as a secret at the wrong door).

use std::future::pending;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::login::{self, Query};
use crate::reply::{Reply, html, json, redirect, with_type};
use crate::settings::{Answer, User};
use crate::state::State;

/// The two kinds of distribution host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Thin Egress App.
    Tea,
    /// Cumulus' s3-credentials-endpoint or Distribution API.
    Cumulus,
}

impl Family {
    /// Its `client_id` at Earthdata Login.
    pub(crate) fn client(self) -> &'static str {
        match self {
            Self::Tea => "mock-tea-client",
            Self::Cumulus => "mock-cumulus-client",
        }
    }

    pub(crate) fn of_client(client: &str) -> Option<Self> {
        [Self::Tea, Self::Cumulus]
            .into_iter()
            .find(|family| family.client() == client)
    }

    /// `http://host:port`, or with https.
    pub(crate) fn url(self, state: &State) -> String {
        let address = match self {
            Self::Tea => state.addresses.tea,
            Self::Cumulus => state.addresses.cumulus,
        };
        state.url(address)
    }

    fn callback(self) -> &'static str {
        match self {
            Self::Tea => "/login",
            Self::Cumulus => "/redirect",
        }
    }

    fn cookie(self) -> &'static str {
        match self {
            Self::Tea => "asf-urs",
            Self::Cumulus => "accessToken",
        }
    }

    /// The status of the redirect to Earthdata Login.
    fn to_login(self) -> StatusCode {
        match self {
            Self::Tea => StatusCode::FOUND,
            Self::Cumulus => StatusCode::TEMPORARY_REDIRECT,
        }
    }

    /// The status of the redirect back to where the dance began.
    fn back(self) -> StatusCode {
        match self {
            Self::Tea => StatusCode::MOVED_PERMANENTLY,
            Self::Cumulus => StatusCode::TEMPORARY_REDIRECT,
        }
    }

    /// How the credentials are labelled: PO.DAAC, a Cumulus, says HTML for JSON.
    fn content_type(self) -> &'static str {
        match self {
            Self::Tea => "application/json",
            Self::Cumulus => "text/html; charset=utf-8",
        }
    }
}

/// Answers a request to a distribution host.
pub(crate) async fn answer(state: Arc<State>, family: Family, request: Request<Incoming>) -> Reply {
    let reply = page(&state, family, request).await;
    state.dated(reply)
}

async fn page(state: &State, family: Family, request: Request<Incoming>) -> Reply {
    let headers = request.headers();
    if scheme(headers).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        state
            .meter
            .count(|counters| &mut counters.stray_authorizations);
    }
    if request.method() != Method::GET {
        return html(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", "");
    }
    let path = request.uri().path();
    match path {
        "/s3credentials" => credentials(state, family, headers, true).await,
        "/s3credentials-open" => credentials(state, family, headers, false).await,
        "/s3credentialsREADME" => {
            html(StatusCode::OK, "Temporary S3 credentials", "Documentation.")
        }
        _ if path == family.callback() => {
            callback(state, family, request.uri().query().unwrap_or_default())
        }
        _ => html(StatusCode::NOT_FOUND, "Not Found", "There is no such page."),
    }
}

/// `/s3credentials`, for all or for users only.
async fn credentials(
    state: &State,
    family: Family,
    headers: &HeaderMap,
    users_only: bool,
) -> Reply {
    state
        .meter
        .count(|counters| &mut counters.credentials_requests);
    if !headers.contains_key("app-name") {
        state.meter.count(|counters| &mut counters.unnamed_programs);
    }
    let answer = state.controls.lock().answer.clone();
    match &answer {
        Answer::Status(status, body) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return with_type(status, "text/html; charset=utf-8", body.clone());
        }
        Answer::Redirect(status, location) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::FOUND);
            return redirect(status, location);
        }
        Answer::Hang => pending::<()>().await,
        _ => {}
    }
    let mut cookie = None;
    if users_only {
        let user = match authenticate(state, family, headers) {
            Ok(user) => user,
            Err(reply) => return *reply,
        };
        if !user.eula_accepted {
            return eula_refused(state, family);
        }
        // A good token makes TEA set its cookie too.
        if family == Family::Tea && scheme(headers).is_some() {
            cookie = Some(set_cookie(state, family, &user.name));
        }
    }
    if state.controls.lock().fails() {
        let body = json!({ "message": "Internal server error" });
        return json(StatusCode::INTERNAL_SERVER_ERROR, &body);
    }
    let mut reply = authorized(state, family, answer).await;
    if let Some(cookie) = cookie {
        reply.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    reply
}

/// What an authenticated user gets.
async fn authorized(state: &State, family: Family, answer: Answer) -> Reply {
    match answer {
        Answer::Html => return html(StatusCode::OK, "Earthdata Login", "Please log in."),
        Answer::BadJson => {
            let text = r#"{"accessKeyId": "ASIAMOCKMOCKMOCKMOCK", "secretAcc"#.to_owned();
            return with_type(StatusCode::OK, family.content_type(), text);
        }
        Answer::EulaRefused => return eula_refused(state, family),
        Answer::NoDataAccess => {
            return html(
                StatusCode::FORBIDDEN,
                "Could not access data",
                "You do not have permission to access this data.",
            );
        }
        Answer::Slow(delay) => tokio::time::sleep(delay).await,
        Answer::Normal
        | Answer::MissingField
        | Answer::Status(..)
        | Answer::Redirect(..)
        | Answer::Hang => {}
    }
    let lifetime = state.controls.lock().lifetime;
    let now = state.now();
    let credentials = state.ledger.lock().issue(lifetime, now);
    let mut body = json!(credentials);
    if answer == Answer::MissingField {
        if let Some(fields) = body.as_object_mut() {
            fields.remove("sessionToken");
        }
    } else {
        state
            .meter
            .count(|counters| &mut counters.credentials_issued);
    }
    with_type(StatusCode::OK, family.content_type(), body.to_string())
}

/// Who asks, by token or by cookie; or where to go first.
fn authenticate(state: &State, family: Family, headers: &HeaderMap) -> Result<User, Box<Reply>> {
    if scheme(headers).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer")) {
        if !state.bearer {
            return Err(to_login(state, family, headers).into());
        }
        let token = bearer(headers);
        let user = token.and_then(|token| state.accounts.lock().by_token(token));
        return match (user, family, token) {
            (Some(user), _, _) => Ok(user),
            (None, Family::Tea, None) => {
                let body = json!({ "status_code": 400, "error_description": "Malformed Authorization header" });
                Err(json(StatusCode::BAD_REQUEST, &body).into())
            }
            (None, Family::Tea, Some(token)) if names_a_user(token) => {
                let body = json!({ "error": "invalid_token", "error_description": "The token is invalid" });
                Err(json(StatusCode::UNAUTHORIZED, &body).into())
            }
            (None, _, _) => Err(to_login(state, family, headers).into()),
        };
    }
    let name = cookies(headers, family.cookie()).find_map(|cookie| {
        let ledger = state.ledger.lock();
        ledger
            .cookie_user(family.client(), cookie)
            .map(str::to_owned)
    });
    name.and_then(|name| state.accounts.lock().by_name(&name))
        .ok_or_else(|| to_login(state, family, headers).into())
}

fn to_login(state: &State, family: Family, headers: &HeaderMap) -> Reply {
    let browser = headers
        .get(header::USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla"));
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("client_id", family.client())
        .append_pair("response_type", "code")
        .append_pair("redirect_uri", &redirect_uri(state, family))
        .append_pair("state", "/s3credentials");
    if family == Family::Tea && !browser {
        query.append_pair("app_type", "401");
    }
    let login = state.url(state.addresses.login);
    redirect(
        family.to_login(),
        &format!("{login}/oauth/authorize?{}", query.finish()),
    )
}

/// The end of the dance: a code for a cookie, and back to where it began.
fn callback(state: &State, family: Family, query: &str) -> Reply {
    let query = Query::parse(query);
    let user = query.get("code").and_then(|code| {
        let uri = redirect_uri(state, family);
        state.ledger.lock().redeem(code, &uri)
    });
    let (Some(user), Some(back)) = (user, query.get("state")) else {
        return html(
            StatusCode::BAD_REQUEST,
            "Login failed",
            "The code is not valid.",
        );
    };
    let back = match back.starts_with('/') {
        true => format!("{}{back}", family.url(state)),
        false => format!("{}/", family.url(state)),
    };
    let mut reply = redirect(family.back(), &back);
    let cookie = set_cookie(state, family, &user);
    reply.headers_mut().insert(header::SET_COOKIE, cookie);
    reply
}

/// As the hosts set it, but for `Secure` on plain http, where no client would send it back.
fn set_cookie(state: &State, family: Family, user: &str) -> HeaderValue {
    let value = state.ledger.lock().cookie(family.client(), user);
    let rest = match family {
        Family::Tea => "Path=/",
        Family::Cumulus => "Path=/; HttpOnly; SameSite=Strict",
    };
    let secure = if state.tls { "; Secure" } else { "" };
    HeaderValue::try_from(format!("{}={value}; {rest}{secure}", family.cookie()))
        .expect("a cookie of ours is visible ASCII")
}

fn eula_refused(state: &State, family: Family) -> Reply {
    let page = login::eula_page(state, family);
    match family {
        Family::Cumulus => redirect(StatusCode::FOUND, &page),
        Family::Tea => {
            let body = json!({
                "status_code": 403,
                "error_description": "EULA Acceptance Failure",
                "resolution_url": page,
            });
            json(StatusCode::FORBIDDEN, &body)
        }
    }
}

fn redirect_uri(state: &State, family: Family) -> String {
    format!("{}{}", family.url(state), family.callback())
}

/// The scheme of the `Authorization` header.
fn scheme(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.split(' ').next()
}

/// The token of a header that matches Cumulus' `^Bearer ([-a-zA-Z0-9._~+/]+)$`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    (!token.is_empty() && token.bytes().all(fits)).then_some(token)
}

/// Does the token decode as a JWT with a `uid`? TEA looks, without verifying, and asks Earthdata Login about that user;
/// a token that does not decode counts as none.
fn names_a_user(token: &str) -> bool {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok())
        .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
    claims.is_some_and(|claims| claims.get("uid").is_some())
}

/// The values of the cookies of this name.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}
