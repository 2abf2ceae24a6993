//! What was asked: counters, a record of each S3 request, and how deep requests waited for one another.
//!
//! Depth: at its start, a request's depth is 1 + the largest depth among the S3 requests that had finished before. The
//! counter is the maximum. It is the length of the longest chain that *may* have waited link by link, so it bounds the
//! round trips of an operation on an otherwise idle world; requests side by side do not add to it. A request has
//! finished when the last byte of its answer went to the socket layer, which is before the client can have seen it; one
//! that was given up has not, as nobody waited for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// How many S3 requests are remembered one by one.
const RING: usize = 100_000;

/// What an S3 request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// ListObjectsV2.
    List,
    /// HeadObject.
    Head,
    /// GetObject.
    Get,
    /// Anything else: refused, as the credentials of `/s3credentials` allow nothing else.
    Forbidden,
}

/// Counts since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// ListObjectsV2 requests, whatever their answer.
    pub list: u64,
    /// HeadObject requests, whatever their answer.
    pub head: u64,
    /// GetObject requests, whatever their answer.
    pub get: u64,
    /// S3 requests that are none of these, all refused.
    pub forbidden_operations: u64,
    /// S3 requests refused because the session token had expired.
    pub expired_refused: u64,
    /// Those of them whose `x-amz-date` says that it had expired when they were signed. The others were on
    /// their way for long.
    pub expired_signed: u64,
    /// Requests to `/s3credentials` and `/s3credentials-open`, whatever their answer: a login dance makes two.
    pub credentials_requests: u64,
    /// Those of them that do not say in `app-name` which program asks.
    pub unnamed_programs: u64,
    /// Credentials handed out.
    pub credentials_issued: u64,
    /// Logins at `/oauth/authorize` with the right password.
    pub logins: u64,
    /// Wrong passwords, or unknown users, at any path of Earthdata Login.
    pub wrong_passwords: u64,
    /// Requests to `find_or_create_token`.
    pub token_requests: u64,
    /// Secrets at the wrong door: a password at a distribution host, any Earthdata secret at S3, any at CMR.
    pub stray_authorizations: u64,
    /// Searches of CMR.
    pub cmr_requests: u64,
    /// Bytes of successful GetObject answers handed to the socket layer, which buffers up to 256 KiB of them.
    pub body_bytes: u64,
    /// S3 requests being answered now.
    pub in_flight: u64,
    /// The most of them at a time.
    pub max_in_flight: u64,
    /// The longest chain of S3 requests that waited for one another, see the module.
    pub depth: u64,
    /// S3 answers of 400 and above, by status.
    pub errors: BTreeMap<u16, u64>,
}

/// One S3 request, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// What it asked for.
    pub op: Op,
    /// Method, for those that are none of list, head and get.
    pub method: String,
    /// The bucket; empty if the path names none.
    pub bucket: String,
    /// The key, or the prefix of a list; decoded.
    pub key: String,
    /// The query as it came, not decoded; empty if there was none.
    pub query: String,
    /// The `Range` header as it came.
    pub range: Option<String>,
    /// The `If-Match` header as it came.
    pub if_match: Option<String>,
    /// It asks for checksums.
    pub checksum_mode: bool,
    /// Status of the answer, 0 while there is none.
    pub status: u16,
    /// Bytes of its body handed to the socket layer so far.
    pub bytes: u64,
    /// See the module `meter`: 1 for a request that waited for none.
    pub depth: u64,
}

#[derive(Default)]
struct Log {
    counters: Counters,
    records: VecDeque<RequestRecord>,
    /// Number of the first record that is still there. Never decreases, so that a request that began before a reset
    /// does not write into a record made after it.
    first: u64,
    /// The largest depth of a finished request since the reset.
    finished_depth: u64,
}

impl Log {
    fn record(&mut self, number: u64) -> Option<&mut RequestRecord> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.records.get_mut(index)
    }
}

/// The one place where things are counted. Its lock is held for a few instructions, never across an await.
#[derive(Default)]
pub(crate) struct Meter {
    log: Mutex<Log>,
}

impl Meter {
    pub(crate) fn counters(&self) -> Counters {
        self.log.lock().counters.clone()
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.log.lock().records.iter().cloned().collect()
    }

    /// Sets everything to zero but what is in flight.
    pub(crate) fn reset(&self) {
        let mut log = self.log.lock();
        let in_flight = log.counters.in_flight;
        log.first += log.records.len() as u64;
        log.records.clear();
        log.finished_depth = 0;
        log.counters = Counters {
            in_flight,
            max_in_flight: in_flight,
            ..Counters::default()
        };
    }

    /// Counts something that is not an S3 request.
    pub(crate) fn count(&self, counter: impl FnOnce(&mut Counters) -> &mut u64) {
        *counter(&mut self.log.lock().counters) += 1;
    }

    /// An S3 request has arrived.
    pub(crate) fn begin(self: &Arc<Self>, mut record: RequestRecord) -> Ticket {
        let mut log = self.log.lock();
        let depth = log.finished_depth + 1;
        let counters = &mut log.counters;
        match record.op {
            Op::List => counters.list += 1,
            Op::Head => counters.head += 1,
            Op::Get => counters.get += 1,
            Op::Forbidden => counters.forbidden_operations += 1,
        }
        counters.in_flight += 1;
        counters.max_in_flight = counters.max_in_flight.max(counters.in_flight);
        counters.depth = counters.depth.max(depth);
        if log.records.len() == RING {
            log.records.pop_front();
            log.first += 1;
        }
        let number = log.first + log.records.len() as u64;
        record.depth = depth;
        let op = record.op;
        log.records.push_back(record);
        Ticket {
            meter: self.clone(),
            number,
            depth,
            op,
            succeeded: false,
            finished: false,
        }
    }
}

/// An S3 request in flight; dropping it ends it, finished or given up.
pub(crate) struct Ticket {
    meter: Arc<Meter>,
    number: u64,
    depth: u64,
    op: Op,
    succeeded: bool,
    finished: bool,
}

impl Ticket {
    /// The head of the answer is decided.
    pub(crate) fn answered(&mut self, status: u16) {
        self.succeeded = status < 300;
        let mut log = self.meter.log.lock();
        if status >= 400 {
            *log.counters.errors.entry(status).or_default() += 1;
        }
        if let Some(record) = log.record(self.number) {
            record.status = status;
        }
    }

    /// So many bytes of the body go out.
    pub(crate) fn sent(&self, bytes: u64) {
        let mut log = self.meter.log.lock();
        if self.op == Op::Get && self.succeeded {
            log.counters.body_bytes += bytes;
        }
        if let Some(record) = log.record(self.number) {
            record.bytes += bytes;
        }
    }

    /// The last byte goes out: who starts from now on may have waited for it.
    pub(crate) fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let mut log = self.meter.log.lock();
        log.counters.in_flight -= 1;
        if log.first <= self.number {
            log.finished_depth = log.finished_depth.max(self.depth);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.finished {
            self.meter.log.lock().counters.in_flight -= 1;
        }
    }
}
