//! What can go wrong at S3 on purpose: the faults, and the rules that say when.
//!
//! A rule is asked about each admitted List, Head and Get that its fault can happen to; those that its operations and
//! key pattern fit are its *matches*, numbered from 1. After `skip` matches, each `every`-th one is *hit*, `times` of
//! them and then no more. Rules are asked in the order in which they were scripted, and a request is hit by one rule at
//! most: rules behind that one do not see it. A rule has *fired* when the effect was really there: a reset after 100,000
//! bytes does not fire on an answer of 10.

use std::time::Duration;

use crate::meter::Op;

/// One thing that goes wrong.
///
/// Faults with a body (from `FlipByte` to `WrongContentRange`) hit Get and List, not Head; what is said of `If-Match`,
/// ranges and archived objects hits Get alone, and the faults of listings hit List.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 503 `SlowDown`.
    SlowDown,
    /// 500 `InternalError`.
    InternalError,
    /// 403 `AccessDenied`.
    AccessDenied,
    /// 403 `AccessDenied` by a policy that denies explicitly, as NASA's do to requests from outside of the region.
    ExplicitDeny,
    /// 400 `ExpiredToken`, as a token that has run out: on Head a bare 400.
    Expired,
    /// 400 `InvalidRequest`, as for an object that its owner encrypts with a key of his own (SSE-C): on Head a bare 400.
    InvalidRequest,
    /// 403 `RequestTimeTooSkewed`.
    TimeTooSkewed,
    /// 301 `PermanentRedirect` to this region, in `x-amz-bucket-region` and with no `Location`.
    OtherRegion(String),
    /// 403 `InvalidObjectState`, as for an object in GLACIER. Get alone.
    Archived,
    /// The object seems to be another version: another ETag (always the same one), and 412 for the true one in `If-Match`.
    ChangedEtag,
    /// No ETag in the answer.
    MissingEtag,
    /// The body is right but for one flipped bit in the byte at this offset of the body; `None`: somewhere in it.
    FlipByte(Option<u64>),
    /// `Content-Range` says one byte further than what is sent. Get of a range.
    WrongContentRange,
    /// 200 and the whole object instead of 206 and a part. Get of a range.
    IgnoreRange,
    /// 200 and a page of HTML. List alone, as all down to `HostileFields`.
    NotXml,
    /// 200 and XML that ends in the middle; `Content-Length` fits.
    CutXml,
    /// A page without entries that is not the last, as where very many objects were deleted: `NextContinuationToken`,
    /// another one each time, leads to where this page would have begun.
    EmptyPage,
    /// `NextContinuationToken` leads to the same page again.
    RepeatToken,
    /// `NextContinuationToken` leads to the first page, from every page but the first one of several.
    LoopToken,
    /// Keys and common prefixes in reverse order.
    Unordered,
    /// 1,000 entries with names made to harm (`..`, `/`, control characters, invalid encodings, too long, not below the
    /// prefix, twice), instead of the listing. The listing ends there.
    HostileKeys,
    /// Entries whose sizes, dates and ETags are not such, instead of the listing.
    HostileFields,
    /// RST instead of an answer.
    ResetBefore,
    /// RST after so many bytes of the body, when the client has them.
    ResetAfter(u64),
    /// The connection ends in good order after so many bytes of the body, below its `Content-Length`.
    CutAfter(u64),
    /// So many bytes more than `Content-Length` says, right behind the body.
    ExtraBytes(u64),
    /// Nothing for this long, then the answer; `None`: nothing for ever.
    StallBefore(Option<Duration>),
    /// Nothing for this long after so many bytes of the body, then the rest; `None`: nothing for ever.
    StallAfter(u64, Option<Duration>),
    /// The body at this many bytes a second.
    Trickle(u64),
}

impl Fault {
    /// Can it happen to this operation at all? (A rule does not match where its fault cannot.)
    pub(crate) fn can_hit(&self, op: Op) -> bool {
        match self {
            Self::Archived | Self::WrongContentRange | Self::IgnoreRange => op == Op::Get,
            _ if self.is_of_listings() => op == Op::List,
            Self::FlipByte(_)
            | Self::ResetAfter(_)
            | Self::CutAfter(_)
            | Self::ExtraBytes(_)
            | Self::StallAfter(..)
            | Self::Trickle(_) => matches!(op, Op::Get | Op::List),
            _ => op != Op::Forbidden,
        }
    }

    /// Does it write a listing anew?
    pub(crate) fn is_of_listings(&self) -> bool {
        matches!(
            self,
            Self::NotXml
                | Self::CutXml
                | Self::EmptyPage
                | Self::RepeatToken
                | Self::LoopToken
                | Self::Unordered
                | Self::HostileKeys
                | Self::HostileFields
        )
    }

