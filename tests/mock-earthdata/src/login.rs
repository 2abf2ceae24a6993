//! Earthdata Login: passwords, codes for the login dance, user tokens.
//!
//! Sources: RAC = asfadmin/rain-api-core `urs_util.py` for the redirects, nasa/cumulus `packages/oauth-client` likewise,
//! nsidc/earthaccess issue 453 for the lock. Wrong passwords lock an account: [`LOCKED_AFTER`] of them, for good (a
//! test that gets there has found a bug).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::distribution::Family;
use crate::reply::{Reply, html, json, redirect};
use crate::settings::User;
use crate::state::State;
use crate::{clock, cmr, control};

/// So many wrong passwords lock an account. The real number is not published.
const LOCKED_AFTER: u32 = 5;

/// A login form has a name and a password; more is not read.
const MAX_FORM: usize = 16 * 1024;

/// The user tokens of Earthdata Login live so long.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 24 * 3600);

/// All users, and how often each was mistaken.
pub(crate) struct Accounts {
    accounts: Vec<(User, u32)>,
}

/// What Earthdata Login thinks of a name and a password.
enum Verdict {
    Good(User),
    Wrong,
    Locked,
}

impl Accounts {
    pub(crate) fn new(users: Vec<User>) -> Self {
        Self {
            accounts: users.into_iter().map(|user| (user, 0)).collect(),
        }
    }

    /// The user whom a bearer token belongs to.
    pub(crate) fn by_token(&self, token: &str) -> Option<User> {
        let mut users = self.accounts.iter().map(|(user, _)| user);
        users
            .find(|user| user.tokens.iter().any(|one| one == token))
            .cloned()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<User> {
        let mut users = self.accounts.iter().map(|(user, _)| user);
        users.find(|user| user.name == name).cloned()
    }

    fn add_token(&mut self, name: &str, token: String) {
        if let Some((user, _)) = self.accounts.iter_mut().find(|(user, _)| user.name == name) {
            user.tokens.push(token);
        }
    }

    fn judge(&mut self, name: &str, password: &str) -> Verdict {
        let Some((user, mistakes)) = self.accounts.iter_mut().find(|(user, _)| user.name == name)
        else {
            return Verdict::Wrong;
        };
        if *mistakes >= LOCKED_AFTER {
            Verdict::Locked
        } else if user.password == password {
            *mistakes = 0;
            Verdict::Good(user.clone())
        } else {
            *mistakes += 1;
            Verdict::Wrong
        }
    }
}

/// Answers a request to the login host.
pub(crate) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Reply {
    let reply = page(&state, request).await;
    state.dated(reply)
}

async fn page(state: &Arc<State>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    match (request.method().clone(), path.as_str()) {
        (Method::GET | Method::POST, "/oauth/authorize") => authorize(state, request).await,
        (Method::POST, "/api/users/find_or_create_token") if state.token_api => {
            token(state, request.headers())
        }
        (Method::GET, "/approve_app") => html(
            StatusCode::OK,
            "Approve application",
            "Read and accept the end user licence agreement to go on.",
        ),
        (Method::GET, "/search/collections.umm_json") => cmr::answer(state, &request),
        (_, path) if path.starts_with("/_mock/") => control::answer(state, request).await,
        _ => html(StatusCode::NOT_FOUND, "Not Found", "There is no such page."),
    }
}

/// `/oauth/authorize`: a code for whoever proves to be a user, by Basic or by the form of the login page.
async fn authorize(state: &State, request: Request<Incoming>) -> Reply {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let app_type_401 = query.get("app_type") == Some("401");
    let refused = |text: &str| {
        let body = json!({ "error": "invalid_request", "error_description": text });
        json(StatusCode::BAD_REQUEST, &body)
    };
    let Some(family) = query.get("client_id").and_then(Family::of_client) else {
        return refused("unknown client_id");
    };
    let Some(redirect_uri) = query.get("redirect_uri").map(str::to_owned) else {
        return refused("redirect_uri is missing");
    };
    if !redirect_uri.starts_with(&format!("{}/", family.url(state))) {
        return refused("redirect_uri is not one that the application registered");
    }
    if query.get("response_type") != Some("code") {
        return refused("response_type is not code");
    }
    let (parts, body) = request.into_parts();
    let pair = if parts.method == Method::POST {
        if !parts.headers.contains_key(header::ORIGIN) {
            return refused("a login form without an origin");
        }
        match Limited::new(body, MAX_FORM).collect().await {
            Ok(form) => {
                let form = String::from_utf8_lossy(&form.to_bytes()).into_owned();
                Query::parse(&form).get("credentials").and_then(decode_pair)
            }
            Err(_) => return refused("the form did not arrive"),
        }
    } else {
        basic(&parts.headers)
    };
    let Some((name, password)) = pair else {
        return if app_type_401 {
            unauthorized("Please log in.")
        } else {
            html(
                StatusCode::OK,
                "Earthdata Login",
                "<form method=\"post\"></form>",
            )
        };
    };
    let user = match log_in(state, &name, &password) {
        Ok(user) => user,
        Err(reply) => return *reply,
    };
    state.meter.count(|counters| &mut counters.logins);
    if family == Family::Cumulus && !user.eula_accepted {
        return redirect(StatusCode::FOUND, &eula_page(state, family));
    }
    let code = state.ledger.lock().code(&user.name, &redirect_uri);
    let mark = if redirect_uri.contains('?') { '&' } else { '?' };
    let answer = form_urlencoded::Serializer::new(String::new())
        .append_pair("code", &code)
        .append_pair("state", query.get("state").unwrap_or_default())
        .finish();
    redirect(StatusCode::FOUND, &format!("{redirect_uri}{mark}{answer}"))
}

/// `find_or_create_token`: the user's first token, made if there is none.
fn token(state: &State, headers: &HeaderMap) -> Reply {
    state.meter.count(|counters| &mut counters.token_requests);
    let Some((name, password)) = basic(headers) else {
        return unauthorized("Please log in.");
    };
    let user = match log_in(state, &name, &password) {
        Ok(user) => user,
        Err(reply) => return *reply,
    };
    let token = match user.tokens.into_iter().next() {
        Some(token) => token,
        None => {
            let token = state.ledger.lock().user_token(&user.name);
            state.accounts.lock().add_token(&user.name, token.clone());
            token
        }
    };
    let body = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expiration_date": clock::token_date(state.now() + TOKEN_LIFE),
    });
    json(StatusCode::OK, &body)
}

