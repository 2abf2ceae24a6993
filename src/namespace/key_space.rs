//! The space of keys behind a directory's prefix: places, and stretches of them.
//!
//! What stands in a directory has a place, the part of its key behind the directory's prefix: the
//! file `x` stands at `x`, the directory `x` at `x/`, so places sort as S3 lists them.

/// Which way a directory is read, in the order of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is listed.
    Forward,
    /// From its end.
    Back,
}

impl Way {
    /// The other one.
    #[must_use]
    pub fn turned(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }

    /// Whether `key` comes behind `other` this way.
    pub fn is_behind(self, key: &str, other: &str) -> bool {
        match self {
            Self::Forward => key > other,
            Self::Back => key < other,
        }
    }
}

/// A half-open interval of key space behind the directory's prefix; no end means to its last key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: Vec<u8>,
    pub(super) end: Option<Vec<u8>>,
}

impl Span {
    /// The one place `at`.
    pub(super) fn point(at: &str) -> Self {
        Self {
            start: at.into(),
            end: Some(just_behind(at)),
        }
    }

    /// All places that begin with `prefix`, which is not empty.
    pub(super) fn below(prefix: &str) -> Self {
        let mut end: Vec<u8> = prefix.into();
        if let Some(last) = end.last_mut() {
            // No byte of UTF-8 is 0xFF.
            *last += 1;
        }
        Self {
            start: prefix.into(),
            end: Some(end),
        }
    }
}

/// The least place behind `at`, in as much memory as it takes.
pub(super) fn just_behind(at: &str) -> Vec<u8> {
    [at.as_bytes(), &[0]].concat()
}

/// The end of an interval; none is behind every key.
pub(super) type End = Option<Box<[u8]>>;
