//! The words of S3: ETags, byte ranges, what a listing tells of an object.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::SystemTime;

/// No key is longer, in bytes of UTF-8 (docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html).
pub const LONGEST_KEY: usize = 1024;

/// An entity tag as S3 gives it, quotes included. There may be one for each of millions of names, so those
/// that S3 makes up itself are kept as what they are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(Tag);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Tag {
    /// An MD5 sum in hexadecimal; with the number of parts behind it where the object was uploaded in parts.
    Sum([u8; 16], Option<NonZeroU32>),
    /// Of another kind of server.
    Other(Arc<str>),
}

impl ETag {
    /// The sum of `text`, if all of it can be had back from that.
    fn sum(text: &str) -> Option<Tag> {
        let inner = text.strip_prefix('"')?.strip_suffix('"')?;
        let (digits, parts) = match inner.split_once('-') {
            Some((digits, parts)) => (digits, Some(parts.parse().ok()?)),
            None => (inner, None),
        };
        if digits.len() != 32 || !digits.is_ascii() {
            return None;
        }
        let sum = u128::from_str_radix(digits, 16).ok()?;
        let tag = Tag::Sum(sum.to_be_bytes(), parts);
        // Not so with capitals, signs and leading zeros.
        (Self(tag.clone()).to_string() == text).then_some(tag)
    }
}

impl From<&str> for ETag {
    fn from(text: &str) -> Self {
        Self(Self::sum(text).unwrap_or_else(|| Tag::Other(text.into())))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Tag::Sum(sum, None) => write!(f, "\"{:032x}\"", u128::from_be_bytes(*sum)),
            Tag::Sum(sum, Some(parts)) => {
                write!(f, "\"{:032x}-{parts}\"", u128::from_be_bytes(*sum))
            }
            Tag::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ETag({self})")
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
pub struct Storage(Option<Arc<Elsewhere>>);

/// Where that is not STANDARD, which S3 leaves out in the answer to a HEAD.
#[derive(Debug, PartialEq, Eq)]
struct Elsewhere {
    class: Box<str>,
    is_restored: bool,
}

impl Storage {
    /// In `class`, STANDARD if S3 names none; `is_restored` where a copy of an archived object can be
    /// read for a while.
    pub fn new(class: Option<&str>, is_restored: bool) -> Self {
        let class = class.filter(|class| *class != STANDARD);
        Self(class.map(|class| {
            Arc::new(Elsewhere {
                class: class.into(),
                is_restored,
            })
        }))
    }

    /// The storage class in S3's words.
    pub fn class(&self) -> &str {
        self.0
            .as_ref()
            .map_or(STANDARD, |elsewhere| &elsewhere.class)
    }

    /// Whether the object cannot be read before it is restored.
    pub fn is_archived(&self) -> bool {
        let is_restored = self
            .0
            .as_ref()
            .is_some_and(|elsewhere| elsewhere.is_restored);
        matches!(self.class(), "GLACIER" | "DEEP_ARCHIVE") && !is_restored
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_as_they_were() {
        for (text, is_sum) in [
            ("\"fba9dede5f27731c9771645a39863328\"", true),
            ("\"0ba9dede5f27731c9771645a39863328-17\"", true),
            ("\"fba9dede5f27731c9771645a39863328-0\"", false),
            ("\"fba9dede5f27731c9771645a39863328-017\"", false),
            ("\"fba9dede5f27731c9771645a39863328-\"", false),
            ("\"FBA9dede5f27731c9771645a39863328\"", false),
            ("\"+ba9dede5f27731c9771645a39863328\"", false),
            ("fba9dede5f27731c9771645a39863328", false),
            ("\"fba9dede5f27731c9771645a3986332\"", false),
            ("\"x\"", false),
            ("\"", false),
            ("", false),
        ] {
            let tag = ETag::from(text);
            assert_eq!(tag.to_string(), text);
            assert_eq!(matches!(tag.0, Tag::Sum(..)), is_sum, "{text}");
        }
    }

    /// A million names are remembered at once.
    #[test]
    fn a_version_is_small() {
        assert!(
            size_of::<ObjectVersion>() <= 88,
            "{}",
            size_of::<ObjectVersion>()
        );
    }
}