/// The page where `family`'s application asks for its EULA to be accepted.
pub(crate) fn eula_page(state: &State, family: Family) -> String {
    let host = state.url(state.addresses.login);
    format!("{host}/approve_app?client_id={}", family.client())
}

fn log_in(state: &State, name: &str, password: &str) -> Result<User, Box<Reply>> {
    let verdict = state.accounts.lock().judge(name, password);
    match verdict {
        Verdict::Good(user) => Ok(user),
        Verdict::Wrong => {
            state.meter.count(|counters| &mut counters.wrong_passwords);
            Err(unauthorized("Invalid username or password.").into())
        }
        Verdict::Locked => {
            state.meter.count(|counters| &mut counters.wrong_passwords);
            let body = json!({
                "error": "account_locked",
                "error_description": "Your account is locked after too many failed logins. Try again in 10 minutes.",
            });
            Err(json(StatusCode::FORBIDDEN, &body).into())
        }
    }
}

fn unauthorized(text: &str) -> Reply {
    let body = json!({ "error": "invalid_credentials", "error_description": text });
    let mut reply = json(StatusCode::UNAUTHORIZED, &body);
    let challenge =
        HeaderValue::from_static("Basic realm=\"Please enter your Earthdata Login credentials\"");
    reply
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    reply
}

/// Name and password of a Basic header.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, pair) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("basic")
        .then(|| decode_pair(pair))?
}

/// `base64(name:password)`; the password may have colons, the name not.
fn decode_pair(pair: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// A query or a form, decoded; of a name given twice the first counts.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        Self(
            form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        pairs
            .find(|(one, _)| one == name)
            .map(|(_, value)| value.as_str())
    }
}
