//! The files that come next in the order of their keys, as far as that is known: those of one directory, and
//! then those of its neighbours (the days of a month and of the next one, one granule after the other).

use lru::LruCache;

use super::known::Directory;
use super::walk::parent;
use super::{Namespace, Way, split};
use crate::s3::ObjectVersion;
use crate::sync::{Arc, lock};

/// Neighbours have a directory so many levels above in common.
const LEVELS: usize = 2;

impl Namespace {
    /// The files behind `key` this way, in order, up to what is not known; at most `most`.
    pub fn files_from(&self, key: &str, way: Way, most: usize) -> Vec<Arc<ObjectVersion>> {
        let directories = lock(&self.directories);
        let known = &directories.known;
        let mut search = Search {
            known,
            way,
            most,
            files: Vec::new(),
            looked_at: 0,
        };
        let (mut prefix, name) = split(key);
        let mut is_next = search.take(prefix, name.as_bytes());
        for _ in 0..LEVELS {
            let above = parent(prefix).filter(|above| above.starts_with(self.root()));
            let Some((above, above_known)) = above.and_then(|it| Some((it, known.peek(it)?)))
            else {
                break;
            };
            let at = &prefix.as_bytes()[above.len()..];
            let mut neighbours = above_known.directories_from(at, way);
            is_next = is_next && neighbours.all(|dir| search.descend(&dir.prefix, LEVELS));
            if !is_next || above_known.whole().is_none() {
                break;
            }
            prefix = above;
        }
        search.files
    }
}

struct Search<'a> {
    known: &'a LruCache<Arc<str>, Directory>,
    way: Way,
    most: usize,
    files: Vec<Arc<ObjectVersion>>,
    looked_at: usize,
}

impl<'a> Search<'a> {
    /// Takes what is behind the place `at` in the directory `prefix`. Whether what comes behind that is next.
    fn take(&mut self, prefix: &str, at: &[u8]) -> bool {
        let Some(known) = self.known.peek(prefix) else {
            return false;
        };
        let files = known.files_from(at, self.way);
        self.files
            .extend(files.take(self.most - self.files.len()).cloned());
        self.looked_at += 1;
        self.files.len() < self.most && self.looked_at <= self.most && known.whole().is_some()
    }

    /// The same of a whole directory; of those in it where it has no file itself.
    fn descend(&mut self, prefix: &str, levels: usize) -> bool {
        let begin: &[u8] = match self.way {
            Way::Forward => b"",
            // No byte of UTF-8.
            Way::Back => b"\xff",
        };
        let before = self.files.len();
        let is_next = self.take(prefix, begin);
        if !is_next || self.files.len() > before || levels == 0 {
            return is_next;
        }
        let (known, way) = (self.known.peek(prefix), self.way);
        let inside = |known: &'a Directory| known.directories_from(begin, way);
        let mut inner = known.into_iter().flat_map(inside);
        inner.all(|dir| self.descend(&dir.prefix, levels - 1))
    }
}
