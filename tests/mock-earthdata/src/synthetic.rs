//! Objects that are computed, not stored: every byte follows from (key, offset).
//!
//! There is one table of [`PERIOD`] bytes: the little-endian words of splitmix64 (Steele, Lea, Flood, "Fast splittable
//! pseudorandom number generators", 2014) from index 0 on. The byte of `key` at `offset` is
//! `table[(start(key) + offset) mod PERIOD]`, so that an object goes from the table to the socket without being computed,
//! and a test checks it at the speed of memory. PERIOD is a prime: places whose distance is a multiple of a page, a block
//! or a part look alike only if it is a multiple of PERIOD such units too, so a read that lands at the wrong place is seen.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use crate::content::Content;

/// After so many bytes an object repeats itself: the largest prime below a million. The table stays in the cache,
/// and the prime is not near a power of two: that would put places next to each other that are powers of two apart.
const PERIOD: u64 = 999_983;

/// From any place in the period, so many bytes can be had in one piece.
pub(crate) const PIECE: usize = 256 * 1024;

/// The increment of splitmix64: 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// One period, and the beginning of the next.
static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let period = PERIOD as usize;
    let words = (0..PERIOD.div_ceil(8)).map(|index| mix(index.wrapping_mul(GOLDEN)));
    let mut table: Vec<u8> = words.flat_map(u64::to_le_bytes).take(period).collect();
    table.extend_from_within(..PIECE);
    table
});

/// Writes the bytes of the synthetic object `key` from `offset` on into `buf`.
///
/// The object's size plays no part: a longer object begins like a shorter one.
pub fn fill(key: &str, offset: u64, buf: &mut [u8]) {
    let start = start(key);
    let mut offset = offset;
    for part in buf.chunks_mut(PIECE) {
        part.copy_from_slice(piece(start, offset, part.len()));
        offset = offset.wrapping_add(part.len() as u64);
    }
}

/// The bytes of the object with this [`start`], `len` of them but no more than [`PIECE`].
pub(crate) fn piece(start: u64, offset: u64, len: usize) -> &'static [u8] {
    // Below PERIOD, so it fits.
    let from = ((start + offset % PERIOD) % PERIOD) as usize;
    &TABLE[from..from + len.min(PIECE)]
}

/// Where in the table a key begins: 64 bits of FNV-1a over it, then mixed, as near keys must not begin at near places.
pub(crate) fn start(key: &str) -> u64 {
    let hash = key.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mix(hash) % PERIOD
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Many synthetic objects in one line: `prefix:count:size[:per-directory]`.
///
/// - `count` 1: the one object has the key `prefix` itself;
/// - otherwise the keys are `prefix/00000000.bin` and so on;
/// - with `per-directory` P, object i is `prefix/{i / P, 6 digits}/{i % P, 6 digits}.bin`.
///
/// Count and size take the suffixes K, M, G and T (powers of 1024 for the size, of 1000 for the count); `KiB` and so on
/// mean the same as `K` in a size. An empty prefix puts the objects at the root of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// Key of the one object, or the directory of all of them, without a `/` at the end.
    pub prefix: String,
    /// How many objects.
    pub count: u64,
    /// The size of each, in bytes.
    pub size: u64,
    /// Objects to a directory below the prefix.
    pub per_directory: Option<u64>,
}

/// A description of synthetic objects that does not follow `prefix:count:size[:per-directory]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSyntheticError {
    spec: String,
    reason: &'static str,
}

impl fmt::Display for ParseSyntheticError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not prefix:count:size[:per-directory]: {}",
            self.spec, self.reason
        )
    }
}

impl std::error::Error for ParseSyntheticError {}

impl Synthetic {
    /// Reads `prefix:count:size[:per-directory]`. The prefix may itself have colons: the fields are taken from the end
    /// where the last three or two of them are numbers.
    pub fn parse(spec: &str) -> Result<Self, ParseSyntheticError> {
        let fail = |reason| ParseSyntheticError {
            spec: spec.to_owned(),
            reason,
        };
        let fields: Vec<&str> = spec.split(':').collect();
        let (prefix, count, size, per_directory) = match fields.as_slice() {
            [prefix @ .., count, size, per]
                if !prefix.is_empty() && number(count, 1000).is_some() =>
            {
                (prefix, count, size, Some(per))
            }
            [prefix @ .., count, size] if !prefix.is_empty() => (prefix, count, size, None),
            _ => return Err(fail("too few fields")),
        };
        let count = number(count, 1000).ok_or_else(|| fail("the count is not a number"))?;
        let size = number(size, 1024).ok_or_else(|| fail("the size is not a number"))?;
        let per_directory = per_directory
            .map(|per| match number(per, 1000) {
                Some(0) | None => Err(fail("per-directory is not a number above 0")),
                Some(per) => Ok(per),
            })
            .transpose()?;
        let prefix = prefix.join(":").trim_end_matches('/').to_owned();
        if prefix.is_empty() && count == 1 && per_directory.is_none() {
            return Err(fail("a single object needs a key"));
        }
        Ok(Self {
            prefix,
            count,
            size,
            per_directory,
        })
    }

    /// Key of object `index`.
    pub fn key(&self, index: u64) -> String {
        let root = match self.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        match self.per_directory {
            Some(per) => format!("{root}{:06}/{:06}.bin", index / per, index % per),
            None if self.count == 1 => self.prefix.clone(),
            None => format!("{root}{index:08}.bin"),
        }
    }

    /// All objects, as [`crate::Bucket::objects`] takes them.
    pub fn objects(&self) -> impl Iterator<Item = (String, Content)> + '_ {
        (0..self.count).map(|index| (self.key(index), Content::Synthetic { size: self.size }))
    }
}

impl FromStr for Synthetic {
    type Err = ParseSyntheticError;

    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        Self::parse(spec)
    }
}

/// A number with an optional suffix K, M, G or T (`KiB`, `KB`, in either case, mean K): powers of `base`.
fn number(text: &str, base: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(base.pow(power))
}
