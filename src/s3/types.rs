//! The words of S3: ETags, byte ranges, what a listing tells of an object.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::SystemTime;

/// An entity tag as S3 gives it, quotes included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(Arc<str>);

impl ETag {
    /// The tag, quotes included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ETag {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// What S3 tells of one version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Bytes.
    pub size: u64,
    /// Tells this version from others.
    pub etag: ETag,
    /// Whole seconds.
    pub last_modified: SystemTime,
    /// Where S3 keeps it.
    pub storage: Storage,
}

/// Where S3 keeps an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    class: Option<Arc<str>>,
    is_restored: bool,
}

impl Storage {
    /// In `class`, STANDARD if S3 names none; `is_restored` where a copy of an archived object can be
    /// read for a while.
    pub fn new(class: Option<&str>, is_restored: bool) -> Self {
        let class = class.filter(|class| *class != STANDARD);
        Self {
            class: class.map(Arc::from),
            is_restored,
        }
    }

    /// The storage class in S3's words.
    pub fn class(&self) -> &str {
        self.class.as_deref().unwrap_or(STANDARD)
    }

    /// Whether the object cannot be read before it is restored.
    pub fn is_archived(&self) -> bool {
        matches!(self.class(), "GLACIER" | "DEEP_ARCHIVE") && !self.is_restored
    }
}

/// What S3 leaves out in the answer to a HEAD.
const STANDARD: &str = "STANDARD";

/// One version of an object, as this process knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Unique to this version for the life of the process; also its inode number.
    pub number: NonZeroU64,
    /// The whole key.
    pub key: Arc<str>,
    /// What S3 tells of it.
    pub meta: ObjectMeta,
}

/// The bytes `start..end` of an object; never empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// `None` if there is no byte in it.
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub fn end(self) -> u64 {
        self.end
    }

    /// How many bytes.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }
}

/// As HTTP's `Range` header has it, both ends included.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes={}-{}", self.start, self.end - 1)
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
