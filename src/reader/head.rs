//! Heads of files of which something near the header is read next.
//!
//! A TIFF begins with the directory of its images, and in a COG (OGC 21-026) the overviews follow, the
//! smallest first. Who reads such a header mostly reads one of them next. netCDF-C, as Python has it, opens a
//! netCDF-4 file with a read of its first 4 MiB. So these come along with the header, as long as they get used.

use super::credit::Credit;
use crate::s3::ByteRange;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// The overviews of a scene of 10,000 pixels a side, down to an eighth of it.
const OVERVIEWS: u64 = 4 << 20;
/// What netCDF-C reads, as the kernel asks for it: that begins with a short read, and ends a little further.
const NETCDF: u64 = (4 << 20) + (64 << 10);
/// Suffixes of each kind of such files, as their first bytes would say it a round trip later, and what comes along.
const KINDS: [([&str; 2], u64); 2] = [(["tif", "tiff"], OVERVIEWS), (["nc", "nc4"], NETCDF)];

/// What all objects of a mount have shown, of each kind.
#[derive(Debug, Default)]
pub(super) struct Heads([Mutex<Credit>; KINDS.len()]);

impl Heads {
    /// Whether heads of such files are worth it, and how long they are.
    fn of(&self, key: &str) -> Option<(&Mutex<Credit>, u64)> {
        let (_, suffix) = key.rsplit_once('.')?;
        let mut kinds = self.0.iter().zip(KINDS);
        let is_one = |kind: [&str; 2]| kind.iter().any(|it| suffix.eq_ignore_ascii_case(it));
        let (credit, (_, len)) = kinds.find(|(_, (suffixes, _))| is_one(*suffixes))?;
        Some((credit, len))
    }
}

/// Of one object.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Something behind the header came along, and was not read yet.
    is_unused: AtomicBool,
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
        let (credit, len) = heads.of(key)?;
        if !lock(credit).spend() {
            return None;
        }
        self.is_unused.store(true, Ordering::Relaxed);
        ByteRange::new(header.end(), len.min(size))
    }

    /// Notes a read of the object `key`; headers are `header` bytes long.
    pub(super) fn read(&self, heads: &Heads, key: &str, header: u64, read: ByteRange) {
        if let Some((credit, len)) = heads.of(key)
            && (header..len).contains(&read.start())
            && self.is_unused.swap(false, Ordering::Relaxed)
        {
            lock(credit).earn();
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
            assert_eq!(along(&head, "a/B04.TIF"), Some(range(4096, OVERVIEWS)));
            if nth < 3 {
                for start in [1 << 20, 2 << 20] {
                    head.read(&heads, "a/B04.TIF", 256 << 10, range(start, start + 4096));
                }
            }
        }
        assert_eq!(along(&Head::default(), "c.tiff"), None, "in vain too often");
        assert_eq!(along(&Head::default(), "c.nc"), Some(range(4096, NETCDF)));
    }
}
