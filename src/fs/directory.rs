//! An open directory: the entries around its reader, and the way back to those before.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::{Error, Pages};
use crate::namespace::{Dir, Entry, Listing, Mark, Namespace, Revision};
use crate::request::Request;
use crate::sync::Arc;

/// So many entries behind the reader stay at hand; to go further back it lists again from there on.
const KEPT: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct OpenDirectory {
    pub(super) dir: Arc<Dir>,
    /// What the kernel does with what it reads from this.
    pub(super) pages: Pages,
    /// Held while a page is fetched, by those who read this handle. A session thread polls a read once
    /// and does not wait here: the read goes on as a task.
    listed: AsyncMutex<Listed>,
}

#[derive(Debug)]
struct Listed {
    listing: Listing,
    /// How many entries came before those at hand.
    gone: usize,
    entries: VecDeque<Entry>,
    /// Where a listing can begin again, each with the number of entries before it.
    marks: Vec<(usize, Mark)>,
    /// It was read from its beginning on, once.
    is_first: bool,
}

impl Listed {
    fn new(namespace: &Namespace, dir: &Arc<Dir>) -> Self {
        Self {
            listing: namespace.list(dir),
            gone: 0,
            entries: VecDeque::new(),
            marks: Vec::new(),
            is_first: false,
        }
    }

    fn len(&self) -> usize {
        self.gone + self.entries.len()
    }
}

/// How far a read came.
#[derive(Debug)]
pub(super) enum Reached {
    Entries,
    /// All of the kernel's pages may be filled now: with this state of the directory, if it is one.
    End(Option<Revision>),
}

impl OpenDirectory {
    pub(super) fn new(namespace: &Namespace, dir: Arc<Dir>, pages: Pages) -> Self {
        let listed = Listed {
            is_first: true,
            ..Listed::new(namespace, &dir)
        };
        Self {
            dir,
            pages,
            listed: AsyncMutex::new(listed),
        }
    }

    /// Hands entries to `take`, from the `skip`-th on, until it answers false or there are no more. Without
    /// `skip` it begins, and after other reads it lists anew, as `rewinddir` does.
    pub(super) async fn read(
        &self,
        namespace: &Arc<Namespace>,
        skip: Option<usize>,
        request: &Request,
        mut take: impl FnMut(&Entry, Duration) -> bool,
    ) -> Result<Reached, Error> {
        let mut listed = self.listed.lock().await;
        if skip.is_none() && (listed.len() > 0 || listed.listing.is_over()) {
            *listed = Listed::new(namespace, &self.dir);
        }
        if skip.is_some() && listed.is_first && listed.len() == 0 && self.pages == Pages::Use {
            // What comes before was read from the kernel's pages, which it has dropped.
            listed.listing.go_on_as_known();
        }
        let skip = skip.unwrap_or(0);
        if skip < listed.gone {
            listed.go_back(namespace, &self.dir, skip);
        }
        // A page may hold only names that are held back or left out.
        while listed.len() <= skip {
            if let Some(mark) = listed.listing.mark() {
                let before = listed.len();
                listed.marks.push((before, mark));
            }
            match listed.listing.next(namespace, request).await? {
                Some(more) => listed.entries.extend(more),
                None => return Ok(Reached::End(listed.fills(self.pages))),
            }
            let behind = skip.saturating_sub(listed.gone).min(listed.entries.len());
            if behind > KEPT {
                listed.entries.drain(..behind - KEPT);
                listed.gone += behind - KEPT;
            }
        }
        let from = skip - listed.gone;
        for entry in listed.entries.range_mut(from..) {
            namespace.inodes().prefer_remembered(&mut entry.node);
            if !take(entry, namespace.entry_fresh_for(entry)) {
                break;
            }
        }
        Ok(Reached::Entries)
    }
}

impl Listed {
    fn fills(&self, pages: Pages) -> Option<Revision> {
        let fills = pages == Pages::Renew && self.is_first;
        fills.then(|| self.listing.revision()).flatten()
    }

    fn go_back(&mut self, namespace: &Namespace, dir: &Arc<Dir>, skip: usize) {
        let usable = self.marks.partition_point(|(before, _)| *before <= skip);
        self.marks.truncate(usable);
        *self = match self.marks.pop() {
            Some((before, mark)) => Self {
                listing: namespace.list_from(dir, mark),
                gone: before,
                entries: VecDeque::new(),
                marks: std::mem::take(&mut self.marks),
                is_first: false,
            },
            None => Self::new(namespace, dir),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::namespace::KeyList;
    use crate::s3::pretended::{client_of, run, true_answer};

    #[test]
    fn what_was_looked_up_since_it_was_listed_has_the_number_of_the_lookup() {
        let hour = Duration::from_secs(3600);
        let keys = BTreeSet::from(["directory/x", "file"].map(str::to_owned));
        let s3 = client_of(move |request| true_answer(&keys, request, 1000, 0));
        let namespace = Namespace::new(s3, "", KeyList::default(), hour, 1 << 20);
        let (namespace, request) = (Arc::new(namespace), Request::demand(hour));
        run(async {
            let root = namespace.inodes().root();
            let open = OpenDirectory::new(&namespace, Arc::clone(&root), Pages::Forget);
            let first = open.read(&namespace, None, &request, |_, _| false);
            first.await.expect("a listing");
            namespace.forget_all();
            let mut looked_up = Vec::new();
            for name in ["directory", "file"] {
                let answer = namespace.lookup(&root, name, &request).await;
                let node = answer.expect("an answer").node.expect("it is there");
                namespace.inodes().remember(&node);
                looked_up.push(node);
            }
            let mut listed = Vec::new();
            let all = open.read(&namespace, Some(0), &request, |entry, _| {
                listed.push(entry.node.clone());
                true
            });
            all.await.expect("a listing");
            assert_eq!(listed, looked_up);
        });
    }
}
