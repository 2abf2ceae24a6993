//! Heads of files whose first bytes say that what is read next lies near.
//!
//! A TIFF begins with the directory of its images, and in a COG (OGC 21-026) the overviews follow, the
//! smallest first. Who reads such a header mostly reads one of them next; so they come early, as long as
//! they get used.

use super::credit::Credit;
use crate::s3::ByteRange;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// What comes early: the overviews of a scene of 10,000 pixels a side, down to an eighth of it.
const HEAD: u64 = 4 << 20;

/// What all objects of a mount have shown.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<Credit>);

/// Of one object.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Something behind the header was fetched early, and not read yet.
    is_unused: AtomicBool,
}

impl Head {
    /// What to fetch early for who has just read `header` from the start of an object of `size` bytes.
    pub(super) fn early(&self, heads: &Heads, header: &[u8], size: u64) -> Option<ByteRange> {
        if !begins_tiff(header) || !lock(&heads.0).spend() {
            return None;
        }
        self.is_unused.store(true, Ordering::Relaxed);
        ByteRange::new(header.len() as u64, HEAD.min(size))
    }

    /// Notes a read.
    pub(super) fn read(&self, heads: &Heads, header: u64, read: ByteRange) {
        let is_behind_header = header <= read.start() && read.start() < HEAD;
        if is_behind_header && self.is_unused.swap(false, Ordering::Relaxed) {
            lock(&heads.0).earn();
        }
    }
}

/// TIFF 6.0, section 2, and BigTIFF: the byte order, and 42 or 43 in it.
fn begins_tiff(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_tiffs_come_early_as_long_as_they_are_read() {
        let heads = Heads::default();
        let early = |header: &[u8]| Head::default().early(&heads, header, 1 << 30).is_some();
        assert!(!early(b"\x89HDF\r\n\x1a\n") && !early(b"II") && !early(b""));
        for nth in 0..8 {
            let head = Head::default();
            let range = head.early(&heads, b"II+\0rest", 1 << 30);
            assert_eq!(range, ByteRange::new(8, HEAD));
            if nth < 3 {
                let read = ByteRange::new(1 << 20, 2 << 20).expect("not empty");
                head.read(&heads, 256 << 10, read);
                head.read(&heads, 256 << 10, read);
            }
        }
        assert!(!early(b"MM\0*"), "in vain too often");
    }
}
