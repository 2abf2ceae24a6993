//! Heads of files of which something near the header is read next.
//!
//! A TIFF begins with the directory of its images, and in a COG (OGC 21-026) the overviews follow, the
//! smallest first. Who reads such a header mostly reads one of them next. netCDF-C, as Python has it, opens a
//! netCDF-4 file with a read of its first 4 MiB. So these come along with the header, as long as they get used.

use super::credit::{Credit, Guess};
use crate::s3::ByteRange;
use crate::sync::Mutex;

/// What comes along: the overviews of a scene of 10,000 pixels a side, down to an eighth of it, and what netCDF-C
/// reads, 4 MiB both. The last of the kernel's requests for that begins within it, and ends a little further.
const HEAD: u64 = (4 << 20) + (64 << 10);
/// Suffixes of each kind of such files: their first bytes would say it a round trip later.
const KINDS: [[&str; 2]; 2] = [["tif", "tiff"], ["nc", "nc4"]];

/// What all objects of a mount have shown, of each kind.
#[derive(Debug, Default)]
pub(super) struct Heads([Mutex<Credit>; KINDS.len()]);

impl Heads {
    fn of(&self, key: &str) -> Option<&Mutex<Credit>> {
        let (_, suffix) = key.rsplit_once('.')?;
        let is_one = |kind: &[&str; 2]| kind.iter().any(|it| suffix.eq_ignore_ascii_case(it));
        self.0.get(KINDS.iter().position(is_one)?)
    }
}

/// Of one object.
#[derive(Debug, Default)]
pub(super) struct Head {
    guess: Guess,
}

impl Head {
    /// What comes along with the `header` of the object `key` of `size` bytes.
    pub(super) fn along(
        &self,
        heads: &Heads,
        key: &str,
        header: ByteRange,
        size: u64,
    ) -> Option<ByteRange> {
        let is_worth_it = self.guess.make(heads.of(key)?);
        ByteRange::new(header.end(), HEAD.min(size)).filter(|_| is_worth_it)
    }

    /// Notes a read of the object `key`; headers are `header` bytes long.
    pub(super) fn read(&self, heads: &Heads, key: &str, header: u64, read: ByteRange) {
        let is_behind_header = header <= read.start() && read.start() < HEAD;
        if let Some(credit) = heads.of(key).filter(|_| is_behind_header) {
            self.guess.used(credit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_along_as_long_as_they_are_read() {
        let range = |start, end| ByteRange::new(start, end).expect("not empty");
        let heads = Heads::default();
        let along = |head: &Head, key| head.along(&heads, key, range(0, 4096), 1 << 30);
        assert_eq!(along(&Head::default(), "a/b.tif/c.h5"), None);
        assert_eq!(along(&Head::default(), "README"), None);
        for nth in 0..8 {
            let head = Head::default();
            assert_eq!(along(&head, "a/B04.TIF"), Some(range(4096, HEAD)));
            if nth < 3 {
                for start in [1 << 20, 2 << 20] {
                    head.read(&heads, "a/B04.TIF", 256 << 10, range(start, start + 4096));
                }
            }
        }
        assert_eq!(along(&Head::default(), "c.tiff"), None, "in vain too often");
        assert_eq!(along(&Head::default(), "c.nc"), Some(range(4096, HEAD)));
    }
}
