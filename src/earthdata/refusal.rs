//! What Earthdata Login refused and is therefore not sent again: it locks accounts after some failures.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::error::Error;
use super::login::Login;

/// Accounts are locked for about 10 minutes (nsidc/earthaccess issue 453).
pub(super) const LOCKED_FOR: Duration = Duration::from_secs(15 * 60);

/// How Earthdata Login refused a user and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// They do not fit: not to be sent again until the source changes.
    WrongPassword,
    /// The account is locked: not to be sent for a while.
    Locked,
}

impl Refusal {
    /// For how long the same login is not sent again; `None` for ever.
    pub fn lasts(self) -> Option<Duration> {
        match self {
            Self::WrongPassword => None,
            Self::Locked => Some(LOCKED_FOR),
        }
    }
}

/// A login that was refused, as long as that holds.
#[derive(Debug)]
pub(super) struct Refused {
    login: Login,
    error: Error,
    until: Option<Instant>,
}

impl Refused {
    /// What is to be remembered of `error`, which `login` met.
    pub(super) fn of(login: &Login, error: &Error) -> Option<Self> {
        let refusal = error.refusal()?;
        Some(Self {
            login: login.clone(),
            error: error.clone(),
            until: refusal.lasts().map(|lasts| Instant::now() + lasts),
        })
    }

    /// The error again, if it holds for `login`.
    pub(super) fn error(&self, login: &Login) -> Option<Error> {
        let holds = self.login == *login && self.until.is_none_or(|until| Instant::now() < until);
        holds.then(|| self.error.clone())
    }
}
