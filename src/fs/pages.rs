//! The pages that the kernel keeps of directories that it reads.
//!
//! It fills them by position: where one reader stops, another one goes on, with what its own listing
//! has there. So one at a time may fill those of a directory, and they are good only if it came to the
//! end while all that it listed was true.

use std::collections::HashMap;

use crate::namespace::Revision;
use crate::sync::{Mutex, lock};

/// What the kernel may do with the pages of a directory that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Keep nothing.
    Forget,
    /// Forget what it has, and keep what it reads.
    Renew,
    /// Use what it has: that is still true.
    Use,
}

/// What the kernel has, by inode number.
#[derive(Debug, Default)]
pub(super) struct KernelPages(Mutex<HashMap<u64, Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Of which listing the pages are.
    revision: Option<Revision>,
    /// How many are open that read them, or fill them where they are missing.
    open: usize,
}

impl KernelPages {
    /// Opens a directory of which `revision` is known whole.
    pub(super) fn open(&self, inode: u64, revision: Option<Revision>) -> Pages {
        let mut all = lock(&self.0);
        let kept = all.entry(inode).or_default();
        let pages = if revision.is_some() && kept.revision == revision {
            Pages::Use
        } else if kept.open == 0 {
            Pages::Renew
        } else {
            Pages::Forget
        };
        if pages != Pages::Use {
            kept.revision = None;
        }
        if pages != Pages::Forget {
            kept.open += 1;
        }
        pages
    }

    /// Notes that all pages were filled, of the listing `revision`.
    pub(super) fn filled(&self, inode: u64, revision: Revision) {
        self.change(inode, |kept| kept.revision = Some(revision));
    }

    /// Closes what was opened with these `pages`.
    pub(super) fn close(&self, inode: u64, pages: Pages) {
        let closed = usize::from(pages != Pages::Forget);
        self.change(inode, |kept| kept.open -= closed);
    }

    /// Notes that the kernel has forgotten an inode. What was open of it may be closed later.
    pub(super) fn forget(&self, inode: u64) {
        self.change(inode, |kept| kept.revision = None);
    }

    fn change(&self, inode: u64, change: impl FnOnce(&mut Kept)) {
        let mut all = lock(&self.0);
        let Some(kept) = all.get_mut(&inode) else {
            return;
        };
        change(kept);
        if kept.open == 0 && kept.revision.is_none() {
            all.remove(&inode);
        }
    }

    /// From now on, what the kernel has is true no more.
    pub(super) fn forget_all(&self) {
        for kept in lock(&self.0).values_mut() {
            kept.revision = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_filled_by_one_and_used_while_they_are_true() {
        let (pages, inode) = (KernelPages::default(), 7);
        let [old, new] = [Revision::next(), Revision::next()].map(Some);
        assert_eq!(pages.open(inode, None), Pages::Renew);
        assert_eq!(pages.open(inode, None), Pages::Forget);
        pages.filled(inode, old.expect("a revision"));
        assert_eq!(pages.open(inode, old), Pages::Use);
        assert_eq!(pages.open(inode, new), Pages::Forget);
        assert_eq!(pages.open(inode, old), Pages::Forget);
        for open in [Pages::Renew, Pages::Forget, Pages::Use, Pages::Forget] {
            pages.close(inode, open);
        }
        assert_eq!(pages.open(inode, old), Pages::Renew);
        pages.close(inode, Pages::Renew);
        pages.forget(inode);
        assert!(lock(&pages.0).is_empty());
    }
}
