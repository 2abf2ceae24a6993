//! An open directory: the entries around its reader, and the way back to those before.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::Error;
use crate::namespace::{Dir, Entry, Listing, Mark, Namespace};
use crate::request::Request;
use crate::sync::Arc;

/// So many entries behind the reader stay at hand; to go further back it lists again from there on.
const KEPT: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct OpenDirectory {
    pub(super) dir: Arc<Dir>,
    /// The kernel keeps what it reads from this.
    pub(super) is_kept: bool,
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
}

impl Listed {
    fn new(namespace: &Namespace, dir: &Arc<Dir>) -> Self {
        Self {
            listing: namespace.list(dir),
            gone: 0,
            entries: VecDeque::new(),
            marks: Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.gone + self.entries.len()
    }
}

impl OpenDirectory {
    pub(super) fn new(namespace: &Namespace, dir: Arc<Dir>, is_kept: bool) -> Self {
        let listed = AsyncMutex::new(Listed::new(namespace, &dir));
        Self {
            dir,
            is_kept,
            listed,
        }
    }

    /// Hands entries to `take`, from the `skip`-th on, until it answers false or there are no more.
    /// `skip` 0 after other reads lists anew, as `rewinddir` does. Returns whether `skip` is the end.
    pub(super) async fn read(
        &self,
        namespace: &Arc<Namespace>,
        skip: usize,
        request: &Request,
        mut take: impl FnMut(&Entry, Duration) -> bool,
    ) -> Result<bool, Error> {
        let mut listed = self.listed.lock().await;
        if skip == 0 && listed.len() > 0 {
            *listed = Listed::new(namespace, &self.dir);
        }
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
                None => return Ok(true),
            }
            let behind = skip.saturating_sub(listed.gone).min(listed.entries.len());
            if behind > KEPT {
                listed.entries.drain(..behind - KEPT);
                listed.gone += behind - KEPT;
            }
        }
        for entry in listed.entries.range(skip - listed.gone..) {
            if !take(entry, namespace.entry_fresh_for(entry)) {
                break;
            }
        }
        Ok(false)
    }
}

impl Listed {
    fn go_back(&mut self, namespace: &Namespace, dir: &Arc<Dir>, skip: usize) {
        let usable = self.marks.partition_point(|(before, _)| *before <= skip);
        self.marks.truncate(usable);
        *self = match self.marks.pop() {
            Some((before, mark)) => Self {
                listing: namespace.list_from(dir, mark),
                gone: before,
                entries: VecDeque::new(),
                marks: std::mem::take(&mut self.marks),
            },
            None => Self::new(namespace, dir),
        };
    }
}
