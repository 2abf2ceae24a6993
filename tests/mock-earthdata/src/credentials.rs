//! The ledger: every secret that the world handed out, to whom, and until when it is good.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::clock;

/// The answer of `/s3credentials`, field for field.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: String,
    pub(crate) expiration: String,
}

/// Why S3 does not take a request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such access key, or one of temporary credentials without its session token.
    UnknownKey,
    /// The session token belongs to another access key, or to none.
    WrongToken,
    /// Both were good once, this long ago.
    Expired(Duration),
}

struct Session {
    secret_key: String,
    token: String,
    /// On the monotonic clock, and never before the `expiration` that was sent, by a right clock.
    expires: Instant,
}

/// A code of the login dance: good once, for the redirect URI that it was made for.
struct Code {
    user: String,
    redirect_uri: String,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    sessions: HashMap<String, Session>,
    codes: HashMap<String, Code>,
    /// Cookie value -> the host that set it, the user.
    cookies: HashMap<String, (String, String)>,
    /// Everything above, and user tokens made on demand, in the order of issue.
    secrets: Vec<String>,
}

impl Ledger {
    /// New credentials, unlike all others, good for `lifetime` from now on, which the host's clock calls `now`.
    pub(crate) fn issue(&mut self, lifetime: Duration, now: SystemTime) -> Credentials {
        let access_key_id: String = std::iter::once("ASIA".to_owned())
            .chain((0..16).map(|_| char::from(fastrand::u8(b'A'..=b'Z')).to_string()))
            .collect();
        // Both in the alphabet of base64, with `/` and `+`, as those of AWS are.
        let secret_access_key = STANDARD.encode(random_bytes(30));
        let session_token = format!("IQoJb3JpZ2luX2Vj{}", STANDARD.encode(random_bytes(400)));
        // The wall clock is read first: what was sent is then never later than what holds.
        let expiration = clock::expiration(now + lifetime);
        let session = Session {
            secret_key: secret_access_key.clone(),
            token: session_token.clone(),
            expires: Instant::now() + lifetime,
        };
        self.sessions.insert(access_key_id.clone(), session);
        self.secrets.push(secret_access_key.clone());
        self.secrets.push(session_token.clone());
        Credentials {
            access_key_id,
            secret_access_key,
            session_token,
            expiration,
        }
    }

    /// Every session ends now.
    pub(crate) fn expire_all(&mut self) {
        let now = Instant::now();
        for session in self.sessions.values_mut() {
            session.expires = session.expires.min(now);
        }
    }

    /// No session has ever been.
    pub(crate) fn forget_all(&mut self) {
        self.sessions.clear();
    }

    /// No session token fits its access key any more.
    pub(crate) fn garble_tokens(&mut self) {
        for session in self.sessions.values_mut() {
            session.token.insert(0, '.');
        }
    }

    /// Are access key and session token a pair, and good at this moment?
    pub(crate) fn check(&self, access_key: &str, token: Option<&str>) -> Result<(), Refusal> {
        let session = self.sessions.get(access_key).ok_or(Refusal::UnknownKey)?;
        let token = token.ok_or(Refusal::UnknownKey)?;
        if token != session.token {
            return Err(Refusal::WrongToken);
        }
        match Instant::now().checked_duration_since(session.expires) {
            Some(ago) => Err(Refusal::Expired(ago)),
            None => Ok(()),
        }
    }

    /// The secret key that belongs to an access key.
    pub(crate) fn secret_key(&self, access_key: &str) -> Option<&str> {
        let session = self.sessions.get(access_key)?;
        Some(&session.secret_key)
    }

    /// A code for the way back to `redirect_uri`.
    pub(crate) fn code(&mut self, user: &str, redirect_uri: &str) -> String {
        let code = self.secret(32);
        let grant = Code {
            user: user.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
        };
        self.codes.insert(code.clone(), grant);
        code
    }

    /// Uses up a code: its user, if it was made for this redirect URI.
    pub(crate) fn redeem(&mut self, code: &str, redirect_uri: &str) -> Option<String> {
        let grant = self.codes.remove(code)?;
        (grant.redirect_uri == redirect_uri).then_some(grant.user)
    }

    /// A session cookie of `host` for `user`.
    pub(crate) fn cookie(&mut self, host: &str, user: &str) -> String {
        let cookie = self.secret(96);
        self.cookies
            .insert(cookie.clone(), (host.to_owned(), user.to_owned()));
        cookie
    }

    /// The user of a cookie that `host` set.
    pub(crate) fn cookie_user(&self, host: &str, cookie: &str) -> Option<&str> {
        let (set_by, user) = self.cookies.get(cookie)?;
        (set_by == host).then_some(user)
    }

    /// A user token, shaped as a JWT.
    pub(crate) fn user_token(&mut self, user: &str) -> String {
        let token = [
            r#"{"typ":"JWT","alg":"RS256"}"#.as_bytes().to_vec(),
            serde_json::json!({ "uid": user }).to_string().into_bytes(),
            random_bytes(64),
        ]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
        self.secrets.push(token.clone());
        token
    }

    /// Everything handed out so far.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.clone()
    }

    fn secret(&mut self, bytes: usize) -> String {
        let secret = URL_SAFE_NO_PAD.encode(random_bytes(bytes));
        self.secrets.push(secret.clone());
        secret
    }
}

fn random_bytes(count: usize) -> Vec<u8> {
    (0..count).map(|_| fastrand::u8(..)).collect()
}
