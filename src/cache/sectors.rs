//! A set of sectors of one block.

use super::BLOCK;
use crate::s3::ByteRange;

/// Bytes of a sector, the unit of what is held, claimed and present: a page, so that memory is taken
/// by the sector, and whoever reads single pages fetches single pages if that is best.
pub(super) const SECTOR: u64 = 4 << 10;

const WORDS: usize = 4;
const COUNT: u64 = BLOCK / SECTOR;
const _: () = assert!(COUNT == WORDS as u64 * u64::BITS as u64);

/// A bit for each sector of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sectors([u64; WORDS]);

impl Sectors {
    /// The sectors that the bytes `part` of a block touch.
    pub(super) fn touched(part: ByteRange) -> Self {
        let (first, last) = (part.start() / SECTOR, (part.end() - 1) / SECTOR);
        let mut words = [0; WORDS];
        for (word, base) in words.iter_mut().zip((0..).step_by(64)) {
            let (low, high) = (first.max(base), last.min(base + 63));
            if low <= high {
                *word = u64::MAX << (low - base) & u64::MAX >> (base + 63 - high);
            }
        }
        Self(words)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == [0; WORDS]
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Those of `self` that are not in `other`.
    pub(super) fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// How many bytes they are in a block of `len` bytes, whose last sector may be short.
    pub(super) fn bytes(self, len: u64) -> u64 {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        let last = (len - 1) / SECTOR;
        let short = if self.next(last, true) == last {
            (last + 1) * SECTOR - len
        } else {
            0
        };
        u64::from(count) * SECTOR - short
    }

    /// The runs of sectors, as bytes of a block of `len` bytes.
    pub(super) fn runs(self, len: u64) -> impl Iterator<Item = ByteRange> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = self.next(from, true);
            from = self.next(first, false);
            ByteRange::new(first * SECTOR, (from * SECTOR).min(len))
        })
    }

    /// The first sector from `from` on that is in the set (or is not), or [`COUNT`].
    fn next(self, from: u64, is_in: bool) -> u64 {
        let mut at = from;
        while at < COUNT {
            let word = self.0[usize::try_from(at / 64).expect("small")];
            let word = if is_in { word } else { !word } >> (at % 64);
            if word != 0 {
                return (at + u64::from(word.trailing_zeros())).min(COUNT);
            }
            at = (at / 64 + 1) * 64;
        }
        COUNT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(start: u64, end: u64) -> Sectors {
        Sectors::touched(ByteRange::new(start, end).expect("not empty"))
    }

    #[test]
    fn what_bytes_touch() {
        assert_eq!(of(0, 1), Sectors([1, 0, 0, 0]));
        assert_eq!(of(0, SECTOR + 1), Sectors([3, 0, 0, 0]));
        assert_eq!(of(SECTOR - 1, SECTOR + 1), Sectors([3, 0, 0, 0]));
        assert_eq!(of(63 * SECTOR, 65 * SECTOR), Sectors([1 << 63, 1, 0, 0]));
        assert_eq!(of(BLOCK - 1, BLOCK), Sectors([0, 0, 0, 1 << 63]));
        assert_eq!(of(0, BLOCK), Sectors([u64::MAX; WORDS]));
    }

    #[test]
    fn runs_and_bytes() {
        let set = of(0, 1)
            .or(of(62 * SECTOR, 66 * SECTOR))
            .or(of(BLOCK - 5, BLOCK));
        let runs: Vec<_> = set.runs(BLOCK).map(|r| (r.start(), r.end())).collect();
        let expected = [
            (0, SECTOR),
            (62 * SECTOR, 66 * SECTOR),
            (BLOCK - SECTOR, BLOCK),
        ];
        assert_eq!(runs, expected);
        assert_eq!(set.bytes(BLOCK), 6 * SECTOR);
        assert_eq!(of(0, BLOCK).bytes(BLOCK), BLOCK);
        assert_eq!(of(0, 101).bytes(101), 101);
        assert_eq!(of(0, SECTOR).bytes(SECTOR + 1), SECTOR);
        assert_eq!(of(0, SECTOR + 1).runs(SECTOR + 1).count(), 1);
        assert_eq!(Sectors::default().runs(BLOCK).count(), 0);
        assert_eq!(of(0, BLOCK).without(of(SECTOR, BLOCK)), of(0, 1));
        assert!(of(0, 1).and(of(SECTOR, BLOCK)).is_empty());
    }
}
