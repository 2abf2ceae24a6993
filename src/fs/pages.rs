//! The pages that the kernel keeps of directories that it reads.
//!
//! It fills them by position: where one reader stops, another one goes on, with what its own listing
//! has there. So one at a time may fill those of a directory, and they are good only if it came to the
//! end while all that it listed was true. When that is over, those of a directory that is still open are
//! dropped: who reads them again would be shown what was, for as long as he has it open.

use std::collections::HashMap;
use std::time::Duration;

use super::changes::Changes;
use crate::namespace::Revision;
use crate::sync::{Arc, Mutex, lock};

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

/// What the kernel has.
#[derive(Debug)]
pub(super) struct KernelPages {
    /// By inode number.
    kept: Mutex<HashMap<u64, Kept>>,
    /// Which are to be dropped, and when. Locked while `kept` is.
    changes: Arc<Changes>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Of which listing the pages are.
    revision: Option<Revision>,
    /// How many are open that read them, or fill them where they are missing.
    open: usize,
}

impl KernelPages {
    pub(super) fn new(changes: Arc<Changes>) -> Self {
        Self {
            kept: Mutex::default(),
            changes,
        }
    }

    /// Opens a directory of which this state is known whole, and believed for so long.
    pub(super) fn open(&self, inode: u64, whole: Option<(Revision, Duration)>) -> Pages {
        let mut all = lock(&self.kept);
        let kept = all.entry(inode).or_default();
        let used = whole.filter(|(revision, _)| kept.revision == Some(*revision));
        let pages = if let Some((_, fresh_for)) = used {
            self.changes.drop_pages(inode, fresh_for);
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

    /// Notes that all pages may be filled: of this state of the directory, which is believed for so long, or
    /// of no certain one.
    pub(super) fn filled(&self, inode: u64, whole: Option<(Revision, Duration)>) {
        self.change(inode, |kept| {
            kept.revision = whole.map(|(revision, _)| revision);
            if kept.open > 0 {
                let fresh_for = whole.map_or(Duration::ZERO, |(_, fresh_for)| fresh_for);
                self.changes.drop_pages(inode, fresh_for);
            }
        });
    }

    /// Closes what was opened with these `pages`.
    pub(super) fn close(&self, inode: u64, pages: Pages) {
        let closed = usize::from(pages != Pages::Forget);
        self.change(inode, |kept| {
            kept.open -= closed;
            if kept.open == 0 {
                self.changes.leave_pages(inode);
            }
        });
    }

    /// Notes that the kernel has forgotten an inode. What was open of it may be closed later.
    pub(super) fn forget(&self, inode: u64) {
        self.change(inode, |kept| kept.revision = None);
    }

    fn change(&self, inode: u64, change: impl FnOnce(&mut Kept)) {
        let mut all = lock(&self.kept);
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
        for kept in lock(&self.kept).values_mut() {
            kept.revision = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::changes::Change;

    #[test]
    fn are_filled_by_one_and_used_while_they_are_true() {
        let (pages, inode) = (KernelPages::new(Arc::default()), 7);
        let [old, new] = [Revision::next(), Revision::next()].map(|it| Some((it, Duration::MAX)));
        assert_eq!(pages.open(inode, None), Pages::Renew);
        assert_eq!(pages.open(inode, None), Pages::Forget);
        pages.filled(inode, old);
        assert_eq!(pages.open(inode, old), Pages::Use);
        assert_eq!(pages.open(inode, new), Pages::Forget);
        assert_eq!(pages.open(inode, old), Pages::Forget);
        for open in [Pages::Renew, Pages::Forget, Pages::Use, Pages::Forget] {
            pages.close(inode, open);
        }
        assert_eq!(pages.open(inode, old), Pages::Renew);
        pages.close(inode, Pages::Renew);
        pages.forget(inode);
        assert!(lock(&pages.kept).is_empty());
    }

    #[test]
    fn are_dropped_while_they_are_open_when_they_are_true_no_more() {
        let (changes, hour) = (Arc::<Changes>::default(), Duration::from_secs(3600));
        let pages = KernelPages::new(Arc::clone(&changes));
        let revision = Revision::next();
        // Filled by one who has it open, and used by another one.
        for inode in [7, 8] {
            assert_eq!(pages.open(inode, None), Pages::Renew);
            pages.filled(inode, Some((revision, hour)));
        }
        assert_eq!(changes.pages_to_drop(), [7, 8]);
        pages.close(8, Pages::Renew);
        assert_eq!(changes.pages_to_drop(), [7]);
        assert_eq!(pages.open(8, Some((revision, hour))), Pages::Use);
        assert_eq!(changes.pages_to_drop(), [7, 8]);
        pages.close(7, Pages::Renew);
        // Filled by one who lists anew: of no certain state.
        pages.filled(8, None);
        assert_eq!(changes.next(), Change::Pages(8));
        assert_eq!(pages.open(8, Some((revision, hour))), Pages::Forget);
        pages.close(8, Pages::Use);
        assert!(changes.pages_to_drop().is_empty());
    }
}
