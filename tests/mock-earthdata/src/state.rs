//! What the four hosts share. Each lock guards one thing and is held across no await; none is taken under another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::header::{self, HeaderValue};
use parking_lot::{Mutex, RwLock};

use crate::cmr::Cmr;
use crate::credentials::Ledger;
use crate::login::Accounts;
use crate::meter::Meter;
use crate::reply::Reply;
use crate::s3::SharedLink;
use crate::script::Script;
use crate::server::Door;
use crate::settings::{Answer, Checksums, Host, Shape};
use crate::store::Store;

/// A clock is off by 50 years at most, so that it still has a date to say.
const MAX_OFFSET: u64 = 50 * 365 * 86_400;

/// Where the listeners are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) login: SocketAddr,
    pub(crate) tea: SocketAddr,
    pub(crate) cumulus: SocketAddr,
    pub(crate) s3: SocketAddr,
}

/// The listeners of all hosts.
pub(crate) struct Doors {
    pub(crate) login: Door,
    pub(crate) tea: Door,
    pub(crate) cumulus: Door,
    pub(crate) s3: Door,
}

impl Doors {
    pub(crate) fn of(&self, host: Host) -> &Door {
        match host {
            Host::Login => &self.login,
            Host::Tea => &self.tea,
            Host::Cumulus => &self.cumulus,
            Host::S3 => &self.s3,
        }
    }
}

/// What tests turn while the world runs.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) answer: Answer,
    pub(crate) lifetime: Duration,
    pub(crate) fail_every: Option<u32>,
    /// Requests that counted for `fail_every` so far.
    pub(crate) turns: u32,
    pub(crate) shape: Shape,
    pub(crate) cmr: Cmr,
    /// What the clocks of the hosts are ahead, in seconds.
    pub(crate) clock_offset: i64,
}

impl Controls {
    /// Takes a turn: is this the n-th one, which fails?
    pub(crate) fn fails(&mut self) -> bool {
        let Some(every) = self.fail_every.filter(|every| *every > 0) else {
            return false;
        };
        self.turns += 1;
        if self.turns < every {
            return false;
        }
        self.turns = 0;
        true
    }
}

/// The world's state.
pub(crate) struct State {
    /// https instead of http, on every listener.
    pub(crate) tls: bool,
    pub(crate) doors: Doors,
    /// The endpoints take bearer tokens.
    pub(crate) bearer: bool,
    /// Passwords are exchanged for tokens.
    pub(crate) token_api: bool,
    pub(crate) checksums: Checksums,
    pub(crate) script: Mutex<Script>,
    pub(crate) addresses: Addresses,
    pub(crate) meter: Arc<Meter>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) accounts: Mutex<Accounts>,
    pub(crate) controls: Mutex<Controls>,
    pub(crate) link: Arc<SharedLink>,
    pub(crate) store: RwLock<Store>,
}

impl State {
    /// `http://host:port`, or with https.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// What the clocks of the hosts say.
    pub(crate) fn now(&self) -> SystemTime {
        let offset = self.controls.lock().clock_offset;
        let by = Duration::from_secs(offset.unsigned_abs().min(MAX_OFFSET));
        let now = SystemTime::now();
        let shifted = if offset < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        shifted.unwrap_or(now)
    }

    /// The reply with the date of the host's clock.
    pub(crate) fn dated(&self, mut reply: Reply) -> Reply {
        let date = httpdate::fmt_http_date(self.now());
        if let Ok(date) = HeaderValue::from_str(&date) {
            reply.headers_mut().insert(header::DATE, date);
        }
        reply
    }
}