    /// Is it done below http, to the bytes of the answer?
    pub(crate) fn is_of_the_wire(&self) -> bool {
        matches!(
            self,
            Self::FlipByte(_)
                | Self::ResetBefore
                | Self::ResetAfter(_)
                | Self::CutAfter(_)
                | Self::ExtraBytes(_)
                | Self::StallAfter(..)
                | Self::Trickle(_)
        )
    }
}

/// Some of List, Head and Get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ops {
    pub(crate) list: bool,
    pub(crate) head: bool,
    pub(crate) get: bool,
}

impl Ops {
    /// All three.
    pub const ANY: Self = Self {
        list: true,
        head: true,
        get: true,
    };

    fn contains(self, op: Op) -> bool {
        match op {
            Op::List => self.list,
            Op::Head => self.head,
            Op::Get => self.get,
            Op::Forbidden => false,
        }
    }
}

impl<const N: usize> From<[Op; N]> for Ops {
    fn from(ops: [Op; N]) -> Self {
        Self {
            list: ops.contains(&Op::List),
            head: ops.contains(&Op::Head),
            get: ops.contains(&Op::Get),
        }
    }
}

impl From<Op> for Ops {
    fn from(op: Op) -> Self {
        [op].into()
    }
}

/// When a fault happens: `FaultRule::on(Op::Get).key("big*").times(3).fault(Fault::ResetAfter(100_000))`.
///
/// As one line (`Display` and `FromStr`, the `--fault` of the program, the lines of `POST /_mock/faults`) it is
/// `OPS:KEY:WHEN:FAULT`, here `get:big*:3:reset-after=100000`:
///
/// - OPS: `list`, `head`, `get`, joined by `+`, or `any`;
/// - KEY: the key (of a list: the prefix), in which each `*` stands for any text, also `/`; it may have colons;
/// - WHEN: `[SKIP+]TIMES[/EVERY]`, where TIMES may be `*`, for ever: `3`, `*`, `2+1`, `*/10`;
/// - FAULT: `slow-down`, `internal-error`, `access-denied`, `explicit-deny`, `expired`, `invalid-request`, `time-too-skewed`,
///   `other-region=REGION`, `archived`, `changed-etag`, `missing-etag`, `flip-byte[=OFFSET]`, `wrong-content-range`, `ignore-range`, `not-xml`,
///   `cut-xml`, `empty-page`, `repeat-token`, `loop-token`, `unordered`, `hostile-keys`, `hostile-fields`,
///   `reset-before`, `reset-after=BYTES`, `cut-after=BYTES`, `extra-bytes=BYTES`, `stall-before[=SECONDS]`,
///   `stall-after=BYTES[,SECONDS]`, `trickle=BYTES_PER_SECOND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    pub(crate) when: When,
    pub(crate) fault: Fault,
}

impl FaultRule {
    /// A rule for an operation, or some of them: `on([Op::Head, Op::Get])`. For each key and for ever, unless said
    /// otherwise.
    pub fn on(ops: impl Into<Ops>) -> When {
        When {
            ops: ops.into(),
            key: "*".to_owned(),
            skip: 0,
            times: None,
            every: 1,
        }
    }

    /// A rule for List, Head and Get.
    pub fn on_any() -> When {
        Self::on(Ops::ANY)
    }
}

/// A rule without its fault yet; see [`FaultRule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    pub(crate) ops: Ops,
    pub(crate) key: String,
    pub(crate) skip: u64,
    pub(crate) times: Option<u64>,
    pub(crate) every: u64,
}

impl When {
    /// Only for this key, or prefix of a list; each `*` in it stands for any text.
    pub fn key(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.key);
        self
    }

    /// Not the first `skip` matches.
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// So many times, and then no more.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Only each n-th match; 0 means each one.
    pub fn every(mut self, every: u64) -> Self {
        self.every = every.max(1);
        self
    }

    /// The fault that it is all about.
    pub fn fault(self, fault: Fault) -> FaultRule {
        FaultRule { when: self, fault }
    }

    pub(crate) fn fits(&self, op: Op, key: &str) -> bool {
        self.ops.contains(op) && matches(&self.key, key)
    }

    /// Is match `number` (from 1), with so many hits before it, hit as well?
    pub(crate) fn is_hit(&self, number: u64, hits: u64) -> bool {
        let Some(behind) = number.checked_sub(self.skip).filter(|behind| *behind > 0) else {
            return false;
        };
        behind % self.every == 0 && self.times.is_none_or(|times| hits < times)
    }
}

/// Does the text fit the pattern, whose `*` stand for any text?
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    // Each piece at its first place leaves the most for those behind it.
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
